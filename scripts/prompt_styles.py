"""Measure how well a language model does arithmetic in each style of prompt, without any edit.

    python scripts/prompt_styles.py
    python scripts/prompt_styles.py --templates 'a-b:0..9:a>=b' --styles chat,comma --shots 4,8

A template is an expression, the range of its operands and, if wanted, a constraint. The examples in
a prompt are drawn by the seed, and accuracy depends on them: compare styles and numbers of examples
by the mean over the seeds, and do not choose a seed. All defaults together take about a quarter of
an hour on one core.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: no hub is needed

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from mech_arith.common.errors import UserError, unknown
from mech_arith.common.progress import counted
from mech_arith.engine.run import Baseline, ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.evidence.metrics import digit_accuracy, exact
from mech_arith.models.language.loading import LoadedModel, load_pretrained
from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.models.language.prompting import Prompting
from mech_arith.models.language.styles import STYLES
from mech_arith.problems import ProblemSet, draw_with_shots, operand_ranges
from mech_arith.problems.expressions import Constraint, parse_constraint
from mech_arith.problems.templates import Template, build_template
from mech_arith.statistics import binomial_above, majority_floor

TEMPLATES = "a+b:0..9 a*b:0..9 a-b:0..9 a+b:10..99 a+b+c:0..3"
SHOTS = "0,1,4,8"
MOST_WRONG = 8
"""Wrong answers that are shown of a cell."""


@dataclass(frozen=True)
class Case:
    """Problems of one template."""

    text: str
    """As given on the command line."""
    template: Template
    ranges: dict[str, tuple[int, int]]
    constraints: tuple[Constraint, ...]

    @property
    def n_possible(self) -> int:
        """Distinct problems that there are; the space's size where that is too large to count."""
        sizes = [high - low + 1 for low, high in self.ranges.values()]
        if not self.constraints or prod(sizes) > 2**20:
            return prod(sizes)
        grid = np.indices(sizes, dtype=np.int64).reshape(len(sizes), -1)
        operands = {
            name: low + row for (name, (low, _)), row in zip(self.ranges.items(), grid, strict=True)
        }
        holds = [constraint.holds(operands) for constraint in self.constraints]
        return int(np.logical_and.reduce(holds).sum())


@dataclass(frozen=True)
class Measured:
    """One style and number of shots on one template, with one draw of the examples."""

    template: str
    style: str
    shots: int
    seed: int
    n: int
    accuracy: float
    floor: float
    """Accuracy of always giving the most frequent answer."""
    p: float
    """One-sided, of so many right answers at the floor."""
    unparsable: float
    """Share of answers that are no number."""
    digit_accuracy: float
    right_probability: float
    reason: str = ""
    """Why nothing was measured, and all numbers are NaN; empty where they are not."""

    @classmethod
    def failed(
        cls, error: UserError, *, template: str, style: str, shots: int, seed: int
    ) -> "Measured":
        """A cell in which the model cannot be asked."""
        return cls(template, style, shots, seed, 0, *[float("nan")] * 6, reason=str(error))


def main() -> None:
    """Measure every cell that is asked for, and print the table."""
    chosen = _arguments()
    torch.set_num_threads(chosen.threads)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        cells = list(_cells(chosen))
        loaded = load_pretrained(
            chosen.model,
            path=chosen.model_path,
            hub=None,
            revision=None,
            dtype="float32",
            device="cpu",
            device_map=None,
        )
    except UserError as error:
        sys.exit(str(error))
    measured: list[Measured] = []
    for cell in cells:
        measured.append(_measured(console, loaded, *cell, chosen))
        console.print(_line(measured[-1]), highlight=False, markup=False)
    console.print(table(measured))
    if chosen.csv is not None:
        pd.DataFrame(map(asdict, measured)).to_csv(chosen.csv, index=False)
    if all(found.reason for found in measured):
        sys.exit(f"expected a cell that can be measured, got none; first: {measured[0].reason}")


