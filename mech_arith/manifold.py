"""Is an edited activation one that the model might have had by itself?

An edit moves an activation along a unit vector, wherever that leads. This says where: out of the
range in which the coordinate was observed, to another length, away from where the components put
the clean problems, and how much of the way is left once the residual stream is normalised again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mech_arith.activations import Found, capture
from mech_arith.batching import Batching
from mech_arith.digests import tensor_digest
from mech_arith.effects import Treated
from mech_arith.intervention import InterventionPlan
from mech_arith.sites import Site
from mech_arith.solvers.base import Solver
from mech_arith.solvers.prompts import Prompts
from mech_arith.sums import Sums
from mech_arith.tracing import Trace
from mech_arith.unfinished import Unfinished

ROUNDING = 1e-9
"""A coordinate put on an end of the observed range may miss it by this share of the range."""

FAR = 0.99
"""Share of the clean problems that lie nearer than what counts as far."""

LONG = 0.95
"""Share of the problems whose length grows by less than what `norm_ratio_p95` says."""


@dataclass(frozen=True)
class Dose:
    """How far one component is moved at one site."""

    site: Site
    component: int
    changes: Float64[Tensor, "sources strengths n"]
    """Of each problem's coordinate, in activation units: towards each of its sources, by each
    strength. An edit that goes nowhere in particular has one source."""
    rows: Int64[Tensor, " n"]
    """Of these problems among the prompts."""


def manifold_table(
    solver: Solver,
    prompts: Prompts,
    traces: Mapping[Site, Trace],
    treated: Sequence[Treated],
    plan: InterventionPlan,
    *,
    batching: Batching,
    unfinished: Unfinished | None = None,
) -> pd.DataFrame:
    """Where the edits of every target led: a row per target and strength, see `manifold`."""
    doses = [Dose(one.site, one.target.component, one.changes, one.rows) for one in treated]
    found = manifold(solver, prompts, traces, doses, batching=batching, unfinished=unfinished)
    edit = {"edit": plan.edit.name, "strength_unit": plan.edit.unit}
    tables = [
        pd.DataFrame(
            [{**one.key, **edit, "strength": by, "n": len(one.rows)} for by in plan.strengths]
        ).join(of_dose)
        for one, of_dose in zip(treated, found, strict=True)
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def manifold(
    solver: Solver,
    prompts: Prompts,
    traces: Mapping[Site, Trace],
    doses: Sequence[Dose],
    *,
    batching: Batching,
    unfinished: Unfinished | None = None,
) -> list[pd.DataFrame]:
    """Where edits lead, by one clean pass over the edited problems.

    Args:
        solver: the model under study.
        prompts: the edited problems, the first of the report split.
        traces: what tracing found, by site.
        doses: what is moved.
        batching: how many problems are run at a time.
        unfinished: what an earlier attempt at the same cell has done of the pass.

    Returns:
        For each dose a row per strength, over all problems and sources:
        `outside_range`, `mahalanobis`, `beyond_99`: see `within_components`;
        `norm_ratio`, `norm_ratio_median`, `norm_ratio_p95`: mean, median and 95th percentile of
        `length_ratio`;
        `dose_left`: mean of `dose_left` where something is moved; NaN where nothing is, or no
        normalisation follows, which `reason` then says.
    """
    walks = [_Walk(dose, traces[dose.site], solver, n=len(prompts)) for dose in doses]
    sites = list(dict.fromkeys(site for walk in walks for site in walk.sites))
    moved = [tensor_digest(walk.direction, walk.dose.changes, walk.dose.rows) for walk in walks]
    key = {**solver.fingerprint, "prompts": prompts.digest(), "moved": moved}
    running = Sums({"walk": walks}, (unfinished or Unfinished.nothing()).piece("manifold", key))
    for layout, found in capture(solver, prompts, sites, batching, skip=running.done):
        for walk in walks:
            walk.update(found, layout.rows)
        running.advance(len(layout))
    return [
        pd.DataFrame(
            {
                **within_components(
                    traces[walk.dose.site].coordinates,
                    traces[walk.dose.site].components.covariance.double(),
                    walk.dose,
                ),
                **walk.table(),
            }
        )
        for walk in walks
    ]


def within_components(
    coordinates: Float64[Tensor, "all k"], covariance: Float64[Tensor, "k k"], dose: Dose
) -> dict[str, list[float]]:
    """How the edited coordinates lie to the observed ones, by strength.

    With coordinates c (zero at the mean of the fit split, of covariance S there), the distance of a
    problem is D = sqrt(c' S^-1 c), Mahalanobis' within the components.

    Args:
        coordinates: those observed, of the whole report split.
        covariance: of the coordinates, on the fit split.
        dose: what is moved.

    Returns:
        `outside_range`: share of edited coordinates outside [min, max] of the observed ones;
        `mahalanobis`: mean D of the edited problems, over that of the same problems unedited;
        `beyond_99`: share of edited problems with a D above the 99th percentile of the observed
        ones. Without a change it is about .01, for there are clean problems beyond it too.
    """
    observed = coordinates[:, dose.component]
    low, high = observed.min(), observed.max()
    slack = ROUNDING * (high - low)
    edited = observed[dose.rows] + dose.changes
    outside = (edited < low - slack) | (edited > high + slack)

    precision = covariance.inverse()
    weighted = coordinates @ precision
    squared = (weighted * coordinates).sum(1)
    clean = squared[dose.rows]
    # By the difference, so that no change leaves the distance bit for bit as it was.
    own = precision[dose.component, dose.component]
    further = dose.changes * (2 * weighted[dose.rows, dose.component] + dose.changes * own)
    distance = (clean + further).clamp(min=0).sqrt()
    threshold = squared.sqrt().quantile(FAR)
    return {
        "outside_range": outside.double().mean((0, 2)).tolist(),
        "mahalanobis": (distance.mean((0, 2)) / clean.sqrt().mean()).tolist(),
        "beyond_99": (distance > threshold).double().mean((0, 2)).tolist(),
    }


def length_ratio(
    activation: Float64[Tensor, "n width"],
    direction: Float64[Tensor, " width"],
    changes: Float64[Tensor, "*edits n"],
) -> Float64[Tensor, "*edits n"]:
    """||A + d v|| / ||A|| of activations A moved by d along a unit vector v."""
    squared = activation.square().sum(1)
    edited = squared + changes * (2 * (activation @ direction) + changes)
    return (edited.clamp(min=0) / squared).sqrt()


def dose_left(
    stream: Float64[Tensor, "n pos d"],
    direction: Float64[Tensor, "pos d"],
    changes: Float64[Tensor, "*edits n"],
    *,
    centred: bool,
    eps: float,
) -> Float64[Tensor, "*edits n"]:
    """The share of the distance moved that the next normalisation leaves along the direction.

    A normalisation without gain and bias is N(x) = c(x) / s(x), where c subtracts the mean over the
    entries (LayerNorm) or nothing (RMSNorm), and s(x) = sqrt(mean(c(x)^2) + eps). Of a stream x
    with one vector x_p at each position p of the site, moved by d along v = (v_p), there is left

        sum_p <N(x_p + d v_p) - N(x_p), v_p> s(x_p) / (d sum_p <v_p, v_p>)

    What reads the stream sees N(x), which times s(x) is in units of the clean stream again. 1: all
    that was moved is seen. About 0: it is normalised away, as it must be where x itself points
    along v, or v along the mean. More than 1: the edit shrinks the stream, so that what there is
    weighs more. It is never less than 0.

    At d = 0 it is the limit, that of a small dose.
    """
    x, v = stream, direction
    if centred:
        x, v = x - x.mean(2, keepdim=True), v - v.mean(1, keepdim=True)
    along = torch.einsum("npd,pd->np", x, v)
    length = v.square().sum(1)
    far = changes[..., None]
    # s(x + d v)^2 - s(x)^2 = d * growth: nothing here is divided by d.
    growth = (2 * along + far * length) / x.shape[2]
    before = x.square().mean(2) + eps
    s, s_edited = before.sqrt(), (before + far * growth).clamp(min=eps).sqrt()
    left = s / s_edited * length - along * growth / (s_edited * (s + s_edited))
    return left.sum(-1) / direction.square().sum()


class _Walk:
    """A dose, and what of it takes whole activations: filled in as problems go by."""

    def __init__(self, dose: Dose, found: Trace, solver: Solver, *, n: int) -> None:
        self.dose = dose
        self.direction = found.components.directions[dose.component].double()
        self._d_model = solver.d_model
        self._norm = solver.next_norm(dose.site.layer, dose.site.point)
        places = () if self._norm is None else self._norm.stream
        self._stream = [Site(layer, point, dose.site.position) for layer, point in places]
        self._place = torch.full((n,), -1, dtype=torch.int64)
        self._place[dose.rows] = torch.arange(len(dose.rows))
        self._ratio, self._left = (torch.full_like(dose.changes, torch.nan) for _ in range(2))

    @property
    def sites(self) -> list[Site]:
        """Where activations are needed."""
        return [self.dose.site, *self._stream]

    def update(self, found: Found, rows: Int64[Tensor, " m"]) -> None:
        """Take in one batch: the activations of the problems `rows`."""
        mine = self._place[rows] >= 0
        at = self._place[rows][mine]
        changes = self.dose.changes[..., at]
        activation = found[self.dose.site][mine].double()
        self._ratio[..., at] = length_ratio(activation, self.direction, changes)
        if self._norm is not None:
            stream = torch.stack([found[site][mine].double() for site in self._stream]).sum(0)
            per_position = (-1, self._d_model)
            self._left[..., at] = dose_left(
                stream.unflatten(1, per_position),
                self.direction.unflatten(0, per_position),
                changes,
                centred=self._norm.centred,
                eps=self._norm.eps,
            )

    def table(self) -> dict[str, list[float] | list[str]]:
        """Over problems and sources, by strength."""
        ratio, left = (each.transpose(0, 1).flatten(1) for each in (self._ratio, self._left))
        moved = self.dose.changes.transpose(0, 1).flatten(1) != 0
        point = self.dose.site.point
        unread = f"nothing normalises the stream that {point} moves" if self._norm is None else ""
        return {
            "norm_ratio": ratio.mean(1).tolist(),
            "norm_ratio_median": ratio.quantile(0.5, dim=1).tolist(),
            "norm_ratio_p95": ratio.quantile(LONG, dim=1).tolist(),
            "dose_left": torch.where(moved, left, torch.nan).nanmean(1).tolist(),
            "reason": [
                unread or ("" if some else "no problem is moved") for some in moved.any(1).tolist()
            ],
        }

    def state(self) -> dict[str, Tensor]:
        """All that it has taken in."""
        return {"ratio": self._ratio, "left": self._left}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up another's state."""
        self._ratio, self._left = state["ratio"].clone(), state["left"].clone()
