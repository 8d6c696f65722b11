"""Is an edited activation one that the model might have had by itself?

An edit moves an activation along a unit vector, wherever that leads. This says where: out of the
range in which the coordinate was observed, to another length, away from where the components put
the clean problems, and how much of the way is left once the residual stream is normalised again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mech_arith.common.digests import tensor_digest
from mech_arith.common.streaming import Sums
from mech_arith.directions.base import Subspace
from mech_arith.directions.tracing import Trace
from mech_arith.engine.capture import Found, capture
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.interventions.result import InterventionResult
from mech_arith.models.base import Model, NextNorm
from mech_arith.models.prompts import Prompts

ROUNDING = 1e-9
"""A coordinate put on an end of the observed range may miss it by this share of the range."""

FAR = 0.99
"""Share of the clean problems that lie nearer than what counts as far."""


@dataclass(frozen=True)
class Dose:
    """How far problems are moved within one subspace at one site."""

    site: Site
    components: tuple[int, ...]
    """The subspace's directions, among all of the site."""
    changes: Float64[Tensor, "sources strengths n k"]
    """Of each problem's coordinates, in activation units: towards each of its sources, by each
    strength. An edit that goes nowhere in particular has one source."""
    rows: Int64[Tensor, " n"]
    """Indices of these problems among the prompts."""

    @property
    def moves(self) -> Bool[Tensor, "sources strengths n"]:
        """Whether a problem is moved at all."""
        return (self.changes != 0).any(3)


@dataclass(frozen=True)
class Spread:
    """How edited coordinates lie to the observed ones, within the span of the components.

    With coordinates c (zero at the mean of the fit split, of covariance S there), the distance of a
    problem is D = sqrt(c' S^-1 c), Mahalanobis'.
    """

    outside: Bool[Tensor, "sources strengths n"]
    """Any edited coordinate is outside [min, max] of the observed ones."""
    distance: Float64[Tensor, "sources strengths n"]
    """D of the edited problems."""
    clean_distance: Float64[Tensor, " n"]
    """D of the same problems unedited."""
    far: Float64[Tensor, ""]
    """The 99th percentile of D over all observed problems."""


@dataclass(frozen=True)
class Departure:
    """How far one dose leads from the activations that the model has by itself."""

    dose: Dose
    spread: Spread
    length: Float64[Tensor, "sources strengths n"]
    """See `length_ratio`."""
    left: Float64[Tensor, "sources strengths n"] | None
    """See `dose_left`; None where no normalisation follows."""


def doses_of(results: Sequence[InterventionResult]) -> list[Dose]:
    """How far every target is moved."""
    return [Dose(one.site, one.target.components, one.changes, one.rows) for one in results]


def off_distribution(
    session: Session, prompts: Prompts, traces: Mapping[Site, Trace], doses: Sequence[Dose]
) -> list[Departure]:
    """Where each dose leads, by one clean pass over the edited problems.

    Args:
        session: the model under study; its checkpoint keeps what the pass has summed up.
        prompts: the edited problems, the first of the report split.
        traces: what tracing found, by site.
        doses: what is moved.
    """
    model = session.model
    walks = [_Walk(dose, traces[dose.site], model, n=len(prompts)) for dose in doses]
    sites = list(dict.fromkeys(site for walk in walks for site in walk.sites))
    moved = [tensor_digest(walk.frame, walk.dose.changes, walk.dose.rows) for walk in walks]
    key = {**model.fingerprint, "prompts": prompts.digest(), "moved": moved}
    running = Sums({"walk": walks}, session.checkpoint.piece("off_distribution", key))
    for layout, found in capture(session, prompts, sites, skip=running.done):
        for walk in walks:
            walk.update(found, layout.rows)
        running.advance(len(layout))
    return [walk.departure(traces[walk.dose.site]) for walk in walks]


def within_components(
    coordinates: Float64[Tensor, "all k"],
    subspace: Subspace,
    dose: Dose,
) -> Spread:
    """How a dose's edited coordinates lie to the observed ones.

    With coordinates c (zero at the mean of the fit split, of covariance S there), the distance of a
    problem is D = sqrt(c' S^-1 c), Mahalanobis' within the components.

    Args:
        coordinates: those observed, of the whole report split.
        subspace: what was found at the site.
        dose: what is moved.
    """
    at = list(dose.components)
    observed = coordinates[:, at]
    low, high = observed.amin(0), observed.amax(0)
    slack = ROUNDING * (high - low)
    edited = observed[dose.rows] + dose.changes

    precision = _precision(subspace)
    # What a move along the dose's directions changes in the coordinates on all directions.
    directions = subspace.directions.double()
    by_all = (directions[at] @ directions.mT) @ precision
    within = by_all @ directions @ directions[at].mT
    squared = ((coordinates @ precision) * coordinates).sum(1)
    clean = squared[dose.rows]
    # By the difference, so that no change leaves the distance bit for bit as it was.
    weighted = coordinates[dose.rows] @ by_all.mT
    further = (dose.changes * (2 * weighted + dose.changes @ within)).sum(-1)
    return Spread(
        outside=((edited < low - slack) | (edited > high + slack)).any(-1),
        distance=(clean + further).clamp(min=0).sqrt(),
        clean_distance=clean.sqrt(),
        far=squared.sqrt().quantile(FAR),
    )


def _precision(subspace: Subspace) -> Float64[Tensor, "k k"]:
    """Inverse covariance of the coordinates; where directions depend on each other, within what
    they span.
    """
    covariance = subspace.covariance.double()
    if len(subspace.span) == len(subspace.directions):
        return covariance.inverse()
    return torch.linalg.pinv(covariance, hermitian=True)


