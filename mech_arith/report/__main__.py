"""Report on runs and sweeps at any time: `python -m mech_arith.report DIR [DIR ...]`."""

import argparse
import sys
from pathlib import Path

from mech_arith.errors import UserError
from mech_arith.report.files import PAGE, TABLES
from mech_arith.streams import lasting_output


def main() -> None:
    """Write the report that the command line asks for; exit code 1 if a run is damaged."""
    with lasting_output():
        _main()


def _main() -> None:
    arguments = _parser().parse_args()
    places: list[Path] = arguments.directories
    if arguments.out is None and len(places) > 1:
        sys.exit("error: expected --out with several directories, got none; say where to write")
    from mech_arith.report.build import build

    try:
        built = build(arguments.out or places[0], places)
    except UserError as error:
        sys.exit(f"error: {error}")
    count = len(built.cells)
    sys.stdout.write(f"{count} cell{'' if count == 1 else 's'}: {built.page}\n")
    for cell in built.damaged:
        sys.stderr.write(f"error: {cell.note}\n")
    if built.damaged:
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mech_arith.report",
        description=f"Put the runs of one or more directories together: {PAGE} (one file that "
        f"works offline in a browser), {', '.join(TABLES.values())}.",
    )
    parser.add_argument(
        "directories",
        metavar="DIR",
        type=Path,
        nargs="+",
        help="a run, a sweep, or anything above them",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="where to write; by default into DIR, if there is only one",
    )
    return parser


if __name__ == "__main__":
    main()
