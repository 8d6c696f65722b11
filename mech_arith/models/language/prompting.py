"""How a language model is asked: a problem, and examples before it, as text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mech_arith.common.errors import UserError, unknown
from mech_arith.models.kinds import PROMPT_DATE
from mech_arith.models.language.chat import (
    ASSISTANT,
    MARK,
    SYSTEM,
    USER,
    Turn,
    apply_chat_template,
    chat_warnings,
)
from mech_arith.models.language.styles import QUESTION, STYLES, Form, Style, with_spaces
from mech_arith.problems import ProblemSet
from mech_arith.problems.expressions import Expression, parse
from mech_arith.problems.templates import EXPRESSION, Prompt, Template

_EQUATION = f"{{{EXPRESSION}}}"
_SMALL, _LARGE = tuple(range(10)), (10, 12, 99, 100, 123, 1000, 12345)
PROBES = (*_SMALL, *_LARGE, *(-number for number in (*_SMALL[1:], *_LARGE)))
"""Numbers by which a tokenizer's ways are found out."""


@dataclass(frozen=True)
class Prompting:
    """How a model is asked."""

    style: str
    """A name in `STYLES`."""

    shots: ProblemSet | None = None
    """The few-shot examples, of the same template as the problems; none for zero-shot."""

    system: str | None = None
    """The system turn of a chat; None for the chat template's own."""

    date: str = PROMPT_DATE
    """The day that a chat template may print, as YYYY-MM-DD."""


@dataclass(frozen=True)
class Frame:
    """What stands around the question; the same for all problems of a template."""

    literals: tuple[str, ...]
    """Texts before, between and behind the places of the question. The first holds the examples;
    the last ends where the answer begins."""

    pad: str
    """The space that the tokenizer takes for the beginning of the answer."""

    takes_negatives: bool
    """Whether the tokens of a negative answer begin behind the prompt's too."""

    def write(self, question: Prompt) -> Prompt:
        """The whole prompt; its spans cover every place of the question."""
        text = self.literals[0]
        spans: dict[str, list[tuple[int, int]]] = {value: [] for value in question.spans}
        for literal in self.literals[1:]:
            for value, found in question.spans.items():
                spans[value] += [(len(text) + start, len(text) + end) for start, end in found]
            text += question.text + literal
        return Prompt(text, spans)


def render(
    problems: ProblemSet, prompting: Prompting, tokenizer: PreTrainedTokenizerBase
) -> list[Prompt]:
    """Each problem as text, up to where the answer begins.

    A value's spans are all places where the prompt's own question has it, none in the examples. In
    a chat the question stands in the user's turn and, as an equation, again before the answer.

    Raises:
        UserError: as `build_frame`.
    """
    frame = build_frame(problems.template, prompting, tokenizer)
    return [frame.write(question) for question in questions(problems, prompting.style)]


def questions(problems: ProblemSet, style: str) -> list[Prompt]:
    """Each problem as its template words it, with the style's spaces."""
    return replace(problems, template=_worded(problems.template, style)).prompts()


def build_frame(
    template: Template, prompting: Prompting, tokenizer: PreTrainedTokenizerBase
) -> Frame:
    """Write the examples, and find out where in the tokens an answer begins.

    The frame depends on the template, the examples and the tokenizer, and on no problem.

    Raises:
        UserError: no such style; examples of another template, or in a style that takes none; a
            system turn without a chat; a chat without a chat template; a tokenizer without
            offsets, or one that merges answers with the prompt.
    """
    _check(template, prompting)
    style = STYLES[prompting.style]
    form = _form(template, style)
    if style.is_chat:
        turns = _turns(form, prompting)
        head, turn = apply_chat_template(turns, tokenizer, today=prompting.date)
    else:
        head = "".join(asked + answered + style.end for asked, answered in _shots(form, prompting))
        turn = ""
    asked, answered = form.asked.split(QUESTION), form.answered.split(QUESTION)
    literals = (head + asked[0], *asked[1:-1], asked[-1] + turn + answered[0], *answered[1:])
    return _ended(literals, template, prompting, tokenizer)


