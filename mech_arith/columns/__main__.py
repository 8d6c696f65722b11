"""Print the dictionary of all columns: `python -m mech_arith.columns`."""

import sys

from mech_arith.columns.dictionary import dictionary

if __name__ == "__main__":
    sys.stdout.write(dictionary())
