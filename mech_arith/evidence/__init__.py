"""From arrays to tables: every column, every number that is reported."""
