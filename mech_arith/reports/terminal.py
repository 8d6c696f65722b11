"""The table that a run or a sweep ends with."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mech_arith.common.registry import without_additions
from mech_arith.common.runs.records import read_record
from mech_arith.common.runs.sweeps import (
    DONE,
    STATUSES,
    CellState,
    own_overrides,
    swept_overrides,
    untold,
)
from mech_arith.engine.sites import site_of
from mech_arith.evidence.columns import own_columns
from mech_arith.evidence.draws import draw_lines
from mech_arith.evidence.ranks import rank_sentence
from mech_arith.evidence.results import adopt_columns, load_summary
from mech_arith.evidence.screen import screen_lines
from mech_arith.evidence.summary import CLEARLY
from mech_arith.problems.algorithms import RULES
from mech_arith.problems.hypotheses import TREE

USUAL = {
    "point": "resid_post",
    "positions": "all",
    "heads": None,
    "screen": None,
    "prompt": None,
    "design": "uniform",
    "seed": 0,
    "tracing": "pca",
    "hypothesis": TREE,
}
"""What a cell's name need not say."""

FEW = 10
"""With at most so many cells, each has a table of its own, and its figures are listed."""

TRACED = (
    "Held: a direction of the activations goes with the value. |R|: how closely, on problems that "
    "were not used to find the direction (1: exactly; [95% interval]); untrained: in the same "
    "network with random weights. With another value: the direction goes with that one as well."
)
FOLLOWED = (
    "Used: the answer follows the value. Each problem's coordinate along that direction is "
    "replaced by another problem's. Follows: how much of the change that the other value calls "
    "for the answer makes (1: all of it, 0: none); beside it the same along random directions. "
    "IIA (interchange-intervention accuracy): how often the answer becomes exactly the one that "
    "the other value calls for; chance gives that by itself; whole: where the whole activation is "
    "replaced."
)
COSTED = (
    "Used: moving the coordinate along that direction costs more right answers than moving it as "
    "far along drawn directions, of whatever kind: any, those between the components, or those "
    "between them that carry no value. p: of so large a difference by chance, for all edits "
    "together."
)
TOLD = (
    "Class: how often a step of few numbers (a digit, a carry, a residue) is told right from the "
    "direction, which no correlation says; always the same: by telling the most frequent one."
)
RANKED = (
    "Rank: directions of the subspace whose coordinates are replaced. All else in the table is of "
    "the least rank that was asked for. Ceiling: IIA where the whole activation is replaced."
)
RIVALS = (
    "Hypotheses: ways to compute the answer. An interchange takes a value from another problem; "
    "each hypothesis says what the answer should become. Only distinguishing pairs are counted: "
    "pairs of problems on which the two say different things. A tie: the interventions do not "
    "decide."
)
TOGETHER = (
    "As a whole: several steps are set in one pass, each to what another problem has. A choice is "
    "which steps are set, and from which problems; it counts where the expected answer is neither "
    "the problem's own nor that of a problem that a step is from. Chance: with those problems "
    "dealt out anew."
)
"""What the tables' columns mean."""

ALGORITHM = "Which algorithm do the interventions support, and where?"


def cell_name(cell: Mapping[str, Any]) -> str:
    """Model, expression, layers and edit, whatever else differs from the usual, and (`swept`) the
    overrides that tell it from the other cells of its sweep.
    """
    layers = f"layer{'' if str(cell['layers']).isdecimal() else 's'} {cell['layers']}"
    parts = [cell["model"], cell["expression"], layers, cell["edit"]]
    asked = {name: cell.get(name, usual) for name, usual in USUAL.items()}
    parts += [f"{name} {asked[name]}" for name, usual in USUAL.items() if asked[name] != usual]
    parts += [f"{key}={value}" for key, value in cell.get("swept", {}).items()]
    return ", ".join(str(part) for part in parts)


def _labelled(directories: Sequence[Path]) -> list[dict[str, Any]]:
    """The runs' summaries, each cell with the overrides that tell it from the others."""
    summaries = [load_summary(directory) for directory in directories]
    records = [read_record(directory) for directory in directories]
    swept = swept_overrides([() if of is None else of.overrides for of in records])
    labels = untold(swept, [summary["cell"] for summary in summaries])
    return [
        summary | {"cell": summary["cell"] | {"swept": label}}
        for summary, label in zip(summaries, labels, strict=True)
    ]


