"""The engine's side of the benchmark: all edits of a workload, streamed."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from workloads import Workload

from mech_arith.engine import run as engine
from mech_arith.engine.batching import Batching
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.prompts import Layout, Prompts

Consume = Callable[
    [int, Int64[Tensor, " rows"], Int64[Tensor, " rows"], Float[Tensor, "rows vocab"]], None
]
"""Takes a site's index and, row by row, the edit, the problem and its logits there."""


def stacked(workload: Workload, site: int) -> int:
    """How many edited problems go through the layers above a site at once."""
    edits = workload.sites[site]
    rows = Batching().rows(workload.model, edits.positions)
    return min(max(1, rows // workload.n) * workload.n, len(edits) * workload.n)


def logits(workload: Workload, consume: Consume) -> None:
    """The logits at the last position of every problem under every edit."""
    plan = [
        engine.SiteEdits(
            Site(edits.layer, "resid_post", "last" if edits.positions == 1 else "all"),
            *edits.within(),
        )
        for edits in workload.sites
    ]
    prompts = as_prompts(workload)
    for read in engine.edited_read_outs(Session(workload.model), prompts, plan):
        consume(read.entry, read.edits, read.problems, read.logits)


def as_prompts(workload: Workload) -> Prompts:
    """The workload's tokens, its shared prefix apart."""
    prefix, tokens = workload.tokens.tensor_split([workload.prefix], dim=1)
    layout = Layout(torch.arange(workload.n), tokens, ("",) * tokens.shape[1], {})
    return Prompts(prefix[0], (layout,))
