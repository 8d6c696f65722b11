"""Evidence, or what two runs differ in, as a table for a paper.

python -m mech_arith.reports.table DIR [DIR ...] --format latex|markdown|csv [--compare]
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mech_arith.common.errors import UserError, nearest
from mech_arith.common.streams import lasting_output
from mech_arith.reports.typeset import (
    DAGGER,
    WRITERS,
    Cell,
    Estimate,
    Expression,
    Heading,
    P,
    Table,
)

FIXED = (Heading("value", "value"), Heading("layer", "layer"))
"""What every row of the evidence is about."""

RANKS = ("iia", "iia_random", "floor", "ceiling")
"""Columns of the evidence that stand beside each rank."""

OF_COMPONENT = "The component with the largest |R| on the fit split"
OF_RANKS = (
    "Each value's subspace of the rank (of rank 1 the component with the largest |R| on the fit "
    "split) at the layer's best site of the fit split"
)

SIDES = {"a": "A", "b": "B", "difference": "B minus A"}
"""Columns of a comparison, each with its interval."""

CHANCE = f"{DAGGER} may be chance: p above .05, or the interval reaches what chance gives."


def main() -> None:
    """Write the table that the command line asks for to standard output."""
    with lasting_output():
        _main()


def _main() -> None:
    arguments = _parser().parse_args()
    asked: str | None = arguments.columns
    columns = None if asked is None else [name.strip() for name in asked.split(",")]
    places: list[Path] = arguments.directories
    try:
        if arguments.compare:
            if len(places) != 2:
                raise UserError(
                    f"expected two directories with --compare, got {len(places)}; give A and B"
                )
            table = comparison(places[0], places[1], columns)
        else:
            table = evidence(places, columns, ranks=arguments.ranks)
    except UserError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(WRITERS[arguments.format](table))


def evidence(
    places: Sequence[Path], columns: Sequence[str] | None = None, *, ranks: bool = False
) -> Table:
    """A row per run, value and layer: the evidence of the fit split's best component.

    Of several ranks the least; with `ranks` a row for each.

    Args:
        places: runs, sweeps, or anything above them.
        columns: of the evidence; by default those of the report's headlines that a run has.
        ranks: IIA against rank.

    Raises:
        UserError: there is no finished run, or no such column.
    """
    from mech_arith.common.runs.directories import finished_runs
    from mech_arith.evidence.results import load_run

    runs = [load_run(directory) for directory in finished_runs(places)]
    found = [_shown_rows(run, ranks=ranks) for run in runs]
    cells = [cell for cell, _ in found]
    rows = [
        (run.summary, row) for run, (_, shown) in zip(runs, found, strict=True) for row in shown
    ]
    if ranks and not rows:
        raise UserError(
            "expected answers towards other values with --ranks, found none; run with "
            "tracing.rank=[1,2,4] intervention=interchange"
        )
    told = _told_apart(cells) or ["identity"] * (len(runs) > 1)
    chosen = [
        column
        for column in _chosen(
            RANKS if ranks and columns is None else columns,
            list(dict.fromkeys(n for _, row in rows for n in row)),
        )
        if columns is not None or any(column.cell(row) not in _EMPTY for _, row in rows)
    ]
    fields = [Heading(name, name) for name in told]
    heads = [Heading("head", "head")] if any(row["head"] for _, row in rows) else []
    sizes = [Heading("rank", "rank")] if ranks or any(row["rank"] > 1 for _, row in rows) else []
    return Table(
        headings=[*fields, *FIXED, *heads, *sizes, *(column.heading for column in chosen)],
        rows=[
            [
                *(_text((summary | summary["cell"]).get(name)) for name in told),
                Expression(row["value"]),
                int(row["layer"]),
                *(row["head"] or None for _ in heads),
                *(int(row["rank"]) for _ in sizes),
                *(column.cell(row) for column in chosen),
            ]
            for summary, row in rows
        ],
        notes=[
            *(_made_by(run.directory, run.summary) for run in runs),
            _how_read(runs[0].summary, OF_RANKS if sizes else OF_COMPONENT),
        ],
    )


def _how_read(summary: Mapping[str, Any], where: str) -> str:
    """What the numbers of all rows are of."""
    level = summary.get("inference", {}).get("level", 0.95)
    return f"{where}, read on the report split; brackets: {level:.0%} intervals. {CHANCE}"


def _shown_rows(run: Any, *, ranks: bool) -> tuple[dict[str, Any], list[dict[Any, Any]]]:
    """A run's cell, and the rows of its evidence that are in the table.

    Raises:
        UserError: it has no evidence.
    """
    from mech_arith.common.runs.directories import readable
    from mech_arith.evidence.best import best_places
    from mech_arith.evidence.ranks import of_ranks
    from mech_arith.evidence.results import adopt_columns

    if "evidence" not in run.tables:
        raise UserError(f"expected evidence in {run.directory}, found none; run it again")
    adopt_columns(run.directory)
    shown = of_ranks if ranks else best_places
    with readable(run.directory):
        rows = shown(run.tables["evidence"]).to_dict(orient="records")
        rows.sort(key=lambda row: (row["layer"], len(row["value"]), row["value"]))
        return run.summary["cell"], rows


def comparison(one: Path, other: Path, quantities: Sequence[str] | None = None) -> Table:
    """A row per quantity, value and layer: A, B, and B minus A.

    Args:
        one: A, a run or a sweep.
        other: B.
        quantities: what is compared; by default all but the drop at each strength.

    Raises:
        UserError: a run is not there, nothing can be compared, or there is no such quantity.
    """
    from mech_arith.reports.page.build import compared
    from mech_arith.reports.page.differences import DROP, known_text, several_places, titles

    found, named = compared(one, other, other), titles()
    _require_known(quantities or (), list(named))
    wanted = quantities or [name for name in named if name != DROP]
    rows = [row for row in found.table.to_dict(orient="records") if row["quantity"] in wanted]
    rows.sort(key=lambda row: wanted.index(row["quantity"]))
    within = several_places(found.table)
    several = len({(row["cell_a"], row["cell_b"]) for row in rows}) > 1
    cells = ("cell_a", "cell_b") if several else ()
    strength = ("strength",) if DROP in wanted else ()
    return Table(
        headings=[
            *(Heading(name, name.replace("_", " ")) for name in cells),
            Heading("quantity", "quantity"),
            *FIXED,
            *(Heading(f"{name}_a", name) for name in within),
            *(Heading(name, name) for name in strength),
            *(
                Heading(name, title, (f"{name}_low", f"{name}_high"))
                for name, title in SIDES.items()
            ),
            Heading("p_holm", "p (Holm)"),
        ],
        rows=[
            [
                *(row[name] for name in cells),
                named[row["quantity"]],
                Expression(row["value"] or ""),
                _whole(row["layer"]),
                *(known_text(row[f"{name}_a"]) for name in within),
                *(Estimate(_number(row, name)) for name in strength),
                _estimate(row, "a"),
                _estimate(row, "b"),
                _estimate(row, "difference", counts=row["counts"]),
                P(_number(row, "p_holm")),
            ]
            for row in rows
        ],
        notes=[*_of_sides(one, other), *found.notes, CHANCE],
    )


def _of_sides(one: Path, other: Path) -> list[str]:
    """What to say of the runs of A and of B."""
    from mech_arith.common.runs.directories import finished_runs
    from mech_arith.evidence.results import load_summary

    return [
        f"{side}: {_made_by(directory, load_summary(directory))}"
        for side, place in (("A", one), ("B", other))
        for directory in finished_runs([place])
    ]


class _Column:
    """A column of the evidence in a table."""

    def __init__(self, name: str) -> None:
        from mech_arith.evidence.columns import shown_columns

        self.about = next((column for column in shown_columns() if column.name == name), None)
        self.name = name
        if self.about is None:
            self.heading = Heading(name, name.replace("_", " "))
            return
        about = self.about
        ends = tuple(end for end in (about.low, about.high) if end)
        if about.is_size:
            ends = tuple(f"abs_{end}" for end in ends)
        self.heading = Heading(about.shown, about.label, ends)

    def cell(self, row: Mapping[Any, Any]) -> Cell:
        """What stands in the row."""
        about = self.about
        if about is not None and about.is_text:
            return row.get(about.name) or None
        if about is not None:
            counts = row.get(about.counts) if about.counts else None
            return _estimate(
                row, about.name, about.low, about.high, counts=counts, is_size=about.is_size
            )
        entry = row[self.name]
        if isinstance(entry, bool | str):
            return str(entry) or None
        if isinstance(entry, int):
            return entry
        number = _number(row, self.name)
        return P(number) if _is_p(self.name) else Estimate(number)


_EMPTY: tuple[Cell, ...] = (None, Estimate(None))


def _chosen(columns: Sequence[str] | None, known: Sequence[str]) -> list[_Column]:
    """The columns that are asked for, or else the headlines.

    Raises:
        UserError: there is no such column.
    """
    from mech_arith.evidence.columns import TABLES, earlier_names, shown_columns

    headlines = [column.name for column in shown_columns() if column.is_headline]
    # As a column is headed (abs_r), and as an earlier version has called it.
    today = earlier_names(TABLES["evidence"])
    today |= {column.shown: column.name for column in shown_columns()}
    names = headlines if columns is None else [today.get(name, name) for name in columns]
    _require_known(names, [*dict.fromkeys([*headlines, *known])])
    return [_Column(name) for name in names]


def _require_known(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"unknown column {name!r}; {nearest(name, known)}")


def _made_by(directory: Path, summary: Mapping[str, Any]) -> str:
    """What to say of a run beside its numbers."""
    from mech_arith.common.runs.directories import readable

    with readable(directory):
        return f"{summary['command']}\n(identity {summary['identity']})"


def _text(entry: Any) -> str | None:
    return None if entry is None else str(entry)


def _told_apart(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields in which cells differ."""
    names = dict.fromkeys(name for cell in cells for name in cell)
    return [name for name in names if len({str(cell.get(name)) for cell in cells}) > 1]