def length_ratio(
    activation: Float64[Tensor, "n width"],
    frame: Float64[Tensor, "k width"],
    changes: Float64[Tensor, "*edits n k"],
) -> Float64[Tensor, "*edits n"]:
    """||A + sum d_i v_i|| / ||A|| of activations A moved by d_i along orthonormal vectors v_i."""
    squared = activation.square().sum(1)
    edited = squared + (changes * (2 * (activation @ frame.mT) + changes)).sum(-1)
    return (edited.clamp(min=0) / squared).sqrt()


def dose_left(
    stream: Float64[Tensor, "n pos d"],
    direction: Float64[Tensor, "n pos d"],
    changes: Float64[Tensor, "*edits n"],
    *,
    centred: bool,
    eps: float,
) -> Float64[Tensor, "*edits n"]:
    """The share of the distance moved that the next normalisation leaves along the direction.

    A normalisation without gain and bias is N(x) = c(x) / s(x), where c subtracts the mean over the
    entries (LayerNorm) or nothing (RMSNorm), and s(x) = sqrt(mean(c(x)^2) + eps). Of a stream x
    with one vector x_p at each position p of the site, moved by d along v = (v_p), a unit vector
    for each problem, there is left

        sum_p <N(x_p + d v_p) - N(x_p), v_p> s(x_p) / (d sum_p <v_p, v_p>)

    What reads the stream sees N(x), which times s(x) is in units of the clean stream again. 1: all
    that was moved is seen. About 0: it is normalised away, as it must be where x itself points
    along v, or v along the mean. More than 1: the edit shrinks the stream, so that what there is
    weighs more. It is never less than 0.

    At d = 0 it is the limit, that of a small dose.
    """
    x, v = stream, direction
    if centred:
        x, v = x - x.mean(2, keepdim=True), v - v.mean(2, keepdim=True)
    along = (x * v).sum(2)
    length = v.square().sum(2)
    far = changes[..., None]
    # s(x + d v)^2 - s(x)^2 = d * growth: nothing here is divided by d.
    growth = (2 * along + far * length) / x.shape[2]
    before = x.square().mean(2) + eps
    s, s_edited = before.sqrt(), (before + far * growth).clamp(min=eps).sqrt()
    left = s / s_edited * length - along * growth / (s_edited * (s + s_edited))
    return left.sum(-1) / direction.square().sum((1, 2))


class _Walk:
    """A dose, and what of it takes whole activations: filled in as problems go by."""

    def __init__(self, dose: Dose, found: Trace, model: Model, *, n: int) -> None:
        self.dose = dose
        self.frame = found.subspace.directions[list(dose.components)].double()
        self._d_model = model.d_model
        self._norm = model.next_norm(dose.site.layer, dose.site.point)
        places = () if self._norm is None else self._norm.stream
        self._stream = [Site(layer, point, dose.site.position) for layer, point in places]
        self._place = torch.full((n,), -1, dtype=torch.int64)
        self._place[dose.rows] = torch.arange(len(dose.rows))
        edits = dose.changes[..., 0]
        self._ratio, self._left = (torch.full_like(edits, torch.nan) for _ in range(2))

    @property
    def sites(self) -> list[Site]:
        """Where activations are needed."""
        return [self.dose.site, *self._stream]

    def update(self, found: Found, rows: Int64[Tensor, " m"]) -> None:
        """Take in one batch: the activations of the problems `rows`."""
        mine = self._place[rows] >= 0
        at = self._place[rows][mine]
        changes = self.dose.changes[:, :, at]
        activation = found[self.dose.site][mine].double()
        self._ratio[..., at] = length_ratio(activation, self.frame, changes)
        if self._norm is not None:
            stream = torch.stack([found[site][mine].double() for site in self._stream]).sum(0)
            self._left[..., at] = self._left_of(stream, changes, self._norm)

    def _left_of(
        self,
        stream: Float64[Tensor, "n width"],
        changes: Float64[Tensor, "m s n k"],
        norm: NextNorm,
    ) -> Float64[Tensor, "m s n"]:
        """See `dose_left`; of more than one direction along the way that each problem is moved."""
        x = stream.unflatten(1, (-1, self._d_model))

        def left(along: Float64[Tensor, "n width"], far: Float64[Tensor, "*edits n"]) -> Tensor:
            v = along.unflatten(1, (-1, self._d_model))
            return dose_left(x, v, far, centred=norm.centred, eps=norm.eps)

        if len(self.frame) == 1:
            return left(self.frame.expand(len(x), -1), changes[..., 0])
        far = changes.norm(dim=3)
        along = changes / far[..., None]
        return torch.stack(
            [
                torch.stack([left(way @ self.frame, d) for way, d in zip(*of_source, strict=True)])
                for of_source in zip(along, far, strict=True)
            ]
        )

    def departure(self, found: Trace) -> Departure:
        """What it has found, once all problems have gone by."""
        centred = found.coordinates - found.subspace.mean_coordinates
        spread = within_components(centred, found.subspace, self.dose)
        return Departure(self.dose, spread, self._ratio, None if self._norm is None else self._left)

    def state(self) -> dict[str, Tensor]:
        """All that it has taken in."""
        return {"ratio": self._ratio, "left": self._left}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up another's state."""
        self._ratio, self._left = state["ratio"].clone(), state["left"].clone()
