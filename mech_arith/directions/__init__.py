"""Subspaces of activation space, and the methods that find them: one file per method."""