def _estimate(
    row: Mapping[Any, Any],
    name: str,
    low: str | None = None,
    high: str | None = None,
    *,
    counts: Any = None,
    is_size: bool = False,
) -> Estimate:
    """A number with its interval, without its sign where that is an accident."""
    number, *ends = (_number(row, n) for n in (name, low or f"{name}_low", high or f"{name}_high"))
    if is_size and number is not None and number < 0:
        number, ends = -number, [None if end is None else -end for end in reversed(ends)]
    may_be_chance = counts is not None and counts == counts and not counts
    return Estimate(number, *ends, may_be_chance=may_be_chance)


def _number(row: Mapping[Any, Any], name: str) -> float | None:
    from mech_arith.evidence.verdicts import known

    return known(row, name)


def _is_p(name: str) -> bool:
    """Whether a column of the evidence holds p: p, p_holm, excess_p_max, ..."""
    return "p" in name.split("_")


def _whole(entry: Any) -> int | None:
    return None if entry is None or entry != entry else int(entry)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mech_arith.reports.table",
        description="Write the evidence of runs, or what two of them differ in, as a table for a "
        "paper to standard output.",
    )
    parser.add_argument(
        "directories",
        metavar="DIR",
        type=Path,
        nargs="+",
        help="a run, a sweep, or anything above them",
    )
    parser.add_argument("--format", choices=[*WRITERS], default="latex", help="(default: latex)")
    parser.add_argument(
        "--columns",
        metavar="A,B",
        help="columns of the evidence, each with its interval, or with --compare quantities; by "
        "default the headlines",
    )
    parser.add_argument(
        "--ranks", action="store_true", help="IIA (interchange-intervention accuracy) by rank"
    )
    parser.add_argument(
        "--compare", action="store_true", help="two runs or sweeps A and B, and B minus A"
    )
    return parser


if __name__ == "__main__":
    main()
