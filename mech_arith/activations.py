"""Activations at sites, batch by batch: nothing is kept that its reader does not keep.

What leaves this module is on the CPU; only the solver and what it runs on live on its device.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from jaxtyping import Float, Int64
from torch import Tensor

from mech_arith.progress import progress
from mech_arith.sites import Site
from mech_arith.solvers.base import Solver
from mech_arith.solvers.blocks import Tap, untouched


def capture(
    solver: Solver, tokens: Int64[Tensor, "n pos"], sites: Sequence[Site], *, batch_size: int
) -> Iterator[dict[Site, Float[Tensor, "n width"]]]:
    """The sites' vectors for one batch of problems after another."""
    wanted = {place: list(group) for place, group in groupby(sorted(sites, key=_place), key=_place)}
    batches = tokens.split(batch_size)
    for batch in progress(batches, description="activations", unit="batches"):
        found: dict[Site, Tensor] = {}

        def tap_of(layer: int, found: dict[Site, Tensor] = found) -> Tap:
            if not any(place[0] == layer for place in wanted):
                return untouched

            def tap(point: str, activation: Tensor) -> Tensor:
                for site in wanted.get((layer, point), ()):
                    found[site] = site.select(activation).cpu()
                return activation

            return tap

        solver.run(batch, tap_of)
        yield found


def _place(site: Site) -> tuple[int, str]:
    return site.layer, site.point