def _measured(
    console: Console,
    loaded: LoadedModel,
    case: Case,
    style: str,
    shots: int,
    seed: int,
    chosen: argparse.Namespace,
) -> Measured:
    names = {"template": case.text, "style": style, "shots": shots, "seed": seed}
    try:
        problems, examples = drawn(case, n=chosen.n, shots=shots, seed=seed)
        baseline = answered(loaded, problems, Prompting(style, examples))
    except UserError as error:  # of this template in this style: others can be asked all the same
        return Measured.failed(error, **names)
    if chosen.show:
        _show(console, loaded, baseline, problems)
    return measure(baseline, **names)


def parse_case(text: str) -> Case:
    """Read `EXPRESSION:LOW..HIGH`, or `EXPRESSION:LOW..HIGH:CONSTRAINT`.

    Raises:
        UserError: it is written otherwise, or its parts are malformed.
    """
    expression, _, rest = text.partition(":")
    bounds, _, constraint = rest.partition(":")
    low, dots, high = bounds.partition("..")
    if not dots or not all(end.strip().lstrip("-").isdecimal() for end in (low, high)):
        raise UserError(
            f"expected a template as EXPRESSION:LOW..HIGH[:CONSTRAINT], got {text!r}; write for "
            "example a+b:0..9"
        )
    template = build_template(expression, expression)
    return Case(
        text,
        template,
        operand_ranges({"min": int(low), "max": int(high)}, template.expression.operands),
        (parse_constraint(constraint),) if constraint else (),
    )


def drawn(case: Case, *, n: int, shots: int, seed: int) -> tuple[ProblemSet, ProblemSet]:
    """At most n problems, all there are if that is fewer, and the examples, which are none of them.

    Raises:
        UserError: the examples leave fewer than two problems.
    """
    return draw_with_shots(
        case.template,
        n=max(2, min(n, case.n_possible - shots)),
        n_shots=shots,
        ranges=case.ranges,
        constraints=case.constraints,
        seed=seed,
    )


def answered(loaded: LoadedModel, problems: ProblemSet, prompting: Prompting) -> Baseline:
    """The model's answers.

    Raises:
        UserError: the style does not suit the model or the examples.
    """
    model = PretrainedModel(loaded, prompting)
    asked = ReferenceAnswers.of_problems(problems)
    return run_baseline(Session(model), model.encode(problems), asked)


def measure(baseline: Baseline, *, template: str, style: str, shots: int, seed: int) -> Measured:
    """How good the answers are."""
    answers, right = baseline.answers, baseline.asked.right
    passed = exact(answers.numbers, right, tolerance=0.0)
    floor = majority_floor(right.long().numpy())
    return Measured(
        template=template,
        style=style,
        shots=shots,
        seed=seed,
        n=len(right),
        accuracy=float(passed.double().mean()),
        floor=floor,
        p=binomial_above(int(passed.sum()), len(passed), floor),
        unparsable=float(answers.numbers.isnan().double().mean()),
        digit_accuracy=float(digit_accuracy(answers.numbers, right).mean()),
        right_probability=float(answers.log_prob.exp().mean()),
    )


def summarised(measured: Sequence[Measured]) -> pd.DataFrame:
    """A row per template, style and number of shots: means over the seeds that were measured.

    Beside the mean accuracy stand its smallest and its largest, and of p the largest.
    """
    rows = pd.DataFrame(map(asdict, measured)).groupby(["template", "style", "shots"], sort=False)
    return rows.agg(
        seeds=("accuracy", "count"),
        n=("n", "max"),
        accuracy=("accuracy", "mean"),
        lowest=("accuracy", "min"),
        highest=("accuracy", "max"),
        floor=("floor", "mean"),
        p=("p", "max"),
        unparsable=("unparsable", "mean"),
        digit_accuracy=("digit_accuracy", "mean"),
        right_probability=("right_probability", "mean"),
    ).reset_index()


