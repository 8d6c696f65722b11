"""Weights & Biases: one run per cell, whole on disk before it is sent. Nothing else knows wandb."""

from mech_arith.reports.wandb.environment import Place, not_followed, place
from mech_arith.reports.wandb.run import Run
from mech_arith.reports.wandb.settings import TrackingSettings

__all__ = ["Place", "Run", "TrackingSettings", "not_followed", "place"]
