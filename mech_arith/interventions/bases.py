"""The problems that an intervention edits, and all that is known of them before it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mech_arith.directions.tracing import Trace
from mech_arith.engine.run import Baseline
from mech_arith.engine.sites import Site
from mech_arith.models.answered import encode_for
from mech_arith.models.base import Model
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet


@dataclass(frozen=True)
class Bases:
    """The base problems of an intervention: the first n of the report split."""

    problems: ProblemSet
    baseline: Baseline
    """Their prompts, and the model's answers to them."""
    traces: Mapping[Site, Trace]
    """What tracing found at each site, on the whole report split."""
    digits: int = 0
    """Digits of the largest operand, so that prompts of other problems are as long as theirs."""

    def encode(self, model: Model, problems: ProblemSet) -> Prompts:
        """Other problems as prompts like theirs, in which all sites can be read."""
        positions = {site.position for site in self.traces}
        return encode_for(model, problems, positions, digits=self.digits)

    def take(self, n: int) -> "Bases":
        """The first n problems."""
        problems = self.problems.take(np.arange(n))
        return replace(self, problems=problems, baseline=self.baseline.take(n))

    def __len__(self) -> int:
        return len(self.baseline)
