"""How many control directions p-values are of, and whether they can be small."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from mech_arith.interventions.controls import CONTROL, DRAWN, FIRST_DRAWS, Controls
from mech_arith.statistics import ALPHA, draws_needed


def unresolved_drops(contrasts: pd.DataFrame, controls: Controls) -> list[str]:
    """Messages on kinds of directions that are too few for any excess drop to count."""
    if contrasts.empty:
        return []
    drawn = contrasts.loc[contrasts["arm"].isin(DRAWN)]
    found = []
    for arm, rows in drawn.groupby("arm", sort=False):
        least = float(rows["p_least"].max())
        if least <= ALPHA:
            continue
        name = _named(str(arm))
        if arm in controls.most:
            n = controls.most[str(arm)]
            found.append(
                f"p of a drop beyond at most {n} {name} directions, corrected for {len(rows)} "
                f"targets (Holm), is {least:.2g} at least, and none can count: set "
                f"intervention.controls.{name} to {draws_needed(ALPHA, n_tests=len(rows))} or "
                f"more, or to {FIRST_DRAWS}, which are drawn at once and corrected by the "
                "maximum over targets"
            )
        else:
            n = int(rows["n_directions"].min())
            found.append(
                f"p of a drop beyond {n} {name} directions is {least:.2g} at least, and none can "
                f"count: set intervention.controls.{name} to {draws_needed(ALPHA)} or more"
            )
    return found


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
