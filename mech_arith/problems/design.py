"""Drawing problems by a design: all as likely, or one value told apart from the others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
from jaxtyping import Float64

from mech_arith.common.errors import UserError, unknown
from mech_arith.problems.balancing import choose, decorrelating_logits
from mech_arith.problems.computing import Interval
from mech_arith.problems.drawing import MAX_PROBLEMS, draw_with_shots, split
from mech_arith.problems.expressions import Constraint
from mech_arith.problems.hypotheses import Hypothesis
from mech_arith.problems.seeds import check_integer, generator
from mech_arith.problems.sets import DECORRELATED, UNIFORM, Design, ProblemSet
from mech_arith.problems.templates import Template

BOUND = 0.12
"""Of the chosen value's correlations under the odds. In a-(b-c) this leaves b-c about sqrt(2) times
as large a share of its spread: held nearer to 0, the value itself would hardly vary."""

TRIES = 100
"""Number of draws. The one with the smallest correlations in both splits is taken: by chance alone
they differ from those under the odds by .045 (one standard deviation) in a split of 500."""

LARGE = 0.3
"""A correlation above it gets a warning."""

MAX_DESIGNED = MAX_PROBLEMS // 4
"""Problems of such a design, so that there are more to choose from."""

_POOL_PER_PROBLEM = 16
_LEAST_POOL = 2**16
_TIED = 1 - 1e-9


def find_decorrelated(design: str, value: str | None, hypothesis: Hypothesis) -> str | None:
    """The value that a design by name draws nearly uncorrelated with the others; None for none.

    Raises:
        UserError: there is no such design or value, or the design and the value do not go together.
    """
    if design not in (UNIFORM, DECORRELATED):
        raise unknown("problems.design", design, (UNIFORM, DECORRELATED))
    if design == UNIFORM:
        if value is not None:
            raise UserError(
                f"expected problems.design={DECORRELATED} with problems.decorrelate={value}, got "
                f"{UNIFORM}; set it, or leave out problems.decorrelate"
            )
        return None
    if value is None:
        raise UserError(
            f"expected problems.decorrelate with problems.design={DECORRELATED}, got none; set it "
            f"to one of: {', '.join(hypothesis.values)}"
        )
    if value not in hypothesis.values:
        raise unknown("value of problems.decorrelate", value, hypothesis.values)
    return value


def draw_splits(
    template: Template,
    *,
    n: int,
    n_shots: int = 0,
    ranges: Mapping[str, Interval],
    constraints: Sequence[Constraint] = (),
    fit_share: float,
    seed: int,
    decorrelate: str | None = None,
) -> tuple[ProblemSet, ProblemSet, ProblemSet]:
    """Draw n problems, part them, and draw few-shot examples distinct from all of them.

    Without `decorrelate` these are `draw_with_shots` and `split`. With it the chosen value is drawn
    nearly uncorrelated with every other: from many allowed problems, by odds that hold its
    correlations within BOUND and are otherwise as equal as they can be. The examples are the same
    either way.

    Returns:
        The fit split, the report split and the examples.

    Raises:
        UserError: as `draw_with_shots` and `split`; or no draw can tell the value from the others.
    """
    if decorrelate is None:
        problems, shots = draw_with_shots(
            template, n=n, n_shots=n_shots, ranges=ranges, constraints=constraints, seed=seed
        )
        return *split(problems, fit_share=fit_share, seed=seed), shots
    check_integer(f"problems.n for {DECORRELATED} problems", n, least=2, greatest=MAX_DESIGNED)
    pool, shots = draw_with_shots(
        template,
        n=min(max(_POOL_PER_PROBLEM * n, _LEAST_POOL), MAX_PROBLEMS),
        least=n,
        n_shots=n_shots,
        ranges=ranges,
        constraints=constraints,
        seed=seed,
    )
    fit, report = _decorrelated(pool, decorrelate, n=n, fit_share=fit_share, seed=seed)
    return fit, report, shots


def design_summary(fit: ProblemSet, report: ProblemSet) -> dict[str, Any]:
    """The design, and every value's correlations with every other in both splits.

    `largest` is the largest |R| of the chosen value, or of any without one; `spread_kept` the
    chosen value's standard deviation over that in a uniform draw.
    """
    design, names = fit.design, list(fit.values)
    both = {"fit": correlations(fit), "report": correlations(report)}
    table = {
        value: {
            other: {split: float(found[i, j]) for split, found in both.items()}
            for j, other in enumerate(names)
            if j != i
        }
        for i, value in enumerate(names)
    }
    chosen = names if design.value is None else [design.value]
    sizes = [abs(r) for value in chosen for rs in table[value].values() for r in rs.values()]
    return {
        "name": design.name,
        "value": design.value,
        "correlations": table,
        "largest": max((size for size in sizes if not np.isnan(size)), default=None),
        "spread_kept": _spread_kept(fit, report),
    }


def design_warnings(fit: ProblemSet, report: ProblemSet) -> list[str]:
    """What the design did not achieve, in words."""
    found = design_summary(fit, report)
    if found["value"] is None or found["largest"] is None or found["largest"] <= LARGE:
        return []
    return [
        f"{found['value']} could not be drawn nearly uncorrelated: its largest |R| with another "
        f"value is {found['largest']:.2f}; widen problems.operands or lower problems.n"
    ]


def correlations(problems: ProblemSet) -> Float64[np.ndarray, "v v"]:
    """Pearson's R of every value with every other; NaN where one is constant."""
    columns = np.stack([numbers.astype(np.float64) for numbers in problems.values.values()])
    columns -= columns.mean(1, keepdims=True)
    norms = np.linalg.norm(columns, axis=1)
    norms[_constant(problems)] = np.nan
    return np.clip(columns @ columns.T / np.outer(norms, norms), -1, 1)


