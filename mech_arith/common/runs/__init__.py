"""Directories of runs: what each cell has become, by its records and by the cluster."""
