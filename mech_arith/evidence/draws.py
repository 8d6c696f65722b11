"""How many control directions p-values are of, and whether they can be small."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from mech_arith.interventions import FIRST_DRAWS
from mech_arith.interventions.controls import CONTROL, DRAWN, Controls
from mech_arith.statistics import ALPHA, draws_needed, least_p


def unresolved_drops(contrasts: pd.DataFrame, controls: Controls) -> list[str]:
    """Messages on kinds of directions that are too few for any excess drop to count."""
    if contrasts.empty:
        return []
    drawn = contrasts.loc[contrasts["arm"].isin(DRAWN)]
    return [
        said
        for arm, rows in drawn.groupby("arm", sort=False)
        for said in too_few_directions(
            str(arm), int(rows["n_directions"].min()), controls, n_targets=len(rows)
        )
    ]


def too_few_directions(arm: str, n: int, controls: Controls, *, n_targets: int) -> list[str]:
    """A message if no drop beyond the directions of an arm can count.

    Args:
        arm: its name.
        n: directions that a target is compared with, where their number is fixed.
        controls: what was asked for.
        n_targets: that are compared with such directions.
    """
    name, most = _named(arm), controls.most.get(arm)
    n_tests = 1 if most is None else n_targets
    least = least_p(n if most is None else most, n_tests=n_tests)
    if least <= ALPHA:
        return []
    needed = draws_needed(ALPHA, n_tests=n_tests)
    if most is None:
        return [
            f"p of a drop beyond {n} {name} directions is {least:.2g} at least, and none can "
            f"count: set intervention.controls.{name} to {needed} or more"
        ]
    return [
        f"p of a drop beyond at most {most} {name} directions, corrected for {n_targets} targets "
        f"(Holm), is {least:.2g} at least, and none can count: set intervention.controls.{name} "
        f"to {needed} or more, or to {FIRST_DRAWS}, which are drawn at once and corrected by the "
        "maximum over targets"
    ]


def draw_summary(contrasts: pd.DataFrame, controls: Controls) -> dict[str, dict[str, Any]]:
    """Per kind of directions of which draws stop early, how many it took to decide p.

    The p of the mean over strengths; those of single strengths may be of more.
    """
    found: dict[str, dict[str, Any]] = {}
    for arm, most in controls.most.items() if not contrasts.empty else ():
        n_draws = contrasts.loc[contrasts["arm"] == arm, "n_draws"]
        if len(n_draws):
            found[_named(arm)] = {
                "n_targets": len(n_draws),
                "median_draws": float(n_draws.median()),
                "most_draws": most,
                "n_with_most": int((n_draws == most).sum()),
            }
    return found


def draw_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The same in words."""
    for name, of_kind in (summary.get("draws") or {}).items():
        yield (
            f"{name} directions, drawn until p is decided: {of_kind['median_draws']:g} of at most "
            f"{of_kind['most_draws']} (median of {of_kind['n_targets']} targets); "
            f"{of_kind['n_with_most']} took all"
        )


def _named(arm: str) -> str:
    """As the config has it."""
    return "random" if arm == CONTROL else arm
