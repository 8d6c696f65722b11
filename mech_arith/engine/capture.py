"""Activations at sites, batch by batch: nothing is kept that its reader does not keep.

What leaves this module is on the CPU; only the model and what it runs on live on its device.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from jaxtyping import Float
from torch import Tensor

from mech_arith.common.progress import progress
from mech_arith.engine.batching import batches
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.base import Model, Place, Tap, read_prefix, run_blocks, untouched
from mech_arith.models.finite import is_finite, not_finite
from mech_arith.models.prompts import Layout, Prompts

Found = dict[Site, Float[Tensor, "n width"]]


def capture(
    session: Session, prompts: Prompts, sites: Sequence[Site], *, skip: int = 0
) -> Iterator[tuple[Layout, Found]]:
    """The sites' vectors for one batch of problems after another, without the first `skip`.

    Sites where the answer is written are read behind the right answer's tokens (teacher forcing).

    Raises:
        UserError: some are not finite; it names the first layer that has such activations.
    """
    model = session.model
    n_answer = answer_tokens(prompts, sites)
    by_place = {place: list(group) for place, group in groupby(sorted(sites, key=_place), _place)}
    reader = _replayed if model.replays else _hooked
    read = reader(model, prompts, by_place, n_answer)
    with progress(len(prompts), description="activations", unit="problems") as bar:
        bar.advance(skip)
        for layout, found in batches(model, prompts, session.batching, read, skip=skip):
            bar.advance(len(layout))
            if not all(is_finite(vectors) for vectors in found.values()):
                raise not_finite(model, prompts.whole(layout, n_answer=n_answer))
            yield layout, found


def answer_tokens(prompts: Prompts, sites: Sequence[Site]) -> int:
    """How many tokens of the right answers are fed, so that all of the sites are there."""
    named = {site.position for site in sites}
    return max((prompts.layouts[0].n_before(name) for name in named), default=0)


def _replayed(
    model: Model, prompts: Prompts, by_place: dict[Place, list[Site]], n_answer: int
) -> Callable[[Layout], Found]:
    """Block by block, behind the prefix that all prompts share."""
    pasts = read_prefix(model, prompts.prefix)
    stop = 1 + max(layer for layer, _ in by_place) if by_place else 0

    def read(layout: Layout) -> Found:
        found: Found = {}

        def tap_of(layer: int) -> Tap:
            if not any(place[0] == layer for place in by_place):
                return untouched

            def tap(point: str, activation: Tensor) -> Tensor:
                for site in by_place.get((layer, point), ()):
                    width = site.width(model)
                    found[site] = site.select(activation, layout, width=width).cpu()
                return activation

            return tap

        tokens = layout.with_answer(n_answer).to(model.device)
        resid = model.embed(tokens, start=len(prompts.prefix))
        run_blocks(model, resid, start=len(prompts.prefix), pasts=pasts, tap=tap_of, stop=stop)
        return found

    return read


def _hooked(
    model: Model, prompts: Prompts, by_place: dict[Place, list[Site]], n_answer: int
) -> Callable[[Layout], Found]:
    """By whole passes, for models whose blocks cannot be run by themselves."""
    n_prefix = len(prompts.prefix)

    def read(layout: Layout) -> Found:
        found: Found = {}

        def tap_of(sites: list[Site]) -> Callable[[Tensor], Tensor]:
            def tap(activation: Tensor) -> Tensor:
                behind = activation[:, n_prefix:]
                for site in sites:
                    width = site.width(model)
                    found[site] = site.select(behind, layout, width=width).cpu()
                return activation

            return tap

        taps = {place: tap_of(group) for place, group in by_place.items()}
        model.full_pass(prompts.whole(layout, n_answer=n_answer), taps)
        return found

    return read


def _place(site: Site) -> Place:
    return site.layer, site.point
