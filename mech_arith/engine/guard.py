"""A check of the fast path, on a few problems, before it is believed.

What is resumed from a clean pass is compared with whole passes of the model, hooked where its own
library runs it: the residual stream behind every layer, and under edits at some of the run's sites
what is read out, behind tokens that are fed and behind others that are written. Where the answer is
edited as many are written as it takes to get to every edited position.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mech_arith.common.errors import UserError, unknown
from mech_arith.engine.batching import is_out_of_memory
from mech_arith.engine.capture import answer_tokens
from mech_arith.engine.passes import Change, Clean, Hooked, Resumed, Rows, run_clean
from mech_arith.engine.rules import Rule
from mech_arith.engine.sites import Site
from mech_arith.models.base import Model, read_prefix
from mech_arith.models.finite import check_finite
from mech_arith.models.prompts import Layout, Prompts

log = logging.getLogger(__name__)

PROBLEMS = 2
"""Of each layout that is tried: the first and the last."""

SITES = 3
"""The first and the last of the run, and some between."""

EDITS = 2
"""Edits of each problem. With one alone, rows in the wrong order would not show."""

FRAME = 2
"""Directions of each edit of an answer."""

TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Size of the difference over size of the whole pass's result, that is let pass."""


def check_fast_path(
    model: Model, prompts: Prompts, sites: Sequence[Site], *, bound: int = 0
) -> float | None:
    """Compare with whole passes; where blocks cannot be replayed, say so and turn to whole passes.

    Args:
        model: the model under study.
        prompts: the problems.
        sites: of the run.
        bound: no right answer is larger.

    Returns:
        The largest relative difference; None if every pass of this model is a whole one.

    Raises:
        UserError: a point or heads that the model has not; activations that are not finite; or the
            two disagree: it names the layer.
    """
    check_points(model, sites)
    for layout in _tried(prompts):
        check_finite(model, prompts.whole(layout))
    if not is_replayed(model, prompts, bound=bound):
        return None
    return compare_paths(model, prompts, sites)


def check_points(model: Model, sites: Sequence[Site]) -> None:
    """Check that all sites have a place in the model. No pass is run.

    Raises:
        UserError: a point or heads that the model has not.
    """
    for site in sites:
        if site.point not in model.points:
            raise unknown(f"point of {model.name}", site.point, model.points)
        site.width(model)  # it refuses heads that a point is not made of


def is_replayed(model: Model, prompts: Prompts, *, bound: int = 0) -> bool:
    """Whether passes of these prompts can be resumed, by what the model says of itself. No pass is
    run; where they cannot, the model is turned to whole passes.
    """
    if not model.replays:
        return False
    reason = model.why_not_replayed(prompts, longest=_longest(model, bound))
    if reason is not None:
        _fall_back(model, reason)
    return reason is None


def compared(
    model: Model, prompts: Prompts, sites: Sequence[Site], *, bound: int = 0
) -> dict[str, Any]:
    """What a comparison of the two paths depends on besides the model, as plain data.

    Which numbers stand in the prompts is no part of it: other problems of the same layouts are run
    by the same passes. Neither is the exact length of what all prompts begin with, as examples that
    have one digit more: passes differ with it only where a window of attention or rotary factors
    end, which `Model.turns` says, and between powers of two it is tried anew all the same.
    """
    some, tried, longest = _some(sites), _tried(prompts), _longest(model, bound)
    n_prefix = len(prompts.prefix)
    lengths = [n_prefix, *(n_prefix + layout.tokens.shape[1] + longest for layout in tried)]
    return {
        "prefix": n_prefix.bit_length(),
        "turns": [sum(turn < length for turn in model.turns) for length in lengths],
        "layouts": [
            [layout.tokens.shape[1], *([*layout.positions(site.position)] for site in some)]
            for layout in tried
        ],
        "sites": [[site.layer, site.point] for site in some],
        "longest": longest,
    }


def compare_paths(model: Model, prompts: Prompts, sites: Sequence[Site]) -> float | None:
    """The comparison of `check_fast_path` alone, of a model that says nothing against it.

    Returns:
        The largest relative difference; None if every pass of this model is a whole one.

    Raises:
        UserError: the two disagree, or activations are not finite.
    """
    if not model.replays:
        return None
    try:
        differences = [
            found
            for layout in _tried(prompts)
            for found in _differences(model, prompts, layout, sites)
        ]
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, UserError):
            raise
        # Whatever a model does that its blocks alone cannot: whole passes are always right.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return _fall_back(model, reason)
    limit = TOLERANCE.get(model.dtype, TOLERANCE[torch.float32])
    for found in differences:
        if not found.size <= limit:
            raise UserError(
                f"expected the fast path of {model.name} to agree with a full pass within "
                f"{limit:g}, got a relative difference of {found.size:.2g} behind {found.place}; "
                "set engine=full to use full passes, and report the model"
            )
    return max(found.size for found in differences)


def _tried(prompts: Prompts) -> list[Layout]:
    """A few problems of the first layout, and of the last."""
    some = (prompts.layouts[0], *prompts.layouts[1:][-1:])
    return [layout.part(slice(PROBLEMS)) for layout in some]


def _longest(model: Model, bound: int) -> int:
    """How many tokens may be written."""
    return 0 if model.reader is None else model.reader.longest(bound)


