"""Do answers depend on how many rows are run at a time? Measured for models in half precision.

A kernel adds up its products in an order that depends on how many rows it is given. In float32 that
moves a log-probability by about 1e-5. In bfloat16 and float16 it may turn an answer into another.
So a few problems are run as the cell runs them, in stacked batches of suffix passes behind a shared
prefix, and once more one row at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.store import Store
from mech_arith.engine.answers import Answers
from mech_arith.engine.batching import Batching
from mech_arith.engine.capture import capture
from mech_arith.engine.edits import SiteVectors
from mech_arith.engine.run import (
    CODE,
    ReferenceAnswers,
    asked_key,
    run_baseline,
    run_edits,
)
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.base import Model
from mech_arith.models.prompts import Prompts

HALF = (torch.float16, torch.bfloat16)

PROBLEMS = 4
"""That are run alone."""

MOST_PROBLEMS = 16
"""Of the batch that they are compared with, at most."""

EDITS = 2
"""Of each of them that are run alone."""

MOST_ROWS = 64
"""Rows of the batch that the edits are compared with, at most."""


@dataclass(frozen=True)
class BatchEffect:
    """How far answers of the same rows are apart, alone and in batches as the cell's."""

    dtype: str
    rows: int
    """Edited rows that were run at a time."""
    n: int
    """Problems."""
    n_edited: int
    """Edited answers."""
    changed: int
    """Of the problems: those with another answer."""
    changed_edited: int
    """Of the edited answers."""
    log_prob: float
    """Largest difference of the right answer's log-probability, edited or not; NaN for none."""
    logit_difference: float
    """Largest difference of the logit difference; NaN for none."""
    activations: float
    """Largest difference of an activation, over its own size."""

    @property
    def is_exact(self) -> bool:
        """Whether all of it is the same to the bit."""
        return not self.changed + self.changed_edited and all(
            found == 0 or found != found
            for found in (self.log_prob, self.logit_difference, self.activations)
        )

    def summary(self) -> dict[str, Any]:
        """For a cell's summary."""
        return asdict(self)

    def __str__(self) -> str:
        """One line."""
        at_once = f"in {self.dtype} {self.rows} rows at a time and single rows"
        if self.is_exact:
            return f"{at_once} give the same bits"
        sizes = [
            f"{what} by up to {size:.2g}"
            for what, size in (
                ("log-probabilities", self.log_prob),
                ("logit differences", self.logit_difference),
            )
            if size == size
        ]
        return (
            f"{at_once} differ in {self.changed} of {self.n} answers and in {self.changed_edited} "
            f"of {self.n_edited} edited ones, in "
            + ", in ".join([*sizes, f"activations by up to {100 * self.activations:.2g}%"])
        )

    @property
    def warning(self) -> str | None:
        """What is to be said where answers are others; None where they are the same."""
        if not self.changed + self.changed_edited:
            return None
        return (
            f"answers depend on batch_size: {self}; set dtype=float32, or take shares of answers "
            "as no more exact than that"
        )


def near_ties(
    effect: Mapping[str, Any],
    baseline: Float64[Tensor, " n"],
    edited: Float64[Tensor, " rows"] | None,
) -> dict[str, Any]:
    """A cell's summary of the effect, with the shares of its own answers that it might change.

    Args:
        effect: `BatchEffect.summary`.
        baseline: logit differences of all problems; NaN where there is none.
        edited: those of all edited answers.

    Returns:
        `near` and `near_edited` beside what was measured: shares of the answers whose logit
        difference is no larger than the batch moves one; None where there are none.
    """
    moved = float(effect["logit_difference"])

    def share(differences: Tensor | None) -> float | None:
        if differences is None or moved != moved or differences.isnan().all():
            return None
        known = differences[~differences.isnan()]
        return float((known.abs() <= moved).double().mean()) if moved else 0.0

    return {**effect, "near": share(baseline), "near_edited": share(edited)}


def near_tie_warnings(effect: Mapping[str, Any]) -> list[str]:
    """What is to be said where a cell's answers are as near to others as the batch moves them."""
    shares = [(effect["near"], "the answers"), (effect["near_edited"], "the edited answers")]
    found = [f"{100 * share:.2g}% of {of}" for share, of in shares if share]
    if not found:
        return []
    return [
        f"{' and '.join(found)} have a logit difference within the "
        f"{effect['logit_difference']:.2g} by which the batch moves it in {effect['dtype']}, and "
        "may be others at another batch_size; set dtype=float32 where that is too many"
    ]


def measure_batch_effect(
    session: Session, prompts: Prompts, asked: ReferenceAnswers, sites: Sequence[Site]
) -> BatchEffect | None:
    """Run a few problems and edits of them alone, and as the cell does; None in float32 or wider.

    The edits put another problem's whole activation in place, at the lowest layer of the run.

    Args:
        session: of the run. What other cells of the same problems have left in its store is not
            measured again.
        prompts: the problems.
        asked: their answers.
        sites: of the run.
    """
    model = session.model
    if model.dtype not in HALF:
        return None
    run = _Run.of(session, prompts, asked, sites)
    key = asked_key(model, run.prompts, run.asked) | {
        "sites": [site.key(prompts) for site in run.sites],
        "rows": [run.n_few, run.n_edits],
    }
    found = session.store.fetch("batch_effect", key, run.measure, code=CODE)
    numbers: dict[str, Any] = {name: one.item() for name, one in found.items()}
    return BatchEffect(str(model.dtype).removeprefix("torch."), **numbers)


