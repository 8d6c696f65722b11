"""Names that W&B's pages can sort and filter by: letters, digits, underscores, and slashes between.

W&B's own rule for metrics (GraphQL's names). Slashes part a page's panels into sections.
"""

import hashlib
import re

LONGEST_TAG = 64
"""Characters that the W&B server takes."""

WORDS = {
    "+": "plus",
    "-": "minus",
    "*": "times",
    "//": "div",
    "%": "mod",
    "(": "open",
    ")": "close",
    ",": "comma",
    "^": "to",
}
"""Signs of an expression, or of a digit's place, -> their names."""

DIGEST = 8
"""Hexadecimal digits that keep shortened texts apart."""

_TOKENS = re.compile(r"[A-Za-z0-9_]+|//|\S")
_ORDINARY = re.compile(r"[A-Za-z]{2,}([ -][A-Za-z0-9]+)+")


def part_name(text: str) -> str:
    """A text as a part of a metric's name: 'a-(b-c)' becomes 'a_minus_open_b_minus_c_close'.

    Different values have different ones: operands are single letters, and every sign of an
    expression has a word of its own. Names of two letters and more, which are none, read as
    usual: 'transformer-lens' becomes 'transformer_lens', 'component 2' becomes 'component_2'.
    """
    if _ORDINARY.fullmatch(text):
        return re.sub("[ -]", "_", text)
    return "_".join(WORDS.get(token) or _plain(token) for token in _TOKENS.findall(text))


def short_tag(tag: str) -> str:
    """A tag that W&B takes; one that is too long ends with its digest, so that it stays its own."""
    return short(tag, LONGEST_TAG)


def short(text: str, longest: int) -> str:
    """A text of at most so many characters; a longer one ends with its digest."""
    if len(text) <= longest:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGEST]
    return f"{text[: longest - DIGEST - 1]}-{digest}"


def _plain(token: str) -> str:
    """A token that is no sign of an expression; any other character by its number."""
    is_word = re.fullmatch("[A-Za-z0-9_]+", token) is not None
    return token if is_word else f"u{ord(token):04x}"
