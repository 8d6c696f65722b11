"""What the answers say before anything is traced: were they read, is the model at chance level."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from mech_arith.common.errors import UserError
from mech_arith.engine.run import write_on
from mech_arith.evidence.summary import CLEARLY, Reported, floor_test
from mech_arith.interventions.run import InterventionPlan
from mech_arith.models.base import AnswerReader, Model
from mech_arith.problems import ProblemSet

LOW = 0.5
"""A baseline accuracy below it is low: then the answers are shown as they were written."""

SHOWN = 3
"""Answers that are shown."""

SHOWN_TOKENS = 16
"""Of each of them."""


@dataclass(frozen=True)
class Written:
    """An answer as the model wrote it, and what it was read as."""

    problem: str
    right: int
    written: str
    """Longer than what was read, which ends where the number does."""
    read: int | None
    """None is no number."""

    def __str__(self) -> str:
        """For example: 12+7 -> '19.' (read as 19, right is 19)."""
        read = "no number" if self.read is None else self.read
        return f"{self.problem} -> {self.written!r} (read as {read}, right is {self.right})"


@dataclass(frozen=True)
class WrittenAnswers:
    """How the answers to n problems were read."""

    not_a_number: float
    """Share of the answers."""
    cut: float
    """Share of the answers in which digits stand behind the number's end."""
    examples: tuple[Written, ...]

    def summary(self) -> dict[str, Any]:
        """The fields of a cell's summary."""
        return {
            "baseline_cut": self.cut,
            "baseline_written": [asdict(example) for example in self.examples],
        }

    def __str__(self) -> str:
        """One line."""
        return (
            f"{100 * self.not_a_number:.1f}% of the answers are no number, "
            f"{100 * self.cut:.1f}% are cut at a separator; as written: "
            + "; ".join(map(str, self.examples))
        )


def is_low(reported: Reported) -> bool:
    """Whether the baseline accuracy is below `LOW`, or not clearly above a constant answer's."""
    return reported.accuracy < LOW or floor_test(reported)[1] >= CLEARLY


def written_answers(
    model: Model, reported: Reported, problems: ProblemSet
) -> WrittenAnswers | None:
    """How the answers were read, and the first few wrong ones; None for a model that regresses.

    Where all are right, the first few of those.
    """
    reader, baseline = model.reader, reported.baseline
    if reader is None:
        return None
    numbers = baseline.answers.numbers
    n_cut = sum(reader.is_cut(baseline.tokens(row)) for row in range(len(baseline)))
    order = torch.argsort(reported.passed.long(), stable=True).tolist()
    rows = sorted(order[:SHOWN])
    return WrittenAnswers(
        not_a_number=float(numbers.isnan().double().mean()),
        cut=n_cut / len(baseline),
        examples=_examples(model, reader, reported, problems, rows),
    )


def _examples(
    model: Model, reader: AnswerReader, reported: Reported, problems: ProblemSet, rows: list[int]
) -> tuple[Written, ...]:
    baseline, asked = reported.baseline, problems.prompts()
    written = {row: baseline.tokens(row) for row in rows}
    if reader.longer is not None and is_low(reported):  # answers of no fixed length
        written = write_on(model, baseline.prompts, written, length=SHOWN_TOKENS)
    numbers = baseline.answers.numbers.tolist()
    return tuple(
        Written(
            problem=asked[row].text,
            right=int(problems.answers[row]),
            written=_first_line(reader.text(tokens)),
            read=None if numbers[row] != numbers[row] else int(numbers[row]),
        )
        for row, tokens in written.items()
    )


def _first_line(text: str) -> str:
    """Up to the line break behind the first word: examples that the model goes on with are none."""
    start = len(text) - len(text.lstrip())
    return (text[:start] + text[start:].partition("\n")[0]).rstrip(" ")


def chance_warnings(
    model: Model, reported: Reported, *, require_baseline: bool, n_edits: int
) -> list[str]:
    """Whether the baseline says that the model does arithmetic at all.

    Args:
        model: the model under study.
        reported: its answers.
        require_baseline: it must.
        n_edits: how many edits of each problem are to come, at most.

    Raises:
        UserError: it does not, and that is required.
    """
    floor, p = floor_test(reported)
    if p < CLEARLY:
        return []
    seen = (
        f"baseline accuracy {reported.accuracy:.3f} of {model.name} is not clearly above "
        f"{floor:.3f}, that of always giving the most frequent answer (one-sided p = {p:.2g})"
    )
    if require_baseline:
        raise UserError(
            f"expected a model that answers the problems, but {seen}; choose easier problems or "
            "another prompt, or require_baseline=false"
        )
    cost = (
        f"; up to {n_edits:,} edits of {reported.n_edited} problems follow, "
        f"{n_edits * reported.n_edited:,} edited answers: require_baseline=true would stop here"
    )
    return [f"{seen}: what is traced here need not be arithmetic{cost if n_edits else ''}"]


def most_edits(plan: InterventionPlan, *, n_sites: int, n_values: int, n_components: int) -> int:
    """The most edits of each problem that a plan can come to, before components are known.

    Where one component is the best for several values, there are fewer.
    """
    n_wanted = n_values if plan.values is None else len(plan.values)
    if plan.ranks:
        n_targets = n_wanted * len(plan.ranks)
    elif plan.components == "best":
        n_targets = n_wanted if plan.edit.target is not None else min(n_wanted, n_components)
    else:
        n_listed = n_components if plan.components == "all" else len(plan.components)
        n_targets = n_listed * (n_wanted if plan.edit.target is not None else 1)
    controls = plan.controls
    within = controls.span + controls.valueless if n_components > 1 else 0
    n_directions = n_targets * (1 + controls.random + within)
    n_directions += n_targets * min(n_values - 1, n_components - 1) * controls.other
    n_directions += controls.shuffled * (n_targets if plan.edit.target is not None else n_wanted)
    n_sources = plan.n_sources if plan.edit.target is not None else 1
    return n_sites * n_directions * len(plan.strengths) * n_sources
