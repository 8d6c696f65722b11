"""Subspaces of activation space, and the methods that find them: one file per method."""

from typing import Any

from mech_arith.common.registry import Registry

METHODS: Registry[Any] = Registry("tracing method", "mech_arith.directions.methods")
"""Methods that find a subspace, by name."""
