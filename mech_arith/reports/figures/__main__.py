"""Draw the figures of finished runs again: `python -m mech_arith.reports.figures DIR [DIR ...]`."""

import argparse
import sys
from pathlib import Path

from mech_arith.common.errors import UserError
from mech_arith.common.streams import lasting_output
from mech_arith.reports.papers import FORMATS, WIDTHS, Page, page


def main() -> None:
    """Draw what the command line asks for."""
    with lasting_output():
        _main()


def _main() -> None:
    arguments = _parser().parse_args()
    try:
        formats = [name.strip() for name in arguments.format.split(",") if name.strip()]
        on = page(formats, arguments.width, title=arguments.title)
        for path in _drawn(arguments.directories, on):
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
        adopt_columns(directory)
        with readable(directory):
            paths += draw_cell(run.tables, directory / "figures", **heading(run.summary), on=on)
    return paths


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mech_arith.reports.figures",
        description="Draw the figures of finished runs again, in other formats or for the columns "
        "of a paper, into the folder `figures` of each; beside each figure NAME.csv, the numbers "
        "that it shows. Nothing is computed.",
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
        "--no-title",
        dest="title",
        action="store_false",
        help="without title, for a paper with captions",
    )
    return parser


if __name__ == "__main__":
    main()