@without_additions()
def print_cells(directories: Sequence[Path], *, console: Console | None = None) -> None:
    """Print what each run has found, and where the results and figures are."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=140, file=console.file)
    for directory in directories:
        adopt_columns(directory)
    summaries = _labelled(directories)
    if len(directories) > FEW:
        console.print(_verdicts_by_cell(summaries))
    else:
        for summary in summaries:
            console.print(cell_table(summary))
            lines = [*screen_lines(summary), *draw_lines(summary)]
            console.print(*lines, sep="\n", highlight=False, markup=False)
    for shown in _rivals_by_cell(summaries):
        console.print(shown, highlight=False, markup=False)
    console.print(*_legend(summaries), sep="\n", highlight=False, markup=False)
    # Of a large sweep the report says where what is.
    for directory in directories if len(directories) <= FEW else ():
        figures = sorted((directory / "figures").glob("*.png"))
        names = ", ".join(path.name for path in figures) or "none"
        console.print(
            f"{directory}: figures/ {names}", soft_wrap=True, highlight=False, markup=False
        )


def print_states(states: Sequence[CellState], *, console: Console | None = None) -> None:
    """Print how many cells came to which end, and which and why where that is not simply done."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=140, file=console.file)
    table = Table()
    for column in ("status", "cells", "which and why"):
        table.add_column(column, overflow="fold")
    named = list(zip(states, own_overrides([state.overrides for state in states]), strict=True))
    for status in STATUSES:
        some = [_which(state, own) for state, own in named if state.status == status]
        table.add_row(status, str(len(some)), Text("" if status == DONE else "\n".join(some)))
    console.print(table)


def _which(state: CellState, overrides: str) -> str:
    named = f"{state.directory.name} ({overrides})" if overrides else state.directory.name
    return f"{named}: {state.note}" if state.note else named


def cell_table(summary: Mapping[str, Any]) -> Table:
    """A row per value: where it is held, where it is used, and the numbers that say so."""
    table = Table(
        title=Text(f"{cell_name(summary['cell'])}\n{_baseline(summary)}"),
        title_justify="left",
        title_style="bold",
    )
    for column, most in (("value", 14), ("held in", 22), ("|R| there", 28), ("used in", 22)):
        table.add_column(column, overflow="fold", max_width=most)
    table.add_column("because", overflow="fold")
    ranks = summary.get("ranks") or {}
    for value, found in _by_length(summary.get("verdicts") or {}):
        best = found["best"] | {"names_point": len(_points(summary)) > 1}
        entries = (value, *_entries({**found, "best": best}, ranks.get(value)))
        table.add_row(*(Text(entry) for entry in entries))
    if not summary.get("verdicts"):
        table.add_row(Text("an earlier version wrote this run: run it again for its verdicts"))
    return table


def _points(summary: Mapping[str, Any]) -> Sequence[str]:
    """The points of the sites that a screen has kept; none where there was none."""
    return (summary.get("screen") or {}).get("points", ())


def _rivals_by_cell(summaries: Sequence[Mapping[str, Any]]) -> Iterator[Table | str]:
    """A row per cell and two hypotheses: which one the interventions support, where, and the
    numbers; how all steps of each do together; then the hypotheses that nothing compares.
    """
    table = Table(title=ALGORITHM, title_justify="left", title_style="bold", show_lines=True)
    for column, most in (("cell", 40), ("hypotheses", 20)):
        table.add_column(column, overflow="fold", max_width=most)
    table.add_column("the interventions support", overflow="fold")
    for summary in summaries:
        for names, pair in (summary.get("hypotheses") or {}).items():
            found = (cell_name(summary["cell"]), f"{names}?", f"{pair['text']}\n{pair['numbers']}")
            table.add_row(*(Text(entry) for entry in found))
        for name, whole in (summary.get("alignments") or {}).items():
            together = (cell_name(summary["cell"]), f"{name}, as a whole?", whole["text"])
            table.add_row(*(Text(entry) for entry in together))
    if table.row_count:
        yield table
    yield from _not_compared(summaries)


