r"""How a written number is read: as a person would, by rules that can be written down.

- Before the digits may stand spaces, markup (`**12**`, `$12`, `\boxed{12}`, brackets, quotes) and
  one sign (`+`, `-`, U+2212), with or without spaces behind it. A line break or a word before the
  digits makes the answer no number.
- Thousands: one to three digits, then groups of exactly three with the same separator before each
  (a comma, an apostrophe, a space): `1,234,567` is 1234567. A separator with other digits behind it
  ends the number: `1,23` is 1, *cut at a separator*.
- A decimal fraction and an exponent belong to the number: `12.0` is 12, `1.5e3` is 1500. What is
  not whole is no number here, since every right answer is whole: `1.5`.
- An operator with a number behind it makes an expression, which is no number: `12/3`, `12 - 5`.
- Whatever else comes ends the number.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

MARKUP = 10
"""Characters before the digits; more of them are no beginning of a number."""

_BESIDE = MARKUP + 8
"""Characters of a number beside its digits and separators: before, in an exponent, and behind."""

_MINUS = "-\u2212"
_SIGNS = "[-+\u2212]"
_COMMANDS = (r"\boxed{", r"\fbox{", r"\text{", r"\textbf{", r"\mathbf{", r"\mathrm{", r"\(", r"\[")
_SEPARATOR = "[,'\u2019 \u00a0\u2009\u202f]"
_COMMAND = "|".join(map(re.escape, _COMMANDS))
_OPENING = re.compile(rf"(?:[ \t*_`$€£¥(\[{{\"'\u201c\u2018]|{_COMMAND})*")
_SIGN = re.compile(rf"({_SIGNS}?)[ \t]*[$€£¥]?")
_DIGITS = re.compile("[0-9]+")
_GROUPED = re.compile(rf"[1-9][0-9]{{0,2}}({_SEPARATOR})[0-9]{{3}}(?:\1[0-9]{{3}})*(?![0-9])")
_FRACTION = re.compile(r"\.[0-9]+")
_EXPONENT = re.compile(rf"[eE]{_SIGNS}?[0-9]+")
_EXPRESSION = re.compile(r"[ \t]*[-+*/^×÷\u2212][ \t]*[(]*[0-9]")  # noqa: RUF001
_CUT = re.compile(rf"{_SEPARATOR}[0-9]")
_UNDECIDED = re.compile(
    rf"{_SEPARATOR}[0-9]{{0,2}}|\.|[eE]{_SIGNS}?|[ \t]*(?:[-+*/^×÷\u2212][ \t]*[(]*)?"  # noqa: RUF001
)
"""What may stand behind a number so far while it is open whether the number goes on."""

_UNFINISHED = re.compile("\ufffd{1,3}$")
"""The first bytes of a character, which may come one by one."""

_LARGEST_EXPONENT = 300
"""Beyond it a number is none: float64 does not hold it."""


@dataclass(frozen=True)
class Numeral:
    """The number at the beginning of a text that may go on."""

    number: int | None
    """The number so far; None is none: not yet or, if it has ended, never."""

    ended: bool
    """Whether nothing that may follow can change it."""

    is_cut: bool = False
    """Whether it ended at a separator with digits behind it that make no group of three."""


def most_digits(bound: int) -> int:
    """Digits of the longest answer that is read where right ones are at most `bound`.

    An edit may make answers longer than any right one.
    """
    return 2 * len(str(abs(bound))) + 2


def longest_text(bound: int) -> int:
    """Characters within which every answer of at most `most_digits` digits has ended."""
    digits = most_digits(bound)
    return digits + digits // 3 + _BESIDE


_NOT_YET, _NEVER = Numeral(None, ended=False), Numeral(None, ended=True)


def read_numeral(text: str) -> Numeral:
    """The number that a text begins with, by the rules above."""
    text = _UNFINISHED.sub("", text)
    opening = _matched(_OPENING, text)
    signed = _SIGN.match(text, len(opening))
    assert signed is not None  # it matches nothing, too
    first = _DIGITS.match(text, signed.end())
    if first is None:
        return _NEVER if _is_no_beginning(text[signed.end() :], signed.end()) else _NOT_YET
    if first.start() > MARKUP:
        return _NEVER
    whole = _GROUPED.match(text, first.start()) or first
    fraction = _FRACTION.match(text, whole.end())
    exponent = _EXPONENT.match(text, (fraction or whole).end())
    behind = text[(exponent or fraction or whole).end() :]
    if _EXPRESSION.match(behind):
        return _NEVER
    ended = _UNDECIDED.fullmatch(behind) is None
    digits = re.sub("[^0-9]", "", whole[0])
    number = _whole(digits, fraction and fraction[0], exponent and exponent[0])
    if number is not None and signed[1] and signed[1] in _MINUS:
        number = -number
    return Numeral(number, ended, is_cut=ended and _CUT.match(behind) is not None)


def _matched(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.match(text)
    return found[0] if found else ""


def _is_no_beginning(rest: str, length: int) -> bool:
    """Whether no number can begin in `rest`, behind so many characters of markup and sign."""
    is_command = any(command.startswith(rest) for command in _COMMANDS)  # of nothing, too
    return not is_command or length > MARKUP


def _whole(digits: str, fraction: str | None, exponent: str | None) -> int | None:
    """The number, if it is whole and float64 can hold it."""
    power = 0 if exponent is None else int(exponent[1:].replace("\u2212", "-"))
    if len(digits) + abs(power) > _LARGEST_EXPONENT:
        return None
    number = Decimal(digits + (fraction or "")) if fraction or power else int(digits)
    if isinstance(number, int):
        return number
    number = number.scaleb(power)
    return int(number) if number == number.to_integral_value() else None
