"""Trace and manipulate intermediate values in Transformers that do arithmetic."""

__version__ = "0.1.0"