@dataclass(frozen=True)
class _Run:
    """What is run twice."""

    session: Session
    prompts: Prompts
    """Problems of one batch of the cell."""
    asked: ReferenceAnswers
    sites: list[Site]
    """At the lowest layer."""
    n_few: int
    """Of the problems: those that are run alone."""
    n_edits: int
    """Of each of them, so that a batch is as large as the cell's."""

    @classmethod
    def of(
        cls, session: Session, prompts: Prompts, asked: ReferenceAnswers, sites: Sequence[Site]
    ) -> "_Run":
        """As many as the session runs at a time."""
        model, batching = session.model, session.batching
        lowest = min(sites, key=lambda site: site.layer)
        place = lowest.layer, lowest.point
        here = [replace(one, head=None) for one in sites if (one.layer, one.point) == place]
        here = list(dict.fromkeys(here))
        whole = max(layout.tokens.shape[1] for layout in prompts.layouts)
        first = min(
            min(layout.positions(site.position)) for layout in prompts.layouts for site in here
        )
        new = max(1, whole - first) if model.causal else whole
        before = 0
        if not model.replays:
            before, new = len(prompts.prefix), whole
        at_once = [batching.rows(model, before + positions) for positions in (whole, new)]
        n_many = min(max(PROBLEMS, min(MOST_PROBLEMS, at_once[0])), len(prompts))
        n_few = min(PROBLEMS, n_many)
        n_edits = max(EDITS, min(MOST_ROWS, at_once[1]) // n_few)
        some = asked.of(torch.arange(n_many))
        return cls(session, prompts.take(n_many), some, here, n_few, n_edits)

    def measure(self) -> dict[str, Tensor]:
        """Both, and how far they are apart: the numbers of `BatchEffect`."""
        unkept = replace(self.session, store=Store(None), checkpoint=Checkpoint.nothing())
        alone = replace(unkept, batching=Batching(1))
        rows = torch.arange(self.n_few)
        few = replace(self, prompts=self.prompts.take(self.n_few), asked=self.asked.of(rows))
        activations = self._activations(unkept)
        edits = self._edits(activations)
        theirs = few._activations(alone)
        ours = {site: activations[site][: self.n_few] for site in theirs}
        many = self._answers(unkept, edits)
        single = few._answers(alone, replace(edits, added=edits.added[:EDITS]))
        changed = [_changed(self.session.model, *both) for both in zip(many, single, strict=True)]
        numbers = {
            "rows": self.n_few * self.n_edits,
            "n": changed[0].numel(),
            "n_edited": changed[1].numel(),
            "changed": int(changed[0].sum()),
            "changed_edited": int(changed[1].sum()),
            "log_prob": _largest([answers.log_prob for answers in (*many, *single)]),
            "logit_difference": _largest(
                [answers.logit_difference for answers in (*many, *single)]
            ),
            "activations": max(_relative(ours[site], theirs[site]) for site in theirs),
        }
        return {name: torch.tensor(number) for name, number in numbers.items()}

    def _activations(self, session: Session) -> dict[Site, Float[Tensor, "n width"]]:
        found: dict[Site, Tensor] = {}
        for layout, captured in capture(session, self.prompts, self.sites):
            for site, vectors in captured.items():
                shape = len(self.prompts), vectors.shape[1]
                known = found.setdefault(site, vectors.new_empty(shape))
                known[layout.rows] = vectors
        return found

    def _edits(self, activations: dict[Site, Float[Tensor, "n width"]]) -> SiteVectors:
        """Other problems' activations in place of the own, where problems differ most."""

        def spread(site: Site) -> float:
            vectors = activations[site].double()
            return float((vectors - vectors.mean(0)).norm() / vectors.norm())

        site = max(activations, key=spread)
        own = activations[site].float()
        others = torch.stack([own.roll(-1 - index, 0) for index in range(self.n_edits)])
        return SiteVectors(site, (others - own)[:, : self.n_few])

    def _answers(self, session: Session, edits: SiteVectors) -> tuple[Answers, Answers]:
        """Of the few problems, unedited and under the edits that are run alone too."""
        baseline = run_baseline(session, self.prompts, self.asked).take(self.n_few)
        (edited,) = run_edits(session, baseline, [edits])
        return baseline.answers, edited.at(slice(EDITS))


def _changed(model: Model, ours: Answers, theirs: Answers) -> Bool[Tensor, "*edits n"]:
    """Answers that are others."""
    apart = (ours.numbers - theirs.numbers).abs() > model.tolerance
    return apart | (ours.numbers.isnan() != theirs.numbers.isnan())


def _largest(found: Sequence[Float64[Tensor, "..."]]) -> float:
    """The largest difference of the first half from the second; NaN where there is none."""
    half = len(found) // 2
    pairs = zip(found[:half], found[half:], strict=True)
    apart = torch.cat([(ours - theirs).abs().flatten() for ours, theirs in pairs])
    return float(apart.nan_to_num(-1.0).max()) if not apart.isnan().all() else torch.nan


def _relative(ours: Float[Tensor, "n width"], theirs: Float[Tensor, "n width"]) -> float:
    """The largest difference of a row, over its size."""
    ours, theirs = ours.double(), theirs.double()
    size = theirs.norm(dim=1)
    return float(((ours - theirs).norm(dim=1) / size.where(size > 0, 1.0)).max())
