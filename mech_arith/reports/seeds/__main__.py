"""The spread of a sweep over seeds: `python -m mech_arith.reports.seeds DIR`."""

import argparse
import sys
from pathlib import Path

from mech_arith.common.errors import UserError
from mech_arith.common.streams import lasting_output


def main() -> None:
    """Write and print the spread that the command line asks for."""
    with lasting_output():
        _main()


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mech_arith.reports.seeds",
        description="Compare the cells of a sweep that differ in the seed of their model alone: "
        "which findings hold in all seeds, and how far the numbers spread. Writes seeds.parquet "
        "and seeds_effects.parquet into DIR.",
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="a sweep over model.path")
    directory: Path = parser.parse_args().directory
    from mech_arith.reports.seeds.build import write_seeds

    try:
        files = write_seeds(directory)
    except UserError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write("".join(f"{path}\n" for path in files))


if __name__ == "__main__":
    main()
