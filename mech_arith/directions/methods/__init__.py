"""Direction methods. The name of a file is the name of its method in `tracing.method`."""
