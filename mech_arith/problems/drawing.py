"""Problems drawn from a template: distinct, under constraints, all from the seed."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from mech_arith.common.errors import UserError
from mech_arith.problems.computing import Interval
from mech_arith.problems.expressions import Constraint
from mech_arith.problems.seeds import check_integer, generator
from mech_arith.problems.sets import ProblemSet
from mech_arith.problems.spaces import checked_space
from mech_arith.problems.templates import Template

MAX_PROBLEMS = 1_000_000


def draw(
    template: Template,
    *,
    n: int,
    ranges: Mapping[str, Interval],
    constraints: Sequence[Constraint] = (),
    seed: int,
) -> ProblemSet:
    """Draw n distinct problems with operands in inclusive `ranges`, uniformly among those allowed.

    Allowed is a problem that has no divisor of 0 and meets every constraint. Up to 2**20
    combinations of operands are enumerated, so that "impossible" is known for sure; more are drawn
    at random, a bounded number of times.

    Raises:
        UserError: n, a range, a constraint or the seed is malformed; a value could exceed 2**53;
            or there are, or are found, fewer than n problems.
    """
    check_integer("problems.n", n, least=2, greatest=MAX_PROBLEMS)
    space = checked_space(template.hypothesis, ranges, constraints)
    return ProblemSet.of(template, space.draw(n, generator(seed, "draw"), wanted=_wanted(n)))


def draw_with_shots(
    template: Template,
    *,
    n: int,
    n_shots: int,
    ranges: Mapping[str, Interval],
    constraints: Sequence[Constraint] = (),
    seed: int,
    least: int | None = None,
) -> tuple[ProblemSet, ProblemSet]:
    """Draw n problems and, distinct from all of them, `n_shots` few-shot examples.

    For one template, ranges and constraints, the seed alone fixes the examples: they are the same
    whatever n, and fewer examples are the first of more. The problems are those of `draw`, except
    that one which is an example gives its place to the next problem that the seed draws. Where
    there are fewer than n, `least` will do (n by default).

    Returns:
        The n problems, and the examples as a set of their own (empty for none).

    Raises:
        UserError: as `draw`; `n_shots` is malformed; or there are too few problems for both.
    """
    check_integer("problems.n", n, least=2, greatest=MAX_PROBLEMS)
    check_integer("prompt.shots", n_shots, least=0, greatest=MAX_PROBLEMS)
    space = checked_space(template.hypothesis, ranges, constraints)
    least = n if least is None else least
    wanted = _wanted(least, n_shots)
    drawn = space.draw(n + n_shots, generator(seed, "draw"), wanted=wanted, least=least + n_shots)
    shots = space.draw(n_shots, generator(seed, "shots"), wanted=wanted)
    is_shot = np.isin(space.keys(drawn), space.keys(shots))
    # As many spares are free as problems are examples: no more than n_shots of all can be.
    n = min(n, len(is_shot) - n_shots)
    rows, taken = np.arange(n), np.flatnonzero(is_shot[:n])
    rows[taken] = n + np.flatnonzero(~is_shot[n:])[: len(taken)]
    problems = {name: numbers[rows] for name, numbers in drawn.items()}
    return ProblemSet.of(template, problems), ProblemSet.of(template, shots)


def split(problems: ProblemSet, *, fit_share: float, seed: int) -> tuple[ProblemSet, ProblemSet]:
    """Part the problems at random into a fit split of about `fit_share` and a report split.

    Raises:
        UserError: `fit_share` is not between 0 and 1, or leaves a split empty.
    """
    if not isinstance(fit_share, float) or not 0 < fit_share < 1:
        raise UserError(
            f"expected problems.fit_share above 0 and below 1, got {fit_share!r}; use for example "
            "0.5"
        )
    n = len(problems)
    n_fit = round(n * fit_share)
    if not 1 <= n_fit <= n - 1:
        raise UserError(
            f"expected at least one problem in each split, got {n_fit} to fit and {n - n_fit} to "
            f"report from {n} problems with fit_share {fit_share}; draw more problems"
        )
    order = generator(seed, "split").permutation(n)
    return problems.take(order[:n_fit]), problems.take(order[n_fit:])


def counterfactual_answers(problems: ProblemSet, *, seed: int) -> Int64[np.ndarray, " n"] | None:
    """For each problem a wrong answer that is as plausible: the right one of another problem.

    It is drawn uniformly among the problems whose answer differs from the problem's own, so that
    frequent answers are drawn as often as they occur. None if all answers are the same: no problem
    then has one, and otherwise every problem has.

    Raises:
        UserError: the seed is malformed.
    """
    random = generator(seed, "counterfactual")
    ordered = np.sort(problems.answers)
    low = np.searchsorted(ordered, problems.answers, side="left")
    n_same = np.searchsorted(ordered, problems.answers, side="right") - low
    n_other = len(ordered) - n_same
    if not n_other.any():
        return None
    rank = random.integers(n_other)  # among the others, which leave a gap from `low` on
    return ordered[np.where(rank < low, rank, rank + n_same)]


def _wanted(n: int, n_shots: int = 0) -> str:
    """What is drawn, for an error to say."""
    return f"{n} distinct problems" + (f" and {n_shots} few-shot examples" if n_shots else "")
