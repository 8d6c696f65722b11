"""Prompts with their right answers behind them: for positions where the answer is written."""

from collections.abc import Iterable, Sequence

import torch

from mech_arith.common.errors import UserError
from mech_arith.models.base import Model
from mech_arith.models.prompts import Prompts, names_answer
from mech_arith.problems import ProblemSet


def encode_for(
    model: Model, problems: ProblemSet, positions: Iterable[str], *, digits: int = 0
) -> Prompts:
    """Problems as tokens; with their right answers where positions of the answer are asked for.

    Args:
        model: which reads them.
        problems: what to encode.
        positions: the names by which positions are asked for.
        digits: see `Model.encode`.

    Raises:
        UserError: the model cannot read such prompts, or writes no answer.
    """
    named = [name for name in positions if names_answer(name)]
    if not named:
        return model.encode(problems, digits=digits)
    if model.reader is None:
        raise UserError(
            f"expected a model that writes its answer for positions {named[0]!r}, got "
            f"{model.name}, which regresses one number; choose last or others of the prompt"
        )
    answers = [model.reader.tokens(answer) for answer in problems.answers.tolist()]
    longest = max(map(len, answers), default=0)
    return model.encode(problems, digits=digits).answered(answers, model.answer_labels(longest))


def check_answers(answers: Sequence[Sequence[int]], positions: Iterable[str]) -> None:
    """Raise a UserError where not all of some written answers have the positions."""
    nothing = torch.zeros(len(answers), 1, dtype=torch.int64)
    behind = Prompts.uniform(nothing, ("",), {}).answered(answers, ())
    for name in positions:
        behind.positions(name)