def _constant(problems: ProblemSet) -> np.ndarray:
    """Which values are the same in all problems."""
    return np.array([bool((x == x[:1]).all()) for x in problems.values.values()])


def _decorrelated(
    pool: ProblemSet, value: str, *, n: int, fit_share: float, seed: int
) -> tuple[ProblemSet, ProblemSet]:
    """The fit and report split of the best of several draws from a pool."""
    others = _others(pool, value)
    own = pool.values[value].astype(np.float64)
    logits = decorrelating_logits(
        own,
        np.column_stack([pool.values[other].astype(np.float64) for other in others]),
        n,
        bound=BOUND,
    )
    pool = replace(pool, design=Design(value, float(own.std())))
    random = generator(seed, "design")
    best, smallest = None, inf
    for _ in range(TRIES):
        drawn = pool.take(choose(logits, n, random))
        splits = split(drawn, fit_share=fit_share, seed=seed)
        largest = max(_largest(part, value) for part in splits)
        if largest < smallest:
            best, smallest = splits, largest
    if best is None:
        raise UserError(
            f"expected {value} to vary in both splits when it is decorrelated, got {TRIES} draws "
            f"of {n} problems in which it does not; widen problems.operands or change problems.n"
        )
    return best


def _others(pool: ProblemSet, value: str) -> list[str]:
    """The other values that vary among the problems that may be drawn.

    Raises:
        UserError: the value does not vary, or is the same as another up to scale and shift, or
            there is no other.
    """
    names, asked = list(pool.values), f"problems.decorrelate={value}"
    own, rows = names.index(value), f"all {len(pool)} problems to choose from"
    constant = _constant(pool)
    if constant[own]:
        raise UserError(
            f"expected a value that varies for {asked}, got {int(pool.values[value][0])} in "
            f"{rows}; choose another value or widen problems.operands"
        )
    others = [name for i, name in enumerate(names) if i != own and not constant[i]]
    if not others:
        raise UserError(
            f"expected another value that varies beside {asked}, got none in "
            f"{pool.hypothesis.answer!r}; use problems.design={UNIFORM}"
        )
    found = correlations(pool)[own]
    tied = [name for name in others if abs(found[names.index(name)]) > _TIED]
    if tied:
        raise UserError(
            f"expected a value that can be told from all others for {asked}, got one that "
            f"{tied[0]} follows in a straight line in {rows}; choose another value"
        )
    return others


def _largest(problems: ProblemSet, value: str) -> float:
    """The value's largest |R| with another; infinite where it is constant."""
    own = list(problems.values).index(value)
    if _constant(problems)[own]:
        return inf
    return float(np.nanmax(np.abs(np.delete(correlations(problems)[own], own)), initial=0.0))


def _spread_kept(fit: ProblemSet, report: ProblemSet) -> float | None:
    """Of the value that is decorrelated."""
    value, uniform = fit.design.value, fit.design.uniform_sd
    if value is None or uniform is None:
        return None
    return float(np.concatenate([fit.values[value], report.values[value]]).std() / uniform)
