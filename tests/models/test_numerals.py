"""How written numbers are read, and when nothing that follows can change them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mech_arith.models.language.numerals import Numeral, longest_text, most_digits, read_numeral


@pytest.mark.parametrize(
    ("text", "number"),
    [
        # as they come
        ("8\n", 8),
        (" 8\n", 8),
        ("08\n", 8),
        ("8</s>", 8),
        ("8 apples", 8),
        ("8, 123 + 4", 8),
        ("8.\n", 8),
        ("12%\n", 12),
        ("8 - which is", 8),
        ("8 = 3 + 5", 8),
        # thousands
        ("1,234\n", 1234),
        ("1 234\n", 1234),
        ("1'234\n", 1234),
        ("1\u202f234\n", 1234),
        ("-12,345,678\n", -12345678),
        ("1,234.\n", 1234),
        # fractions and exponents
        ("1e3\n", 1000),
        ("1E+3\n", 1000),
        ("1.5e3\n", 1500),
        ("12.0\n", 12),
        ("1,234.00\n", 1234),
        ("1.5\n", None),
        ("1e-3\n", None),
        ("1e999\n", None),
        ("1.234.567\n", None),
        (".5\n", None),
        ("8e\n", 8),
        # expressions
        ("12/3\n", None),
        ("12-5\n", None),
        ("12 - 5 = 7\n", None),
        ("2*(3+1)\n", None),
        ("10^3\n", None),
        ("3×4\n", None),  # noqa: RUF001
        # markup
        ("**12**\n", 12),
        (r"\boxed{12}", 12),
        (r"$\boxed{12}$", 12),
        (r"\(12\)", 12),
        ("$12\n", 12),
        ("$1,234\n", 1234),
        ("-$12\n", -12),
        ("`12`\n", 12),
        ('"12"\n', 12),
        (r"\frac{12}{3}", None),
        ("*" * 11 + "12\n", None),
        # signs
        ("+12\n", 12),
        ("- 5\n", -5),
        ("-5\n", -5),
        ("\u2212 5\n", -5),
        ("**-5**\n", -5),
        ("--5\n", None),
        ("+-5\n", None),
        # no numbers
        ("\n8", None),
        ("x", None),
        ("the answer is 8", None),
        ("</s>", None),
        ("\ufffd\ufffd\ufffd\ufffd8", None),
    ],
)
def test_numbers_are_read_as_a_person_would(text: str, number: int | None) -> None:
    assert read_numeral(text) == Numeral(number, ended=True)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,23\n", 1),
        ("1,2345\n", 1),
        ("0,123\n", 0),
        ("1234,567\n", 1234),
        ("1,234,56\n", 1234),
        ("1,234 567\n", 1234),
        ("12 34\n", 12),
        ("8,9,10\n", 8),
    ],
)
def test_digits_behind_a_separator_that_make_no_group_cut_the_number(text: str, number: int):
    assert read_numeral(text) == Numeral(number, ended=True, is_cut=True)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", None),
        (" ", None),
        ("-", None),
        ("- ", None),
        ("**", None),
        ("$", None),
        (r"\box", None),
        (r"\boxed{", None),
        ("\ufffd", None),  # the first byte of U+2212
        ("8", 8),
        ("8,", 8),
        ("8,1", 8),
        ("8,12", 8),
        ("8,123", 8123),
        ("8 ", 8),
        ("8.", 8),
        ("8.5", None),
        ("8e", 8),
        ("8e3", 8000),
        ("8 -", 8),
        ("8 - ", 8),
        ("8\ufffd", 8),
    ],
)
def test_it_is_open_whether_the_number_goes_on(text: str, number: int | None) -> None:
    assert read_numeral(text) == Numeral(number, ended=False)


SIGNS = st.sampled_from(
    [*"0123456789-+,. '*/$()e\n\\{}x=^", "\u2212", r"\boxed{", "\ufffd", "</s>"]
)


@settings(max_examples=500)
@given(st.lists(SIGNS, max_size=12), st.lists(SIGNS, max_size=4))
def test_nothing_changes_a_number_that_has_ended(before: list[str], behind: list[str]) -> None:
    numeral = read_numeral("".join(before))
    if numeral.ended:
        assert read_numeral("".join(before + behind)) == numeral


@given(st.integers(-(10**9), 10**9), st.sampled_from(["", ",", " ", "'", "\u2009"]))
def test_what_is_written_with_separators_is_read_whole(number: int, separator: str) -> None:
    text = f"{number:,}".replace(",", separator)
    assert read_numeral(f"{text}\n") == Numeral(number, ended=True)
    assert len(text) < longest_text(number)
    assert len(str(abs(number))) < most_digits(number)
