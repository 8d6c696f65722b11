"""Which hypothesis the interventions support, and where, in words and as numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mech_arith.engine.sites import COMPONENT_COLUMNS, SITE_COLUMNS, component_of
from mech_arith.evidence.best import best_places
from mech_arith.evidence.hypotheses import TIE
from mech_arith.evidence.verdicts import listed, places
from mech_arith.interventions.edits.base import WHOLE_WAY

Row = Mapping[str, Any]


def at_best(hypotheses: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """The rows per value and layer at the site that is best on the fit split, of every rank, the
    whole way to the value.
    """
    place = ["value", *SITE_COLUMNS]
    whole = hypotheses["strength"] == WHOLE_WAY
    return hypotheses.loc[whole].merge(best_places(evidence)[place], on=place)


def hypothesis_summary(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """Per two hypotheses, in words which is supported where; the numbers of the clearest place.

    Every value is judged at its best sites of the fit split, one per layer, against the rival's
    value that does best there: what does not beat all of them is no better than the rival.
    """
    table = tables.get("hypotheses", pd.DataFrame())
    if table.empty:
        return {}
    rows = at_best(table, tables["evidence"]).to_dict(orient="records")
    pairs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        first, second = sorted((row["hypothesis"], row["rival"]))
        pairs.setdefault((first, second), []).append(row)
    return {f"{a} or {b}": _of_pair(a, b, _hardest(rows)) for (a, b), rows in pairs.items()}


def _hardest(rows: Sequence[Row]) -> list[Row]:
    """Of each subspace that is asked for a value the row that is least in the value's favour."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        place = tuple(row[name] for name in ("hypothesis", "rival", "value", *COMPONENT_COLUMNS))
        found[place] = min(found.get(place, row), row, key=_favour)
    return list(found.values())


def _favour(row: Row) -> tuple[bool, int, float]:
    """How far a row speaks for its value's hypothesis; one without pairs that tell says nothing."""
    order = (row["rival"], TIE, row["hypothesis"])
    return not row["n_distinguishing"], order.index(row["supports"]), row["difference"]


def _of_pair(first: str, second: str, rows: Sequence[Row]) -> dict[str, Any]:
    supported = {
        name: _where([row for row in rows if row["supports"] == name]) for name in (first, second)
    }
    ties = sum(row["supports"] == TIE for row in rows)
    clearest = max(rows, key=_clarity)
    won = [name for name in (first, second) if supported[name]]
    if len(won) == 1:
        text = f"{won[0]}, and not {second if won[0] == first else first}: {supported[won[0]]}"
    elif won:
        text = "; ".join(f"{name}: {supported[name]}" for name in won)
    else:
        text = "a tie: no subspace tells them apart"
    return {
        "text": f"{text} ({ties} of {len(rows)} comparisons are ties)",
        "supports": won[0] if len(won) == 1 else (" and ".join(won) or TIE),
        "supported": supported,
        **_at_clearest(clearest),
        "n_ties": ties,
        "n_comparisons": len(rows),
        "numbers": _numbers(clearest),
        "clearest": {name: clearest[name] for name in ("value", *COMPONENT_COLUMNS, *NUMBERS)},
    }


def _clarity(row: Row) -> tuple[bool, bool, float]:
    """How clearly a row decides; one without pairs that tell has no difference."""
    tells = row["n_distinguishing"] > 0
    return row["supports"] != TIE, tells, abs(row["difference"]) if tells else 0.0


def _at_clearest(row: Row) -> dict[str, Any]:
    """At the clearest place each hypothesis' share, its interval and its floor, by its name."""
    sides = {row["hypothesis"]: "", row["rival"]: "_rival"}
    columns = {
        "share": "distinguishing{}",
        "share_low": "distinguishing{}_low",
        "share_high": "distinguishing{}_high",
        "floor": "floor{}",
    }
    return {
        name: {of: row[column.format(side)] for of, side in sides.items()}
        for name, column in columns.items()
    }


NUMBERS = (
    *("hypothesis", "rival", "rival_value", "n_pairs", "n_distinguishing"),
    *("distinguishing", "distinguishing_low", "distinguishing_high", "floor"),
    *("distinguishing_rival", "distinguishing_rival_low", "distinguishing_rival_high"),
    *("floor_rival", "difference", "difference_low", "difference_high", "p_holm"),
)
"""What is said of the clearest place."""


def _where(rows: Sequence[Row]) -> str:
    """Values with the places at which a hypothesis is supported."""
    by_value: dict[str, list[Row]] = {}
    for row in rows:
        # The value of the hypothesis that is supported, in whosever subspace.
        own = row["value"] if row["supports"] == row["hypothesis"] else row["rival_value"]
        by_value.setdefault(own, []).append(row)
    return "; ".join(
        f"{value} in {listed(places(of_value))}" for value, of_value in by_value.items()
    )


def _numbers(row: Row) -> str:
    """The numbers of a place in a line."""
    site, component, rank = component_of(row)
    subspace = f"component {component}" if rank == 1 else f"subspace of rank {rank}"
    return (
        f"clearest in layer {site.layer}{site.at}, {subspace} of {row['value']}: of "
        f"{row['n_distinguishing']} pairs of {row['n_pairs']} that tell the two apart, answers are "
        f"as {row['hypothesis']} ({row['value']}) expects in {_share(row, 'distinguishing')}, as "
        f"{row['rival']} ({row['rival_value']}) in {_share(row, 'distinguishing_rival')}; chance "
        f"{share_text(row['floor'])} and {share_text(row['floor_rival'])}"
    )


def _share(row: Row, name: str) -> str:
    share, low, high = (share_text(row[name + end]) for end in ("", "_low", "_high"))
    return f"{share} [{low}, {high}]"


def share_text(number: float | None) -> str:
    """'.07', '1.00'; a dash for a share that could not be had."""
    if number is None or number != number:
        return "-"
    return f"{number:.2f}".removeprefix("0") if number < 1 else f"{number:.2f}"
