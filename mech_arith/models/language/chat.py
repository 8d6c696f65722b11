"""What a tokenizer's chat template makes of turns: the same text on every day.

Some templates print the day on which they are applied (`strftime_now`). They are given a fixed one:
otherwise two runs of one cell would not have the same prompts.
"""

import json
import re
from collections.abc import Sequence
from datetime import date

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from mech_arith.common.errors import UserError

MARK = "\ue000"
"""Stands for the question while the template is applied: a character of private use."""

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"

Turn = tuple[str, str]
"""A role and what it says."""

CLOCK = "strftime_now"
"""The function by which a template is told the day."""

_DIRECTIVES = "aAbBdeFDjmuUVwWyYHIMSpT"

_REASONING = re.compile(r"<(/?)(think|thinking|reasoning|thought)>")


def apply_chat_template(
    turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase, *, today: str
) -> tuple[str, str]:
    """What the template writes before the question, and between it and the model's own turn.

    Args:
        turns: the last of them says `MARK` alone.
        tokenizer: the model's.
        today: what the template is told of the date, as YYYY-MM-DD.

    Raises:
        UserError: there is no template, it does not take such turns, it does not write the question
            just once, or it does not write the same every time.
    """
    if not tokenizer.chat_template:
        raise UserError(
            "expected a tokenizer with a chat template for prompt.style=chat, got one without; "
            "choose prompt.style=spaced or plain"
        )
    try:
        text, again = (_applied(turns, tokenizer, today) for _ in range(2))
    except TemplateError as error:
        raise UserError(
            f"expected a chat template that takes {', '.join(dict(turns))} turns, got "
            f"{' '.join(str(error).split())!r}; leave prompt.system out, or choose "
            "prompt.style=spaced"
        ) from None
    if text != again:
        raise UserError(
            "expected a chat template that writes the same every time, got one that draws what it "
            "writes; choose prompt.style=spaced"
        )
    head, *tails = text.split(MARK)
    if len(tails) != 1:
        raise UserError(
            f"expected a chat template that writes a question once, got it {len(tails)} times; "
            "choose prompt.style=spaced"
        )
    return head, tails[0]


def _applied(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase, today: str) -> str:
    """The template's text, had it been applied on that day."""
    template = tokenizer.get_chat_template()
    if CLOCK in template:
        template = _stopped_clock(date.fromisoformat(today)) + template
    return str(
        tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in turns],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
    )


def _stopped_clock(today: date) -> str:
    """A macro that stands before the function that tells the day.

    Templates are given plain data alone, no functions. So the macro puts in itself what each
    directive of a format comes to.
    """
    directives = [f"%{flag}{letter}" for flag in ("", "-") for letter in _DIRECTIVES]
    written = {directive: today.strftime(directive) for directive in directives}
    return (
        f"{{%- macro {CLOCK}(format) -%}}"
        "{%- set so_far = namespace(text=format) -%}"
        f"{{%- for directive, written in {json.dumps(written)}.items() -%}}"
        "{%- set so_far.text = so_far.text.replace(directive, written) -%}"
        "{%- endfor -%}"
        "{{- so_far.text -}}"
        "{%- endmacro +%}"
    )


def chat_warnings(turns: Sequence[Turn], head: str, tail: str) -> list[str]:
    """What the template leaves out of the turns, and whether it makes the model reason first.

    Args:
        turns: that it was given.
        head: what it wrote before the question.
        tail: what it wrote behind it.
    """
    warnings = []
    written = head + MARK + tail
    lost = [(role, content) for role, content in turns if content.strip() not in written]
    n_examples = sum(role == ASSISTANT for role, _ in turns)
    n_lost = max(sum(role == lost_role for lost_role, _ in lost) for role in (USER, ASSISTANT))
    if n_lost:
        warnings.append(
            f"the chat template drops {n_lost} of {n_examples} few-shot examples: the model is "
            "asked without them; set prompt.shots=0, or choose prompt=spaced"
        )
    if any(role == SYSTEM for role, _ in lost):
        warnings.append(
            "the chat template drops the system turn: the model is asked without it; leave "
            "prompt.system out"
        )
    tags = list(_REASONING.finditer(tail))
    if tags and not tags[-1][1]:
        warnings.append(
            f"the chat template ends in an opened {tags[-1][0]}: the model is asked to reason "
            "first, and what it writes there is read as its answer; choose prompt=spaced"
        )
    return warnings