def table(measured: Sequence[Measured]) -> Table:
    """The summary, best first within each template."""
    summary = summarised(measured)
    drawing = Table(title="baseline by template and prompt (means over seeds)")
    for heading in (
        *("template", "style", "shots", "seeds", "n", "accuracy", "min..max", "floor", "p"),
        *("no number", "per digit", "P(right)"),
    ):
        drawing.add_column(heading, justify="left" if heading in ("template", "style") else "right")
    for template in summary["template"].unique():
        rows = summary.loc[summary["template"] == template].sort_values(
            "accuracy", ascending=False, kind="stable"
        )
        for row in rows.to_dict(orient="records"):
            drawing.add_row(
                *(str(row[name]) for name in ("template", "style", "shots", "seeds", "n")),
                f"{row['accuracy']:.3f}",
                f"{row['lowest']:.2f}..{row['highest']:.2f}",
                f"{row['floor']:.2f}",
                f"{row['p']:.1g}",
                f"{row['unparsable']:.2f}",
                f"{row['digit_accuracy']:.2f}",
                f"{row['right_probability']:.2f}",
            )
        drawing.add_section()
    return drawing


def wrong_answers(baseline: Baseline, problems: ProblemSet) -> list[str]:
    """Each problem that was answered wrong, with what was answered."""
    numbers = baseline.answers.numbers.tolist()
    right = problems.answers.tolist()
    return [
        f"{question.text}={answer:.0f}"
        for question, answer, wanted in zip(problems.prompts(), numbers, right, strict=True)
        if answer != wanted
    ]


def _cells(chosen: argparse.Namespace) -> Iterator[tuple[Case, str, int, int]]:
    """Every cell. Without examples a seed that draws all the problems is as good as any other.

    Raises:
        UserError: an unknown style, or as `parse_case`.
    """
    for style in chosen.styles:
        if style not in STYLES:
            raise unknown("prompt style", style, STYLES)
    for case in map(parse_case, chosen.templates):
        for style in chosen.styles:
            for shots in chosen.shots:
                if shots and not STYLES[style].takes_shots:
                    continue
                is_all = not shots and chosen.n >= case.n_possible
                for seed in range(1 if is_all else chosen.seeds):
                    yield case, style, shots, seed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2_135m", help="its name (%(default)s)")
    parser.add_argument("--model-path", type=Path, help="its directory (default: by its name)")
    parser.add_argument("--templates", type=str.split, default=TEMPLATES, help="(%(default)s)")
    styles = ",".join(STYLES)
    parser.add_argument("--styles", type=_listed, default=styles, help="(%(default)s)")
    parser.add_argument("--shots", type=_counts, default=SHOTS, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="draws of examples (%(default)s)")
    parser.add_argument("--n", type=int, default=200, help="problems at most (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (%(default)s)")
    parser.add_argument("--show", action="store_true", help="a prompt and wrong answers of each")
    parser.add_argument("--csv", type=Path, help="write a row per cell to this file")
    return parser.parse_args()


def _listed(text: str) -> list[str]:
    return text.split(",")


def _counts(text: str) -> list[int]:
    return [int(count) for count in text.split(",")]


def _line(found: Measured) -> str:
    said = found.reason or f"{found.accuracy:.3f} of {found.n}"
    return (
        f"{found.template} {found.style}, {counted(found.shots, 'shot')}, seed {found.seed}: {said}"
    )


def _show(console: Console, loaded: LoadedModel, baseline: Baseline, problems: ProblemSet) -> None:
    prompts, wrong = baseline.prompts, wrong_answers(baseline, problems)
    ids = [*prompts.prefix.tolist(), *prompts.layouts[0].tokens[0].tolist()]
    console.print(repr(loaded.tokenizer.decode(ids)), markup=False, highlight=False)
    often = Counter(text.partition("=")[2] for text in wrong).most_common(3)
    console.print(
        f"  {len(wrong)} wrong: {', '.join(wrong[:MOST_WRONG])}; most often {often}",
        markup=False,
        highlight=False,
    )


if __name__ == "__main__":
    main()
