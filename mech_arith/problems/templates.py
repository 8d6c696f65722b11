"""Templates: an expression with a wording, and where in the prompt each value stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from string import Formatter

from mech_arith.common.errors import UserError
from mech_arith.problems.expressions import Expression, parse
from mech_arith.problems.hypotheses import Hypothesis

Span = tuple[int, int]

EXPRESSION = "expression"
MAX_WORDING = 10_000
MAX_WIDTH = 18


@dataclass(frozen=True)
class Prompt:
    """One problem as text."""

    text: str

    spans: dict[str, list[Span]]
    """Value name -> half-open character ranges, at least one each, from left to right."""


@dataclass(frozen=True)
class Template:
    """An expression with a wording. `build_template` reads the expression from text.

    The wording holds `{expression}` once, or words with `{a}`, `{b}`, ... for every operand.
    """

    name: str
    expression: Expression
    wording: str = "{expression}"
    computed_by: Hypothesis | None = None
    """See `hypothesis`."""

    def __post_init__(self) -> None:
        _check(self)

    def render(self, operands: Mapping[str, int], *, width: int = 0) -> Prompt:
        """One problem's prompt, operands zero-padded to `width` digits behind their sign.

        A span covers all characters of its value. In a wording of words, where a sub-expression
        is not written out, its span is the smallest range of text that holds its operands.

        Raises:
            UserError: an operand is missing, or `width` is not within 0..18.
        """
        digits = _digits(self.expression, operands, width)
        if self.is_symbolic:
            return self._symbolic(digits)
        return self._worded(digits)

    @property
    def hypothesis(self) -> Hypothesis:
        """How the answer is taken to be computed: by the expression's own tree, or else as said."""
        return self.expression.hypothesis if self.computed_by is None else self.computed_by

    @property
    def is_symbolic(self) -> bool:
        """Whether the expression itself stands in the prompt, and not only its operands."""
        return any(name == EXPRESSION for _, name in _pieces(self))

    def _symbolic(self, digits: Mapping[str, str]) -> Prompt:
        rendered = self.expression.render(digits)
        text, at = "", 0
        for literal, name in _pieces(self):
            text += literal
            if name is not None:
                at = len(text)
                text += rendered.text
        spans = {
            value: [(start + at, end + at) for start, end in found]
            for value, found in rendered.spans.items()
        }
        return Prompt(text, spans)

    def _worded(self, digits: Mapping[str, str]) -> Prompt:
        text = ""
        spans: dict[str, list[Span]] = {value: [] for value in self.expression.values}
        for literal, name in _pieces(self):
            text += literal
            if name is not None:
                spans[name].append((len(text), len(text) + len(digits[name])))
                text += digits[name]
        for value in self.expression.values:
            if not spans[value]:
                operands = self.expression.hypothesis.operands_of(value)
                spans[value] = [_smallest_range([spans[operand] for operand in operands])]
        return Prompt(text, spans)


def build_template(name: str, expression: str, wording: str = "{expression}") -> Template:
    """Read and check a template.

    Raises:
        UserError: the expression is malformed, or the wording's placeholders are not
            `{expression}` once or every operand at least once.
    """
    return Template(name, parse(expression), wording)


def spans_to_tokens(
    spans: Mapping[str, Sequence[Span]], offsets: Sequence[Span]
) -> dict[str, list[int]]:
    """The tokens that cover each value, sorted.

    `offsets` has each token's (start, end) in characters; start == end marks a special token,
    which covers nothing. A token that covers one character of a span belongs to it.

    Raises:
        UserError: no token covers a value.
    """
    found = {
        value: [
            token
            for token, (start, end) in enumerate(offsets)
            if start < end and any(start < last and first < end for first, last in ranges)
        ]
        for value, ranges in spans.items()
    }
    lost = [value for value, tokens in found.items() if not tokens]
    if lost:
        raise UserError(
            f"expected a token for every value, got none of {len(offsets)} tokens for "
            f"{', '.join(map(repr, lost))}; check that the prompt was not cut short"
        )
    return found


def _check(template: Template) -> None:
    """Refuse a wording that is not plain words and plain placeholders."""
    operands = template.expression.operands
    where = f"wording of template {template.name!r}"
    if len(template.wording) > MAX_WORDING:
        raise UserError(
            f"{where}: expected text of at most {MAX_WORDING} characters, got "
            f"{len(template.wording)}; shorten it"
        )
    allowed = (EXPRESSION, *operands)
    advice = (
        f"use {{{EXPRESSION}}} once, or every one of "
        + ", ".join(f"{{{operand}}}" for operand in operands)
        + " ({{ and }} for braces)"
    )
    try:
        fields = [part[1:] for part in Formatter().parse(template.wording) if part[1] is not None]
    except ValueError as error:
        raise UserError(f"{where}: expected plain placeholders, got {error}; {advice}") from None
    for name, form, conversion in fields:
        if name not in allowed or form or conversion:
            written = f"{name}{'!' + conversion if conversion else ''}{':' + form if form else ''}"
            raise UserError(f"{where}: unknown placeholder {f'{{{written}}}'!r}; {advice}")
    names = [name for name, _, _ in fields]
    if EXPRESSION in names:
        if len(names) > 1:
            raise UserError(
                f"{where}: expected {{{EXPRESSION}}} once and alone, got {len(names)} "
                f"placeholders; {advice}"
            )
        return
    missing = [operand for operand in operands if operand not in names]
    if missing:
        raise UserError(f"{where}: expected all operands, got no {', '.join(missing)}; {advice}")


def _pieces(template: Template) -> list[tuple[str, str | None]]:
    """Literal text, then the name of the placeholder behind it, if any."""
    return [(literal, name) for literal, name, _, _ in Formatter().parse(template.wording)]


def _digits(expression: Expression, operands: Mapping[str, int], width: int) -> dict[str, str]:
    if not 0 <= width <= MAX_WIDTH:
        raise UserError(f"expected a width of 0 to {MAX_WIDTH} digits, got {width}; change it")
    expression.hypothesis.require(operands)
    numbers = {name: index(operands[name]) for name in expression.operands}
    return {
        name: ("-" if number < 0 else "") + str(abs(number)).zfill(width)
        for name, number in numbers.items()
    }


def _smallest_range(occurrences: Sequence[Sequence[Span]]) -> Span:
    """The shortest range that holds one of the spans of each sequence; the first of equals."""
    ranges = []
    for start in sorted(span[0] for spans in occurrences for span in spans):
        ends = [[end for first, end in spans if first >= start] for spans in occurrences]
        if all(ends):
            ranges.append((start, max(min(found) for found in ends)))
    return min(ranges, key=lambda span: span[1] - span[0])