def _fall_back(model: Model, reason: str) -> None:
    """Turn to whole passes, and say so."""
    model.replays = False
    log.warning("%s cannot be replayed block by block (%s)", model.name, reason)
    log.warning("every pass of %s is a full, far slower one", model.name)


@dataclass(frozen=True)
class _Difference:
    """How far the two paths are apart."""

    place: str
    size: float


def _differences(
    model: Model, prompts: Prompts, layout: Layout, sites: Sequence[Site]
) -> list[_Difference]:
    """Of the layers, then of edits."""
    small = Prompts(prompts.prefix, (layout,))
    n_answer = answer_tokens(small, sites)
    # Any tokens will do in front of no edit; a model that regresses is fed none.
    fed = layout.tokens[:, : 0 if model.regresses else 1]
    if n_answer:
        fed = layout.with_answer(n_answer)[:, -n_answer:]
    clean = run_clean(model, small, read_prefix(model, small.prefix), layout, fed)
    found = _of_layers(model, small, clean)
    unedited = _read(
        Hooked(model, small, layout, fed, None, n_edits=EDITS), layout, model, n_answer
    )
    for site in _some(sites):
        change = _random_change(model, clean, site)
        resumed = Resumed(clean, change, n_edits=EDITS)
        hooked = Hooked(model, small, layout, fed, change, n_edits=EDITS)
        ours, theirs = (_read(rows, layout, model, n_answer) for rows in (resumed, hooked))
        place = f"an edit at layer {site.layer}, {site.point}"
        # Before the first edited position of an answer there is nothing to be read again.
        theirs, clean_reads = (read[:, resumed.n_same :] for read in (theirs, unedited))
        exact = model.dtype == torch.float32
        found.append(_Difference(place, _of_effect(ours, theirs, clean_reads, exact=exact)))
    return found


def _of_layers(model: Model, prompts: Prompts, clean: Clean) -> list[_Difference]:
    """The residual stream behind each layer."""
    full: dict[int, Tensor] = {}

    def keep(layer: int, activation: Tensor) -> Tensor:
        full[layer] = activation[:, clean.n_prefix :]
        return activation

    taps = {
        (layer, "resid_post"): lambda activation, layer=layer: keep(layer, activation)
        for layer in range(model.n_layers)
    }
    tokens = torch.cat([prompts.whole(clean.layout), clean.fed.cpu()], dim=1)
    model.full_pass(tokens.to(model.device), taps)
    return [
        _Difference(f"layer {layer}", _relative(clean.resid[layer + 1], full[layer]))
        for layer in range(model.n_layers)
    ]


def _random_change(model: Model, clean: Clean, site: Site) -> Change:
    """Every row moved in a direction of its own, by a good part of its length."""
    indices = clean.layout.positions(site.position)
    width = site.width(model)
    generator = torch.Generator().manual_seed(site.layer)
    shape = (len(clean.layout) * EDITS, len(indices), width)
    vectors = torch.randn(shape, generator=generator)
    here = clean.resid[site.layer][:, list(indices)].float().square().mean().sqrt().cpu()
    vectors = (0.5 * here * vectors).to(model.device, model.dtype)
    if max(indices) < clean.n_prompt:
        return Change(site, indices, vectors)
    frames = torch.randn(EDITS, FRAME, *shape[1:], generator=generator).to(model.device)
    share = torch.rand(shape[0], generator=generator).to(model.device)
    frame_of = torch.arange(EDITS, device=model.device).repeat(len(clean.layout))
    return Change(site, indices, vectors, Rule(share, frames, frame_of))


@torch.inference_mode()
def _read(
    rows: Rows, layout: Layout, model: Model, n_answer: int
) -> Float[Tensor, "rows reads out"]:
    """All that rows can be asked for: behind the prompt, what is fed, and what is written.

    One token is written, or as many as get to every edited position of the answer and one more.
    """
    reads = [torch.cat([read for _, read in rows.read_outs()])]
    if not model.regresses:
        n = len(layout) * EDITS
        last = [token for token in layout.tokens[:, -1].tolist() for _ in range(EDITS)]
        tails = rows.tails(torch.arange(n))
        for length in range(1, n_answer + 2):
            behind = tails.next_read_outs(torch.arange(n), [(token,) * length for token in last])
            reads.append(torch.cat(list(behind))[:, None])
    return torch.cat(reads, dim=1).double().cpu()


def _of_effect(ours: Tensor, theirs: Tensor, unedited: Tensor, *, exact: bool) -> float:
    """The difference, beside what the edit does: an edit that is not made must show.

    In half precision what a small edit does drowns in the rounding of the whole.
    """
    spread = (unedited - unedited.mean(-1, keepdim=True)).norm()
    size = (theirs - unedited).norm() + (0.1 if exact else 1.0) * spread
    return float((ours - theirs).norm() / (size if size > 0 else unedited.norm()))


def _relative(ours: Tensor, theirs: Tensor) -> float:
    ours, theirs = ours.double(), theirs.to(ours.device).double()
    return float((ours - theirs).norm() / theirs.norm())


def _some(sites: Sequence[Site]) -> list[Site]:
    """The first, the last, and some between; of heads the whole point.

    The passes are the same for a head, and what a single one does may drown in rounding.
    """
    whole = list(dict.fromkeys(replace(site, head=None) for site in sites))
    last = len(whole) - 1
    chosen = {round(index * last / (SITES - 1)) for index in range(SITES)}
    return [whole[index] for index in sorted(chosen) if whole]
