"""All that is known of a value at a site, side by side: traced, edited, and asked for its value."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from mech_arith.engine.sites import Site, component_of, site_of
from mech_arith.evidence.best import best_rows, of_least_rank
from mech_arith.evidence.columns import TABLES, completed
from mech_arith.evidence.verdicts import judged, strictest
from mech_arith.interventions.controls import CONTROL, DRAWN, SPAN, TARGET, VALUELESS
from mech_arith.interventions.edits.base import WHOLE_WAY, Edit

RANDOM = {CONTROL: "random", SPAN: SPAN, VALUELESS: VALUELESS}
"""Arms of drawn directions -> their names here."""

Row = Mapping[str, Any]
Place = tuple[Site, int, int, str]
"""Site, component, rank and value."""


def evidence_table(
    tables: Mapping[str, pd.DataFrame],
    sites: Collection[Site],
    *,
    untrained: Mapping[tuple[Site, str], float] | None = None,
) -> pd.DataFrame:
    """A row per site, rank and value, in the value's subspace of that rank: of rank 1 the component
    with the largest |R| on the fit split.

    Args:
        tables: a cell's, by name: `subspaces`, and where something was edited `contrasts` and
            `counterfactual`. What there is no row of is missing.
        sites: those that the cell asks for, without those of its map.
        untrained: |R| by site and value in the same network with random weights, where it was
            traced.
    """
    contrasts = _contrasts(tables.get("contrasts"))
    effects, answers = (_records(tables.get(name)) for name in ("effects", "counterfactual"))
    answered = _answered(answers)
    edited = _edited(effects)
    rows, asked = [], set(sites)
    for row in _records(tables["subspaces"]):
        site, value = site_of(row), row["value"]
        if site not in asked:
            continue
        place = (*component_of(row), value)
        found = {
            **site.columns(),
            "value": value,
            "component": row["component"],
            "rank": row["rank"],
            "untrained_abs_r": (untrained or {}).get((site, value)),
            "edit": edited.get(place),
            **_contrast_fields(contrasts.get(place, {})),
            **_taken(row, contrasts.get(place, {}), answered.get(place, {})),
            "excess_reason": "" if place in contrasts else _why_no_excess(effects, edited, place),
            "iia_reason": "" if place in answered else _why_no_iia(effects, answers, place),
        }
        rows.append({**found, **judged(found)})
    return completed("evidence", pd.DataFrame(rows))


def _records(table: pd.DataFrame | None) -> list[dict[Any, Any]]:
    return [] if table is None else table.to_dict(orient="records")


def _contrasts(table: pd.DataFrame | None) -> dict[Place, dict[str, Row]]:
    """The contrasts with drawn directions, by place and by arm."""
    found: dict[Place, dict[str, Row]] = {}
    for row in _records(table):
        for value in row["chosen_for"] if row["arm"] in DRAWN else ():
            found.setdefault((*component_of(row), value), {})[row["arm"]] = row
    return found


def _contrast_fields(by_arm: Mapping[str, Row]) -> dict[str, Any]:
    """The kind of directions that the target exceeds with the least certainty, and its least p."""
    return {
        "excess_against": RANDOM.get(strictest(by_arm.values()).get("arm", "")),
        "excess_p_least": max((row["p_least"] for row in by_arm.values()), default=None),
    }


def _taken(
    traced: Row, contrasts: Mapping[str, Row], answered: Mapping[str, Row]
) -> dict[str, Any]:
    """What the columns say is taken from rows of other tables; those two are by arm."""
    rows = {("correlations", ""): traced, ("contrasts", ""): strictest(contrasts.values())}
    rows["counterfactual", ""] = answered.get(TARGET, {})
    for arm, name in RANDOM.items():
        rows["contrasts", name] = contrasts.get(arm, {})
        rows["counterfactual", name] = answered.get(arm, {})
    return {
        column.name: rows[taken.table, taken.arm].get(taken.column)
        for column in TABLES["evidence"]
        if (taken := column.taken) is not None
    }


def _edited(effects: Iterable[Row]) -> dict[Place, str]:
    """The edit that was made, by place."""
    return {
        (*component_of(row), value): row["edit"]
        for row in effects
        if row["arm"] == TARGET
        for value in row["chosen_for"]
    }


def _answered(answers: Iterable[Row]) -> dict[Place, dict[str, Row]]:
    """What answers do on the whole way, by place and by arm."""
    found: dict[Place, dict[str, Row]] = {}
    for row in answers:
        if row["strength"] == WHOLE_WAY:
            found.setdefault((*component_of(row), row["value"]), {})[row["arm"]] = row
    return found


def _why_no_excess(effects: Sequence[Row], edited: Collection[Place], place: Place) -> str:
    """Why a component has no drop beyond those of drawn directions."""
    if not effects:
        return NOTHING_EDITED
    if place not in edited:
        return "nothing was edited here for this value"
    drawn = [row for row in effects if row["arm"] in DRAWN]
    if not drawn:
        return "no control directions were drawn"
    if not any(component_of(row) == place[:-1] for row in drawn):
        return "no direction could be drawn here to compare it with"
    return "no strength moves the coordinate"


def _why_no_iia(effects: Sequence[Row], answers: Sequence[Row], place: Place) -> str:
    """Why nothing is known of whether answers follow the value."""
    if not effects:
        return NOTHING_EDITED
    if not answers:
        return f"the edit {effects[0]['edit']} takes no value from another problem"
    if all(row["strength"] != WHOLE_WAY for row in answers):
        return f"no strength of {WHOLE_WAY:g}, the whole way to the other value, was asked for"
    if all(row["value"] != place[-1] for row in answers):
        return "the edit goes towards other values, or no problem could have another value here"
    return "this component was not edited towards the value"


NOTHING_EDITED = "nothing was edited"


def no_whole_way(edit: Edit, strengths: Sequence[float]) -> list[str]:
    """Where an edit towards values never arrives, so that the evidence has no iia."""
    if edit.target is None or WHOLE_WAY in strengths:
        return []
    return [
        f"the evidence says nothing of answers that follow a value: the strengths "
        f"{list(strengths)} of {edit.name} do not hold {WHOLE_WAY:g}, the whole way to the other "
        "value; add it to intervention.strengths"
    ]


def headline(evidence: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """For each value its row at the site with the largest |R| on the fit split, of the least rank.

    Nothing is chosen on the problems that are reported.
    """
    return best_rows(_records(of_least_rank(evidence)))
