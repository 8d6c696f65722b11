"""One cell and many: configuration, identity, jobs, sweeps."""
