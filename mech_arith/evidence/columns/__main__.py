"""Print the dictionary of all columns: `python -m mech_arith.evidence.columns`."""

import sys

from mech_arith.evidence.columns.dictionary import dictionary

if __name__ == "__main__":
    sys.stdout.write(dictionary())
