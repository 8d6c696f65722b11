"""Draw the figures of finished runs again: `python -m mech_arith.reports.figures DIR [DIR ...]`."""

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from mech_arith.common.errors import UserError
from mech_arith.common.plugins import load_plugins, use_plugins
from mech_arith.common.registry import without_additions
from mech_arith.common.streams import lasting_output
from mech_arith.reports.papers import FORMATS, WIDTHS, Page, page

log = logging.getLogger(__name__)


def main() -> None:
    """Draw what the command line asks for."""
    with lasting_output():
        _main()


def _main() -> None:
    arguments = _parser().parse_args()
    try:
        formats = [name.strip() for name in arguments.format.split(",") if name.strip()]
        on = page(formats, arguments.width, title=arguments.title)
        draw = _compared if arguments.ranks else _drawn
        for path in draw(arguments.directories, on):
            sys.stdout.write(f"{path}\n")
    except UserError as error:
        sys.exit(f"error: {error}")


def _drawn(places: list[Path], on: Page) -> list[Path]:
    """The files written, all runs being looked for before any is drawn."""
    from mech_arith.common.runs.directories import check_writable, finished_runs, readable
    from mech_arith.evidence.results import adopt_columns, load_run

    found = finished_runs(places)
    for directory in found:
        check_writable(directory / "figures", else_do="make room there, or copy the run")
    from mech_arith.reports.figures import draw_cell, heading

    paths = []
    for directory in found:
        run = load_run(directory)
        with _plugins(run.config_yaml), readable(directory):
            adopt_columns(directory)
            paths += draw_cell(run.tables, directory / "figures", **heading(run.summary), on=on)
    return paths


def _compared(places: list[Path], on: Page) -> list[Path]:
    """The files of IIA by rank of several runs, a figure for each model, expression and positions.

    Raises:
        UserError: no run was asked for answers at several ranks.
    """
    from mech_arith.common.runs.directories import check_writable, finished_runs
    from mech_arith.evidence.ranks import by_rank
    from mech_arith.evidence.results import RunResult, load_run
    from mech_arith.reports.figures import heading, iia_by_rank_and_method, save_figures
    from mech_arith.reports.figures.layout import laid_out

    groups: dict[tuple[str, ...], dict[str, RunResult]] = {}
    for directory in finished_runs(places):
        run = load_run(directory)
        if "evidence" not in run.tables or by_rank(run.tables["evidence"]).empty:
            continue
        cell = run.summary["cell"]
        group = groups.setdefault(tuple(str(cell.get(name)) for name in FIGURE_OF), {})
        method = str(cell.get("tracing"))
        group[method if method not in group else f"{method}, {directory.name}"] = run
    if not groups:
        raise UserError(
            "expected runs of several ranks with --ranks, found none; run with "
            "tracing.rank=[1,2,4] intervention=interchange"
        )
    check_writable(out := places[0] / "figures", else_do="make room there, or copy the runs")
    paths = []
    with laid_out(on):
        for key, runs in groups.items():
            first = next(iter(runs.values())).summary
            tables = {name: run.tables for name, run in runs.items()}
            sheet = iia_by_rank_and_method(tables, **heading(first))
            name = "_".join(("iia_by_rank_and_method", *(key if len(groups) > 1 else ())))
            paths += save_figures({name: sheet}, out, on)
    return paths


FIGURE_OF = ("model", "expression", "positions")
"""Fields of a cell: of each combination there is one figure of ranks."""


@contextmanager
def _plugins(config_yaml: str) -> Iterator[None]:
    """Within it there are the figures of a run's plugins, as their files are today.

    A file that is gone or fails costs its own figures, with a warning.
    """
    with without_additions():
        loaded = []
        for path in yaml.safe_load(config_yaml).get("plugins") or ():
            try:
                loaded += load_plugins([path])
            except UserError as error:
                log.warning("the figures of %s are left out: %s", path, error)
        use_plugins(loaded)
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mech_arith.reports.figures",
        description="Draw the figures of finished runs again, in other formats or for the columns "
        "of a paper, into the folder `figures` of each; beside each figure NAME.csv, the numbers "
        "that it shows. Nothing is computed. Figures of plugins are drawn by their files of today.",
    )
    parser.add_argument(
        "directories",
        metavar="DIR",
        type=Path,
        nargs="+",
        help="a run, a sweep, or anything above them",
    )
    parser.add_argument(
        "--format",
        default="pdf",
        help=f"formats between commas, of {', '.join(FORMATS)} (default: pdf)",
    )
    parser.add_argument(
        "--width",
        help=f"as wide as a column of {', '.join(WIDTHS)}, or so many inches; by default as wide "
        "as a figure needs",
    )
    parser.add_argument(
        "--ranks",
        action="store_true",
        help="instead one figure of all runs, IIA (interchange-intervention accuracy) by rank with "
        "a line per method, into the folder `figures` of the first DIR",
    )
    parser.add_argument(
        "--no-title",
        dest="title",
        action="store_false",
        help="without title, for a paper with captions",
    )
    return parser


if __name__ == "__main__":
    main()
