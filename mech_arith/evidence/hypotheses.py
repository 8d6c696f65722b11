"""Rival hypotheses side by side: on the same pairs, and on pairs for which they differ.

A subspace that holds a step of one hypothesis is edited towards a source. Each hypothesis says what
the answer should become. Pairs of a base and a source for which two of them say the same tell
nothing; on all others at most one of them can be right.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from mech_arith.evidence.iia import ceiling_fields
from mech_arith.evidence.metrics import exact
from mech_arith.evidence.scorer import Scorer
from mech_arith.interventions.controls import CONTROL
from mech_arith.interventions.result import InterventionResult
from mech_arith.interventions.run import InterventionPlan, InterventionRun
from mech_arith.problems.sources import Sources
from mech_arith.statistics import ALPHA, SHARES, Resampling, averaged, holm, paired_interval, rank_p
from mech_arith.statistics.paired import sign_p

N_SHUFFLES = 200
"""Draws of other sources for the floors; p of a floor is never below 1 / (N_SHUFFLES + 1)."""

TIE = "tie"


@dataclass(frozen=True)
class Rivalry:
    """A value of one hypothesis and a value of another one, on the sources of the first."""

    sources: Sources
    """Of the value."""
    rival: str
    """A value of the other hypothesis."""
    rival_name: str
    """The other hypothesis."""
    tolerance: float
    """Within which an answer is exact: answers that differ by less than two of it are one."""
    seed: int

    @cached_property
    def expected(self) -> Float64[Tensor, "m n"]:
        """The answers that the hypothesis expects."""
        return self._answers(self.sources.value)

    @cached_property
    def by_rival(self) -> Float64[Tensor, "m n"]:
        """The answers that the rival expects of the same pairs."""
        return self._answers(self.rival)

    @cached_property
    def distinguishing(self) -> Bool[Tensor, "m n"]:
        """Pairs of which the two expect different answers, both others than the base's and the
        source's own: an edit that does nothing, or carries everything, is right by neither.
        """
        differ = (self.expected - self.by_rival).abs() > 2 * self.tolerance
        return differ & self._is_new(self.expected) & self._is_new(self.by_rival)

    def _is_new(self, expected: Float64[Tensor, "m n"]) -> Bool[Tensor, "m n"]:
        """Where an answer is neither the base's nor the source's own; one that is NaN is not."""
        base = torch.from_numpy(self.sources.base.answers).double()
        own = [torch.from_numpy(source.answers).double() for source in self.sources.problems]
        apart = [
            (expected - other).abs() > 2 * self.tolerance for other in (base, torch.stack(own))
        ]
        return torch.logical_and(*apart)

    def right_by_others(
        self, edited: Float64[Tensor, "m n"], hypothesis: str, but: str
    ) -> Bool[Tensor, "values m n"]:
        """Where answers are as other values of one of the two hypotheses expect, and new.

        Args:
            edited: the answers.
            hypothesis: its name.
            but: the value that is left out.
        """
        hits = [torch.zeros_like(self.distinguishing)]
        for value, (expected, is_new) in self._by_competing[hypothesis].items():
            if value != but:
                hits.append(exact(edited, expected, tolerance=self.tolerance) & is_new)
        return torch.stack(hits)

    @cached_property
    def _by_competing(
        self,
    ) -> dict[str, dict[str, tuple[Float64[Tensor, "m n"], Bool[Tensor, "m n"]]]]:
        """By hypothesis and value, what is expected, and where it is new: the same at all sites."""
        every = self.sources.base.hypothesis
        found = {}
        for one in (every.alone(), *every.rivals):
            answers = {value: self._answers(value) for value in one.competing}
            found[one.name] = {
                value: (expected, self._is_new(expected)) for value, expected in answers.items()
            }
        return found

    @cached_property
    def by_chance(self) -> tuple[Float64[Tensor, "s m n"], Float64[Tensor, "s m n"]]:
        """What both would expect if the sources were dealt out anew among the problems."""
        random = np.random.default_rng([self.seed, *f"{self.sources.value}|{self.rival}".encode()])
        orders = [random.permutation(len(self.sources.base)) for _ in range(N_SHUFFLES)]
        own, rival = (
            torch.stack([self._answers(value, order) for order in orders])
            for value in (self.sources.value, self.rival)
        )
        return own, rival

    def _answers(self, value: str, order: np.ndarray | None = None) -> Float64[Tensor, "m n"]:
        """With a value replaced by that of each source; NaN where a divisor would be 0."""
        base = self.sources.base
        answers = []
        for source in self.sources.problems:
            numbers = source.values[value] if order is None else source.values[value][order]
            found = base.hypothesis.expected(value, numbers, base.operands)
            answers.append(torch.from_numpy(found))
        return torch.stack(answers)


def rivalries(sources: Sources, *, tolerance: float, seed: int) -> Iterator[tuple[str, Rivalry]]:
    """What every other hypothesis has in a value's place, beside the value and its sources.

    Yields:
        The name of the other hypothesis, and the two values side by side.
    """
    for name, value in sources.base.hypothesis.rival_values(sources.value):
        yield name, Rivalry(sources, value, name, tolerance, seed)


def hypothesis_table(done: InterventionRun, plan: InterventionPlan, scorer: Scorer) -> pd.DataFrame:
    """A row per site, subspace, strength and rival value: which hypothesis the answers follow.

    p of a difference is corrected for all rows of one strength (Holm).
    """
    known = {
        value: list(rivalries(sources, tolerance=scorer.tolerance, seed=plan.seed))
        for value, sources in done.sources.items()
    }
    rows = []
    for one in done.results:
        value = one.target.target_value
        ceiling = done.ceilings[value, one.site].numbers
        for name, pair in known[value]:
            rows += list(_rows(one, name, pair, ceiling, plan, scorer.of(one.rows)))
    return _judged(rows)


def _rows(
    one: InterventionResult,
    name: str,
    pair: Rivalry,
    ceiling: Float64[Tensor, " n"],
    plan: InterventionPlan,
    scorer: Scorer,
) -> Iterator[dict[str, Any]]:
    """A row per strength."""
    bound = ceiling_fields(ceiling, pair.sources, scorer)
    sources, hypothesis = pair.sources, pair.sources.base.hypothesis
    for index, strength in enumerate(plan.strengths):
        edited = one.target_answers.numbers[0, :, index]
        yield {
            **one.key,
            "value": sources.value,
            "hypothesis": hypothesis.of(sources.value).name,
            "rival": name,
            "rival_value": pair.rival,
            "edit": plan.edit.name,
            "strength": strength,
            "n": len(one.rows),
            "n_sources": len(sources.problems),
            "siblings_kept": sources.siblings_kept,
            **_compared(edited, pair, scorer),
            **_by_random(one, index, pair, scorer.tolerance),
            **bound,
        }


def _compared(
    edited: Float64[Tensor, "m n"], pair: Rivalry, scorer: Scorer
) -> dict[str, float | int]:
    """How often each of the two is right, on all pairs and on those for which they differ."""
    own = exact(edited, pair.expected, tolerance=scorer.tolerance).double()
    rival = exact(edited, pair.by_rival, tolerance=scorer.tolerance).double()
    apart = pair.distinguishing
    of_problems = (own - rival).masked_fill(~apart, torch.nan).nanmean(0)
    ends = paired_interval(of_problems, scorer.how)
    chance = (_floor(edited, other, apart, scorer.tolerance) for other in pair.by_chance)
    fields = {
        "n_pairs": apart.numel(),
        "n_distinguishing": int(apart.sum()),
        "iia": float(own.mean()),
        "iia_rival": float(rival.mean()),
    }
    for suffix, hits, by_chance in zip(("", "_rival"), (own, rival), chance, strict=True):
        fields |= share_fields(
            f"distinguishing{suffix}", hits.masked_fill(~apart, torch.nan), scorer.how
        )
        fields[f"floor{suffix}"] = float(by_chance.mean())
        fields[f"p{suffix}"] = float(rank_p(hits[apart].mean(), by_chance))
    for suffix, name, value in (
        ("", pair.sources.base.hypothesis.of(pair.sources.value).name, pair.sources.value),
        ("_rival", pair.rival_name, pair.rival),
    ):
        others = pair.right_by_others(edited, name, but=value)
        fields[f"others{suffix}"] = float(others[:, apart].double().mean(1).max())
    return {
        **fields,
        "difference": float(of_problems.nanmean()),
        "difference_low": float(ends.low),
        "difference_high": float(ends.high),
        "p_difference": sign_p(of_problems),
    }


def _by_random(
    one: InterventionResult, index: int, pair: Rivalry, tolerance: float
) -> dict[str, float]:
    """How often each is right along random directions, at one strength; NaN without any."""
    apart = pair.distinguishing
    drawn = [answers.numbers[:, :, index] for arm, answers in one.by_arm() if arm.name == CONTROL]
    expected = {"random": pair.expected, "random_rival": pair.by_rival}
    if not drawn or not apart.any():
        return dict.fromkeys(expected, float("nan"))
    return {
        name: float(exact(drawn[0], answers, tolerance=tolerance)[:, apart].double().mean())
        for name, answers in expected.items()
    }


def _floor(
    edited: Float64[Tensor, "m n"],
    by_chance: Float64[Tensor, "s m n"],
    apart: Bool[Tensor, "m n"],
    tolerance: float,
) -> Float64[Tensor, " s"]:
    """How often answers are those that other sources want, on the pairs that tell apart."""
    hits = exact(edited.expand_as(by_chance), by_chance, tolerance=tolerance)
    return hits[:, apart].double().mean(1)


def share_fields(name: str, hits: Float64[Tensor, "m n"], how: Resampling) -> dict[str, float]:
    """A share over m sources of each of n problems, with its interval; NaN does not count."""
    found = averaged(hits.nanmean(0)[None], how, drawn=False, of=SHARES)
    return {
        name: float(found.mean),
        f"{name}_low": float(found.low),
        f"{name}_high": float(found.high),
    }


def _judged(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows with `p_holm`, and the hypothesis that each supports."""
    p_holm = torch.full((len(rows),), torch.nan, dtype=torch.float64)
    for strength in {row["strength"] for row in rows}:
        places = [i for i, row in enumerate(rows) if row["strength"] == strength]
        p = torch.tensor([rows[i]["p_difference"] for i in places], dtype=torch.float64)
        p_holm[places] = holm(p)
    return pd.DataFrame(
        [
            {**row, "p_holm": p, "supports": _supported(row, p)}
            for row, p in zip(rows, p_holm.tolist(), strict=True)
        ]
    )


def _supported(row: dict[str, Any], p_holm: float) -> str:
    """The hypothesis that is right more often, beyond chance, and more often than any value of the
    other one and than along random directions; a tie where neither is.
    """
    if not p_holm <= ALPHA:
        return TIE
    side, own = ("", "hypothesis") if row["difference"] > 0 else ("_rival", "rival")
    share, against = row[f"distinguishing{side}"], "_rival" if side == "" else ""
    above = share > row[f"floor{side}"] and row[f"p{side}"] <= ALPHA
    rest = (row[f"others{against}"], row[f"random{side}"])
    return row[own] if above and not any(share <= other for other in rest) else TIE
