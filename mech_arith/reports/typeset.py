"""Tables as LaTeX, Markdown or CSV: one set of cells, three ways to write them."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from math import floor, isfinite, log10

MOST_DECIMALS = 4

DAGGER = "\N{DAGGER}"
"""Behind a number that may be chance."""


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its interval, None for what could not be had."""

    number: float | None
    low: float | None = None
    high: float | None = None
    may_be_chance: bool = False


@dataclass(frozen=True)
class P:
    """A p, which is never shown as 0."""

    number: float | None


@dataclass(frozen=True)
class Expression:
    """A value of a problem: an operand or a sub-expression."""

    text: str


Cell = str | int | None | Estimate | P | Expression


@dataclass(frozen=True)
class Heading:
    """A column."""

    name: str
    """In CSV."""
    title: str = ""
    """For readers; `|R|` and `R` are set as formulas."""
    ends: tuple[str, ...] = ()
    """In CSV the columns of the ends of its interval, if it has one."""


@dataclass(frozen=True)
class Table:
    """What is written."""

    headings: Sequence[Heading]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default=())
    """What the caption has to say: where the numbers come from, and what the marks mean."""


def latex(table: Table) -> str:
    """A `tabular` for booktabs, the notes above it as comments."""
    aligned = "".join("l" if _is_text(table, at) else "c" for at in range(len(table.headings)))
    lines = [
        f"% {line}"
        for note in (*table.notes, "Needs: booktabs.")
        for line in note.replace(DAGGER, "dagger:").split("\n")
    ]
    lines += [f"\\begin{{tabular}}{{{aligned}}}", "\\toprule"]
    lines.append(_latex_row([_formula(heading.title) for heading in table.headings]))
    lines.append("\\midrule")
    lines += [_latex_row([_latex_cell(cell) for cell in row]) for row in table.rows]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def markdown(table: Table) -> str:
    """A table of pipes, the notes below it."""
    titles = [_piped(heading.title) for heading in table.headings]
    rules = ["---" if _is_text(table, at) else ":-:" for at in range(len(titles))]
    rows = [[_markdown_cell(cell) for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(row)} |" for row in (titles, rules, *rows)]
    return "\n".join([*lines, "", *(f"{_piped(note)}  " for note in table.notes), ""])


def comma_separated(table: Table) -> str:
    """All numbers in full, each end of an interval in a column of its own; no notes."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(name for heading in table.headings for name in (heading.name, *heading.ends))
    for row in table.rows:
        entries = []
        for heading, cell in zip(table.headings, row, strict=True):
            numbers = [cell.low, cell.high] if isinstance(cell, Estimate) else [None, None]
            entries += [_plain(cell), *(numbers if heading.ends else [])]
        writer.writerow("" if entry is None else entry for entry in entries)
    return text.getvalue()


def _plain(cell: Cell) -> str | int | float | None:
    match cell:
        case Estimate(number=number) | P(number=number):
            return number
        case Expression(text):
            return text
    return cell


WRITERS = {"latex": latex, "markdown": markdown, "csv": comma_separated}


def rounded(found: Estimate) -> tuple[str, ...]:
    """The number and the ends of its interval with as many decimals each.

    Two decimals, fewer of large numbers. More, up to `MOST_DECIMALS`, where two would show 0 for a
    number that is not 0, or hide that the three differ. Nothing for an unknown number.
    """
    known = [n for n in (found.number, found.low, found.high) if n is not None and isfinite(n)]
    if found.number is None or not isfinite(found.number):
        return ()
    if len(known) < 3:
        known = known[:1]
    largest = max(map(abs, known))
    decimals = max(0, 2 - max(0, floor(log10(largest)))) if largest else 2
    while decimals < MOST_DECIMALS and largest < 10 and _hides(known, decimals):
        decimals += 1
    return tuple(f"{number:z.{decimals}f}" for number in known)


def _hides(numbers: Sequence[float], decimals: int) -> bool:
    """Whether rounding makes one of them 0, or two of them the same."""
    shown = [round(number, decimals) for number in numbers]
    is_zero = any(n != 0 and s == 0 for n, s in zip(numbers, shown, strict=True))
    return is_zero or len(set(shown)) < len(set(numbers))


def rounded_p(p: float | None) -> str:
    """'0.012', '<0.001'; nothing for an unknown p."""
    if p is None or not isfinite(p):
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _is_text(table: Table, at: int) -> bool:
    return not any(isinstance(row[at], int | Estimate | P) for row in table.rows)


SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{sign: f"\\{sign}" for sign in "_&%$#{}"},
}
"""Signs that mean something in LaTeX, or another sign in its oldest fonts."""


def escaped(text: str) -> str:
    """A text as LaTeX prints it."""
    return "".join(SPECIAL.get(sign, sign) for sign in text)


def _formula(title: str) -> str:
    """A title with R and |R| in math mode."""
    parts = re.split(r"(\|R\||\bR\b)", title)
    return "".join(f"${part}$" if at % 2 else escaped(part) for at, part in enumerate(parts))


SIGNS = {
    "*": r" \times ",
    "//": r" \mathbin{/\!/} ",
    "%": r" \bmod ",
    "max": r"\max",
    "min": r"\min",
}


def math(expression: str) -> str:
    """An expression in LaTeX's math mode: a-(b-c), price*count, a//b, max(a, b)."""
    found = []
    for part in re.findall(r"\w+|//|\s+|.", expression):
        if part in SIGNS:
            found.append(SIGNS[part])
        elif part.isspace():
            continue
        elif len(part) > 1 and not part.isdecimal():
            found.append(f"\\mathit{{{escaped(part)}}}")
        else:
            found.append(part if part.isalnum() else SPECIAL.get(part, part))
    return f"${re.sub(' +', ' ', ''.join(found)).strip()}$"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell) -> str:
    match cell:
        case Expression(text):
            return math(text) if text else ""
        case Estimate():
            numbers = rounded(cell)
            if not numbers:
                return "--"
            mark = r"^{\dagger}" if cell.may_be_chance else ""
            ends = f" {{\\footnotesize $[{', '.join(numbers[1:])}]$}}" if numbers[1:] else ""
            return f"${numbers[0]}{mark}${ends}"
        case P(number):
            return f"${p}$" if (p := rounded_p(number)) else "--"
    return "--" if cell is None else _formula(str(cell))


def _piped(text: str) -> str:
    """A text that holds no mark of Markdown's tables and emphasis."""
    return re.sub(r"([\\|*_`<])", r"\\\1", text)


def _markdown_cell(cell: Cell) -> str:
    match cell:
        case Expression(text):
            return f"`{text}`" if text else ""
        case Estimate():
            numbers = rounded(cell)
            if not numbers:
                return "-"
            ends = f" [{', '.join(numbers[1:])}]" if numbers[1:] else ""
            return f"{numbers[0]}{DAGGER if cell.may_be_chance else ''}{ends}"
        case P(number):
            return rounded_p(number) or "-"
    return "-" if cell is None else _piped(str(cell))