def _not_compared(summaries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Per model and expression the hypotheses of the sweep's cells that no cell compares."""
    asked: dict[str, list[str]] = {}
    compared: set[tuple[str, frozenset[str]]] = set()
    for summary in summaries:
        cell = summary["cell"]
        of = f"{cell['model']}, {cell['expression']}"
        asked.setdefault(of, []).append(cell.get("hypothesis", TREE))
        for pair in (summary.get("hypotheses") or {}).values():
            compared.add((of, frozenset(pair["supported"])))
    for of, names in asked.items():
        for one, other in combinations(dict.fromkeys(names), 2):
            if (of, frozenset((one, other))) not in compared:
                yield (
                    f"not compared for {of}: {one} with {other}; intervention=interchange "
                    f"{_asking(one, other)} compares them"
                )


def _asking(rival: str, own: str) -> str:
    """Overrides that ask for a hypothesis and its rival; steps of one's own are given again."""
    known = RULES.names()
    first = (
        f"hypothesis={own}" if own in known else f"hypothesis.name={own} 'hypothesis.steps=[...]'"
    )
    entry = rival if rival in known else f"{{name: {rival}, steps: [...]}}"
    return f"{first} 'hypothesis.rivals=[{entry}]'"


def _verdicts_by_cell(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """A row per cell: how well it answers, and the verdict of each value."""
    table = Table(show_lines=True)
    for column, most in (("cell", 40), ("right answers", 24)):
        table.add_column(column, overflow="fold", max_width=most)
    table.add_column("verdicts", overflow="fold")
    for summary in summaries:
        said = [found["text"] for _, found in _by_length(summary.get("verdicts") or {})]
        entries = (cell_name(summary["cell"]), _baseline(summary), "\n".join(said))
        table.add_row(*(Text(entry) for entry in entries))
    return table


def _legend(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The meanings of the columns that are shown."""
    best = [
        found["best"] for summary in summaries for found in (summary.get("verdicts") or {}).values()
    ]
    legend = [TRACED] if best else []
    legend += [TOLD] if any(row.get("class_accuracy") is not None for row in best) else []
    legend += [FOLLOWED] if any(row.get("iia") is not None for row in best) else []
    costs = [row for row in best if row.get("iia") is None and row.get("edit") is not None]
    legend += [COSTED] if costs else []
    legend += [RANKED] if any(summary.get("ranks") for summary in summaries) else []
    legend += [RIVALS] if any(summary.get("hypotheses") for summary in summaries) else []
    return legend + [TOGETHER] * any(summary.get("alignments") for summary in summaries)


def _baseline(summary: Mapping[str, Any]) -> str:
    """The accuracy, beside that of always giving the most frequent answer."""
    near = "; not clearly more than that" if summary["above_floor_p"] >= CLEARLY else ""
    ends = _interval(summary, "baseline_accuracy")
    return (
        f"{_two(summary['baseline_accuracy'])}{ends} of {summary['n_report']} answers are right "
        f"(always the same answer: {_two(summary['majority_floor'])}{near})"
    )


def _entries(
    found: Mapping[str, Any], ranks: Mapping[str, Any] | None
) -> tuple[str, str, str, str]:
    """Held where, |R|, used where, and why; of several ranks also what they reach."""
    held = [*found["held"], *(f"with {o}: {', '.join(at)}" for o, at in found["shared"].items())]
    used = "; ".join(found["used"]) or "nowhere"
    if held and not found["used"] and found["untold"]:
        used = "cannot be told"
    best = found["best"]
    untrained = best.get("untrained_abs_r")
    floor = "" if untrained is None else f"\nuntrained {_two(untrained)}"
    r = f"{_two(abs(best['r']))}{_r_interval(best)} {_place(best)}{floor}"
    if best.get("class_accuracy") is not None:
        r = (
            f"class {_two(best['class_accuracy'])}{_interval(best, 'class_accuracy')} "
            f"{_place(best)}\nalways the same {_two(best['class_chance'])}"
        )
    why = list(found["untold"]) if held and not found["used"] else []
    return (
        "\n".join(held) or "nowhere",
        r,
        used,
        "\n".join([*why, *_reasons(best), *([] if ranks is None else [rank_sentence(ranks)])]),
    )


def _reasons(best: Mapping[str, Any]) -> list[str]:
    """The numbers of use, at the place that they are read from, and a user's own headlines."""
    return [*_reasons_of_use(best), *_own_headlines(best)]


def _own_headlines(best: Mapping[str, Any]) -> list[str]:
    shown = [
        column
        for column in own_columns("evidence")
        if column.is_headline and best.get(column.name) is not None
    ]
    return [
        f"{column.label or column.name} "
        f"{best[column.name] if column.is_text else _two(best[column.name])}"
        for column in shown
    ]


def _reasons_of_use(best: Mapping[str, Any]) -> list[str]:
    if best.get("iia") is not None:
        return [
            f"follows {_two(best['slope'])}{_interval(best, 'slope')} {_place(best)}; random "
            f"{_two(best.get('slope_random'))}",
            f"IIA {_two(best['iia'])}{_interval(best, 'iia')}; chance "
            f"{_two(best['floor'])}, whole {_two(best['ceiling'])}",
        ]
    if best.get("excess_drop") is None:
        return []
    return [
        f"costs {_two(best['target_drop'])} {_place(best)}, {_two(best['excess_drop'])}"
        f"{_interval(best, 'excess')} more than {best['excess_against']} directions; "
        f"{_p(best['excess_p_max'])}"
    ]


def _place(best: Mapping[str, Any]) -> str:
    site, rank = site_of(best), best.get("rank") or 1
    point = f" {site.point}" if best.get("names_point") else ""
    return f"in layer {site.layer}{point}{site.at}" + (f", rank {rank}" if rank > 1 else "")


def _by_length(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Plain before composed: a, b, c, b-c, a-(b-c)."""
    return sorted(found.items(), key=lambda item: len(item[0]))


def _interval(found: Mapping[str, Any], name: str) -> str:
    low, high = found.get(f"{name}_low"), found.get(f"{name}_high")
    return "" if low is None or high is None else f" [{_two(low)}, {_two(high)}]"


def _r_interval(found: Mapping[str, Any]) -> str:
    """Of R, whose sign |R| does not show: turned where R is negative."""
    low, high = found.get("r_low"), found.get("r_high")
    if low is None or high is None:
        return ""
    low, high = (-high, -low) if found["r"] < 0 else (low, high)
    return f" [{_two(low)}, {_two(high)}]"


def _p(p: float | None) -> str:
    if p is None:
        return "p unknown"
    return "p<.001" if p < 0.001 else f"p={p:.3f}".replace("0.", ".", 1)


def _two(number: float | None) -> str:
    """'.07', '1.00', '-.05'; a dash for a number that could not be had."""
    if number is None:
        return "-"
    text = f"{number:z.2f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
