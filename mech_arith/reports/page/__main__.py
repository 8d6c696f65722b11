"""Report on runs and sweeps at any time: `python -m mech_arith.reports.page DIR [DIR ...]`."""

import argparse
import sys
from pathlib import Path

from mech_arith.common.errors import UserError
from mech_arith.common.streams import lasting_output
from mech_arith.reports.page.files import COMPARISON, PAGE, TABLES


def main() -> None:
    """Write the report that the command line asks for; exit code 1 if a run is damaged."""
    with lasting_output():
        _main()


def _main() -> None:
    arguments = _parser().parse_args()
    places: list[Path] = arguments.directories
    try:
        if arguments.compare:
            _compare(places, arguments.out)
        else:
            _report(places, arguments.out)
    except UserError as error:
        sys.exit(f"error: {error}")


def _report(places: list[Path], out: Path | None) -> None:
    if out is None and len(places) > 1:
        raise UserError("expected --out with several directories, got none; say where to write")
    from mech_arith.reports.page.build import build

    built = build(out or places[0], places)
    count = len(built.cells)
    sys.stdout.write(f"{count} cell{'' if count == 1 else 's'}: {built.page}\n")
    for cell in built.damaged:
        sys.stderr.write(f"error: {cell.note}\n")
    if built.damaged:
        sys.exit(1)


def _compare(places: list[Path], out: Path | None) -> None:
    if len(places) != 2:
        raise UserError(f"expected two directories with --compare, got {len(places)}; give A and B")
    from mech_arith.reports.page.build import build_comparison
    from mech_arith.reports.page.show import print_differences

    built = build_comparison(out or places[1], *places)
    print_differences(built.compared, places)
    sys.stdout.write(f"{built.page}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mech_arith.reports.page",
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
        help="where to write; by default into DIR, if there is only one, or into the second of "
        "two that are compared",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="put two runs or sweeps A and B side by side: for each value and layer the numbers "
        f"of both and B minus A with its interval; writes {', '.join(COMPARISON)}",
    )
    return parser


if __name__ == "__main__":
    main()
