"""The problems of a cell one by one: what was asked, what is right, and what the model answered."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from mech_arith.evidence.summary import Reported
from mech_arith.models.base import Model
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet

FIT, REPORT = "fit", "report"
"""Splits."""

UNANSWERED = "problems of the fit split are not answered: components alone are fitted on them"
NO_NUMBER = "what was written is no number"
NO_END = "the number that was written is longer than any right answer, and was not read to its end"


def problem_table(
    model: Model,
    fit: tuple[ProblemSet, Prompts],
    report: tuple[ProblemSet, Prompts],
    reported: Reported,
    *,
    n_edited: int,
) -> pd.DataFrame:
    """A row per problem of both splits.

    Args:
        model: the model under study.
        fit: the problems of the fit split, and how the model reads them.
        report: the same of the report split.
        reported: the answers to the report split; the fit split is not answered.
        n_edited: problems of the report split that are edited, the first ones.
    """
    answers = reported.baseline.answers.numbers.tolist()
    passed = reported.passed.tolist()
    rows = [{**row, "edited": False, "reason": UNANSWERED} for row in _asked(FIT, model, *fit)]
    for row in _asked(REPORT, model, *report):
        at = row["problem"]
        known = answers[at] == answers[at]
        tokens = reported.baseline.tokens(at)
        rows.append(
            {
                **row,
                "written": None if model.reader is None else model.reader.text(tokens),
                "answer": answers[at] if known else None,
                "correct": passed[at],
                "edited": at < n_edited,
                "reason": "" if known else _why_no_answer(model, tokens),
            }
        )
    return pd.DataFrame(rows)


def whole_prompt(model: Model, problems: ProblemSet, prompts: Prompts) -> str:
    """All that the model reads of the first problem, examples included."""
    tokens = [*prompts.prefix.tolist(), *dict(_rows(prompts))[0].tolist()]
    return model.prompt_text(tokens) or problems.prompts()[0].text


def _asked(split: str, model: Model, problems: ProblemSet, prompts: Prompts) -> list[Any]:
    texts = _texts(model, problems, prompts)
    numbers = {name: column.tolist() for name, column in problems.values.items()}
    return [
        {
            "split": split,
            "problem": row,
            "prompt_text": text,
            "operands": {name: numbers[name][row] for name in problems.operands},
            "values": {name: column[row] for name, column in numbers.items()},
            "right": int(problems.answers[row]),
        }
        for row, text in enumerate(texts)
    ]


def _texts(model: Model, problems: ProblemSet, prompts: Prompts) -> list[str]:
    """What the model reads of each problem, without the examples before it."""
    read = {row: model.prompt_text(tokens.tolist()) for row, tokens in _rows(prompts)}
    return [read[row] or prompt.text for row, prompt in enumerate(problems.prompts())]


def _rows(prompts: Prompts) -> list[tuple[int, Tensor]]:
    """Each problem's row and the tokens behind the shared prefix."""
    return [
        (row, tokens)
        for layout in prompts.layouts
        for row, tokens in zip(layout.rows.tolist(), layout.tokens, strict=True)
    ]


def _why_no_answer(model: Model, written: Sequence[int]) -> str:
    begun = model.reader is not None and model.reader.read(written)[0] is not None
    return NO_END if begun else NO_NUMBER
