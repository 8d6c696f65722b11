"""Problems and their sources side by side, and the metric on which an effect is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mech_arith.common.digests import tensor_digest
from mech_arith.engine.answers import Answers
from mech_arith.engine.reading import ReferenceAnswers, TeacherForced, force, measure
from mech_arith.engine.sites import Site
from mech_arith.models.base import Model
from mech_arith.models.kinds import Metric
from mech_arith.models.prompts import Layout, Prompts


@dataclass(frozen=True)
class Pairs:
    """n problems, and a source for each: the problem whose activation is put in its place."""

    base: Prompts
    source: Prompts
    asked: ReferenceAnswers
    """The right answers of the bases, and as counterfactual ones those of the sources."""

    def __len__(self) -> int:
        return len(self.base)

    @cached_property
    def layout_of_source(self) -> Int64[Tensor, " n"]:
        """The number of the layout of each pair's source."""
        found = torch.empty(len(self), dtype=torch.int64)
        for number, layout in enumerate(self.source.layouts):
            found[layout.rows] = number
        return found

    @cached_property
    def alike(self) -> Prompts:
        """The bases; those of one layout have sources of one layout too."""
        parted = [
            layout.part(self.layout_of_source[layout.rows] == number)
            for layout in self.base.layouts
            for number in self.layout_of_source[layout.rows].unique().tolist()
        ]
        return Prompts(self.base.prefix, tuple(parted))

    def sources_of(self, layout: Layout) -> Layout:
        """The sources of some bases, which are of one layout, in their order."""
        theirs = self.source.layouts[int(self.layout_of_source[layout.rows[0]])]
        place = torch.empty(len(self), dtype=torch.int64)
        place[theirs.rows] = torch.arange(len(theirs))
        return theirs.part(place[layout.rows])

    def key(self, model: Model, sites: Sequence[Site]) -> dict[str, Any]:
        """All that determines what is read of the pairs at the sites, apart from code."""
        return {
            **model.fingerprint,
            "pairs": [self.base.digest(), self.source.digest()],
            "asked": tensor_digest(self.asked.right, self.asked.counterfactual),
            "forced": force(model, self.asked).digest(),
            "sites": [site.key(self.base, self.source) for site in sites],
        }


def metric_of(model: Model, metric: Metric) -> Metric:
    """What the metric is for a model: one that regresses has its number alone."""
    return Metric.NUMBER if model.regresses else metric


def metric_of_answers(
    model: Model, answers: Answers, asked: ReferenceAnswers, metric: Metric
) -> Float64[Tensor, "*rows n"]:
    """The metric of answers that are read already."""
    match metric_of(model, metric):
        case Metric.NUMBER:
            return answers.numbers * _towards(asked)
        case Metric.LOGIT_DIFFERENCE:
            return answers.logit_difference
        case _:
            return answers.log_prob


def _towards(asked: ReferenceAnswers) -> Float64[Tensor, " n"]:
    """1 where the source's answer is the larger one, -1 where it is the smaller."""
    return (asked.counterfactual - asked.right).sign()


def read_metric(
    model: Model,
    read: Float[Tensor, "rows read out"],
    asked: ReferenceAnswers,
    forced: TeacherForced,
    metric: Metric,
) -> Float64[Tensor, " rows"]:
    """The metric of what is read, a row for each problem; gradients flow through it."""
    if model.reader is None:
        return read[:, 0, 0].double() * _towards(asked).to(read.device)
    of_right, apart = measure(read, forced, torch.arange(len(read)), model.reader.longer)
    return apart if metric is Metric.LOGIT_DIFFERENCE else of_right
