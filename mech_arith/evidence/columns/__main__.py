"""Print the dictionary of all columns: `python -m mech_arith.evidence.columns [PLUGIN ...]`."""

import sys

from mech_arith.common.errors import UserError
from mech_arith.common.plugins import load_plugins
from mech_arith.evidence.columns.dictionary import dictionary

if __name__ == "__main__":
    try:
        load_plugins(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(dictionary())