def encode(texts: Sequence[str], style: str, tokenizer: PreTrainedTokenizerBase) -> list[Encoding]:
    """Tokens with their offsets, neither padded nor cut.

    Special tokens are added as the tokenizer does by default, in a chat as its template writes
    them.

    Raises:
        UserError: the tokenizer is a slow one, or adds a token behind the text.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(
            f"expected a fast tokenizer, which tells where its tokens stand in the text, got the "
            f"slow {type(tokenizer).__name__}; save it as tokenizer.json"
        )
    # Straight to the backend: the wrapper would turn all it knows into lists, at twice the time.
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    encodings = backend.encode_batch(list(texts), add_special_tokens=not STYLES[style].is_chat)
    for encoding in encodings[:1]:
        start, end = encoding.offsets[-1]
        if start == end:
            raise UserError(
                "expected a tokenizer that adds nothing behind a text, got one that adds "
                f"{encoding.tokens[-1]!r}; change its post-processor (add_eos_token=False)"
            )
    return encodings


def probe_prompts(
    frame: Frame, template: Template, style: str, numbers: Sequence[int]
) -> list[str]:
    """Prompts in whose question all operands are the same number, for each of `numbers`."""
    worded, names = _worded(template, style), template.expression.operands
    asked = [worded.render(dict.fromkeys(names, number)) for number in numbers]
    return [frame.write(question).text for question in asked]


def _worded(template: Template, style: str) -> Template:
    if not STYLES[style].spaced:
        return template
    return replace(template, expression=with_spaces(template.expression))


def _check(template: Template, prompting: Prompting) -> None:
    if prompting.style not in STYLES:
        raise unknown("prompt style", prompting.style, STYLES)
    style, shots = STYLES[prompting.style], prompting.shots
    if prompting.system is not None and not style.is_chat:
        raise UserError(
            f"expected no prompt.system in style {prompting.style!r}, which has no turns, got "
            f"{prompting.system!r}; leave it out, or choose prompt.style=chat"
        )
    if shots is None:
        return
    if shots.template != template:
        raise UserError(
            f"expected examples of the problems' template {template.name!r}, got some of "
            f"{shots.template.name!r}; draw both from one template"
        )
    if len(shots) and not style.takes_shots:
        raise UserError(
            f"expected no examples in style {prompting.style!r}, got {len(shots)}; set "
            "prompt.shots=0, or choose prompt.style=plain"
        )


def _form(template: Template, style: Style) -> Form:
    return style.equation if _is_equation(template) else style.words


def _is_equation(template: Template) -> bool:
    """Whether nothing but an expression stands in the prompt: the template's own, or one that the
    wording writes out in its operands, as `{a} + {b} + {c}` does for a+(b+c).
    """
    if template.is_symbolic:
        return template.wording == _EQUATION
    try:
        parse(template.wording.format(**{name: name for name in template.expression.operands}))
    except UserError:
        return False
    return True


def _shots(form: Form, prompting: Prompting) -> list[tuple[str, str]]:
    """Every example's question, and what answers it."""
    shots = prompting.shots
    if shots is None or not len(shots):
        return []
    return [
        (
            form.asked.replace(QUESTION, question.text),
            form.answered.replace(QUESTION, question.text) + str(answer),
        )
        for question, answer in zip(
            questions(shots, prompting.style), shots.answers.tolist(), strict=True
        )
    ]


def _turns(form: Form, prompting: Prompting) -> list[Turn]:
    """Of a chat, up to the question, for which `MARK` stands."""
    turns = [] if prompting.system is None else [(SYSTEM, prompting.system)]
    for asked, answered in _shots(form, prompting):
        turns += [(USER, asked), (ASSISTANT, answered)]
    return [*turns, (USER, MARK)]


def prompt_warnings(
    template: Template, prompting: Prompting, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """What the prompt lacks of what was asked for, or has beyond it."""
    style = STYLES[prompting.style]
    if not style.is_chat:
        return []
    turns = _turns(_form(template, style), prompting)
    written = apply_chat_template(turns, tokenizer, today=prompting.date)
    return chat_warnings(turns, *written)


def _ended(
    literals: tuple[str, ...],
    template: Template,
    prompting: Prompting,
    tokenizer: PreTrainedTokenizerBase,
) -> Frame:
    """The frame, cut where the answer's first token begins.

    Where a number's token holds the space before it, the prompt must end before that space: else
    it would end in tokens that stand before no number. Where only a minus sign's token does (as in
    SmolLM2), it depends on whether there are negative answers.
    """
    last = literals[-1].rstrip(" ")
    frames = [Frame(literals, "", True)]
    if last != literals[-1]:
        frames.append(Frame((*literals[:-1], last), literals[-1][len(last) :], True))
    suited: list[Frame] = []
    for frame in frames:
        positive, negative = _continued(frame, template, prompting.style, tokenizer)
        if positive:
            suited.append(replace(frame, takes_negatives=negative))
    if not suited:
        raise UserError(
            f"expected the answer's tokens behind the prompt's, but the tokenizer merges the end "
            f"of the prompt {literals[-1][-10:]!r} with a number; choose another prompt.style than "
            f"{prompting.style}"
        )
    wanted = _has_negatives(template.expression, prompting.shots)
    return next((frame for frame in suited if frame.takes_negatives or not wanted), suited[0])


def _continued(
    frame: Frame, template: Template, style: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[bool, bool]:
    """Whether numbers from 0 on, and negative ones, leave the prompt's tokens as they are."""
    prompt = probe_prompts(frame, template, style, PROBES[:1])[0]
    answers = [prompt + frame.pad + str(number) for number in PROBES]
    alone, *answered = [found.ids for found in encode([prompt, *answers], style, tokenizer)]
    kept = [ids[: len(alone)] == alone for ids in answered]
    pairs = list(zip(PROBES, kept, strict=True))
    return (
        all(same for number, same in pairs if number >= 0),
        all(same for number, same in pairs if number < 0),
    )


def _has_negatives(expression: Expression, shots: ProblemSet | None) -> bool:
    """Whether operands from 0 on, or the examples, have a negative answer."""
    if shots is not None and (shots.answers < 0).any():
        return True
    random = np.random.default_rng(0)
    operands = {name: random.integers(0, 100, size=256) for name in expression.operands}
    defined = expression.hypothesis.defined(operands)
    kept = {name: numbers[defined] for name, numbers in operands.items()}
    return bool((expression.hypothesis.evaluate(kept)[expression.answer] < 0).any())
