"""Chat templates: the same text on every day, and what they leave out."""

from datetime import date, datetime

import numpy as np
import pytest
import transformers.utils.chat_template_utils as templates_of_transformers
from transformers import PreTrainedTokenizerFast

from mech_arith.common.errors import UserError
from mech_arith.experiment.checks import check_numbers
from mech_arith.experiment.config import PromptConfig, RunConfig
from mech_arith.models.kinds import PROMPT_DATE
from mech_arith.models.language.prompting import Prompting, prompt_warnings, render
from mech_arith.problems import ProblemSet
from mech_arith.problems.templates import build_template
from tests.lms import CHAT_TEMPLATE, tiny_tokenizer

SUM = build_template("sum", "a+b")
DATED = "{{ 'Today: ' + strftime_now('%d %b %Y') }}\n" + CHAT_TEMPLATE
"""As Llama 3.2's and Granite's."""
TURNS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


def problems(*rows: tuple[int, int]) -> ProblemSet:
    columns = np.array(rows, dtype=np.int64)
    return ProblemSet.of(SUM, dict(zip("ab", columns.T, strict=True)))


def chat(template: str) -> PreTrainedTokenizerFast:
    of = tiny_tokenizer("chat")
    of.chat_template = template
    return of


def text(of: PreTrainedTokenizerFast, asked: Prompting) -> str:
    return render(problems((4, 5)), asked, of)[0].text


class Tomorrow(datetime):
    """A clock that is ahead."""

    @classmethod
    def now(cls, tz=None):
        return cls(2031, 5, 17)


def test_a_template_that_prints_the_day_prints_the_same_one_on_every_day(monkeypatch) -> None:
    today = text(chat(DATED), Prompting("chat"))
    monkeypatch.setattr(templates_of_transformers, "datetime", Tomorrow)
    templates_of_transformers._compile_jinja_template.cache_clear()
    turns = [{"role": "user", "content": "Hi"}]
    assert "17 May 2031" in chat(DATED).apply_chat_template(turns, tokenize=False)  # by itself
    assert text(chat(DATED), Prompting("chat")) == today
    assert today.startswith("Today: 26 Jul 2024\n")
    assert PROMPT_DATE == Prompting("chat").date == PromptConfig().date == "2024-07-26"


def test_the_day_can_be_chosen() -> None:
    assert text(chat(DATED), Prompting("chat", date="2030-01-02")).startswith("Today: 02 Jan 2030")
    with pytest.raises(
        UserError, match=r"expected prompt.date as YYYY-MM-DD, got 'today'; set for"
    ):
        check_numbers(RunConfig(prompt=PromptConfig(date="today")))


@pytest.mark.parametrize(
    ("template", "written"),
    [
        # Llama 3.2's
        (
            "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
            '{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}{%- endif %}'
            "{{ 'Today Date: ' + date_string }}",
            "Today Date: 26 Jul 2024",
        ),
        # Granite 3's
        (
            "{%- set said = 'Date: ' + strftime_now('%B %d, %Y') + '.' %}{{ said }}",
            "Date: July 26, 2024.",
        ),
        (
            "\n{% macro day() %}{{ strftime_now('%Y-%m-%d') }}{% endmacro %}{{ day() }}",
            "2024-07-26",
        ),
        ("{% for m in messages %}{{ strftime_now('%-d.%-m.%y') }}{% endfor %}", "26.7.24"),
    ],
)
def test_the_ways_in_which_templates_ask_for_the_day(template: str, written: str) -> None:
    whole = template + "\n" + CHAT_TEMPLATE
    assert text(chat(whole), Prompting("chat")).strip().startswith(written)


def test_a_template_that_does_not_ask_for_the_day_is_left_as_it_is() -> None:
    for start in ("", "\n", "  \n x"):
        of = chat(start + CHAT_TEMPLATE)
        turns = [{"role": "user", "content": "What is 4 + 5?"}]
        theirs = of.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert text(of, Prompting("chat")) == f"{theirs}4 + 5 = "
        of = chat(start + "{{ strftime_now('') }}" + CHAT_TEMPLATE)
        assert text(of, Prompting("chat")) == f"{theirs}4 + 5 = "


def test_a_template_that_draws_what_it_writes_is_refused() -> None:
    numbers = ", ".join(map(str, range(10**4)))
    drawn = "{{ [" + numbers + "] | random }} " + CHAT_TEMPLATE
    with pytest.raises(UserError, match="writes the same every time, got one that draws what it"):
        text(chat(drawn), Prompting("chat"))


SHOTS = problems((1, 2), (3, 4))


@pytest.mark.parametrize(
    ("template", "asked", "said"),
    [
        (CHAT_TEMPLATE, Prompting("chat", SHOTS, "Be brief."), []),
        (TURNS + "assistant: ", Prompting("chat", SHOTS, "Be brief."), []),
        (TURNS + "assistant: <think>\n\n</think>\n\n", Prompting("chat", SHOTS), []),
        (
            "{{ messages[-1]['content'] }}\nassistant: ",
            Prompting("chat", SHOTS),
            ["the chat template drops 2 of 2 few-shot examples: the model is asked without them"],
        ),
        (
            "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}\n{% endfor %}",
            Prompting("chat", SHOTS),
            ["the chat template drops 2 of 2 few-shot examples: the model is asked without them"],
        ),
        (
            "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}\n{% endfor %}",
            Prompting("chat", None, "Be brief."),
            ["the chat template drops the system turn: the model is asked without it"],
        ),
        (
            TURNS + "assistant: <think>\n",
            Prompting("chat"),
            ["the chat template ends in an opened <think>: the model is asked to reason first"],
        ),
    ],
)
def test_what_a_template_leaves_out_is_said(
    template: str, asked: Prompting, said: list[str]
) -> None:
    found = prompt_warnings(SUM, asked, chat(template))
    assert len(found) == len(said)
    assert all(line.startswith(start) for line, start in zip(found, said, strict=True))
    assert not any("\n" in line for line in found)


def test_other_styles_have_no_chat_template_to_speak_of() -> None:
    assert prompt_warnings(SUM, Prompting("spaced", SHOTS), chat("{{ 1 }}")) == []
    assert date.fromisoformat(PROMPT_DATE)
