"""Published claims: what papers say, put to the test by presets, and the verdict on each."""

from mech_arith.common.registry import Registry
from mech_arith.reports.claims.base import Test

CLAIMS: Registry[Test] = Registry("claim", "mech_arith.reports.claims.published")
"""The test of each claim, by the name that `claim.name` gives. A plugin may add its own."""
