"""The figures of every run, each where the run has the rows for it: one file each."""
