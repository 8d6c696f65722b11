"""Verdicts on published claims: `python -m mech_arith.reports.claims DIR [DIR ...]`."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from mech_arith.common.errors import UserError
from mech_arith.common.streams import lasting_output


def main() -> None:
    """Print the table that the command line asks for."""
    with lasting_output():
        _main()


def _main() -> None:
    arguments = _parser().parse_args()
    from mech_arith.reports.claims.build import table, verdicts
    from mech_arith.reports.typeset import WRITERS, Table

    try:
        found, commands = verdicts(arguments.directories)
    except UserError as error:
        sys.exit(f"error: {error}")
    shown = table(found, is_read=arguments.format != "csv")
    notes = [f"Of {datetime.now(UTC):%Y-%m-%d}."]
    notes += [f"{line} # {made_with}" for line, made_with in commands.items()]
    sys.stdout.write(WRITERS[arguments.format](Table(shown.headings, shown.rows, notes)))


def _parser() -> argparse.ArgumentParser:
    from mech_arith.reports.typeset import WRITERS

    parser = argparse.ArgumentParser(
        prog="python -m mech_arith.reports.claims",
        description="Say which claims of papers held in finished cells of "
        "+experiment=papers/NAME, from three seeds of problems or more.",
    )
    parser.add_argument("directories", metavar="DIR", type=Path, nargs="+", help="sweeps or runs")
    parser.add_argument("--format", choices=list(WRITERS), default="markdown")
    return parser


if __name__ == "__main__":
    main()
