from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from mech_arith.common.errors import UserError
from mech_arith.models.language.prompting import Prompting, build_frame, render
from mech_arith.models.language.styles import STYLES, with_spaces
from mech_arith.problems import ProblemSet
from mech_arith.problems.expressions import parse
from mech_arith.problems.templates import Template, build_template
from tests.lms import TOKENIZERS, smollm2, tiny_tokenizer

__all__ = ["smollm2"]  # a fixture

CONF = Path(__file__).resolve().parents[2] / "conf" / "prompt"
SUM = build_template("sum", "a+b")
NESTED = build_template("nested", "a-(b-c)")
COINS = build_template("coins", "a-b", "Lena has {a} coins and spends {b}. How many are left?")
COMPUTE = build_template("compute", "a+b", "Add up {expression}.")
EXPRESSIONS = ("a+b", "a-(b-c)", "(a-b)*-c", "max(a,b-c)//2", "a%(b+a)", "-(a-b)", "2*a")


def problems(template: Template, *rows: tuple[int, ...]) -> ProblemSet:
    columns = np.array(rows, dtype=np.int64).reshape(-1, len(template.expression.operands))
    return ProblemSet.of(template, dict(zip(template.expression.operands, columns.T, strict=True)))


@cache
def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    return tiny_tokenizer(kind)


@cache
def real(directory: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(directory)


def text(template: Template, row: tuple[int, ...], prompting: Prompting, kind: str) -> str:
    return render(problems(template, row), prompting, tokenizer(kind))[0].text


# What is written


@pytest.mark.parametrize(
    ("style", "written"),
    [
        ("plain", "1+2=3\n12+30=42\n4+5="),
        ("spaced", "1 + 2 = 3\n12 + 30 = 42\n4 + 5 = "),
        ("comma", "1 + 2 = 3, 12 + 30 = 42, 4 + 5 = "),
        ("qa", "Q: What is 1 + 2?\nA: 3\n\nQ: What is 12 + 30?\nA: 42\n\nQ: What is 4 + 5?\nA: "),
    ],
)
def test_examples_come_before_the_question(style: str, written: str) -> None:
    shots = problems(SUM, (1, 2), (12, 30))
    assert text(SUM, (4, 5), Prompting(style, shots), "digits") == written


@pytest.mark.parametrize(
    ("style", "written"),
    [
        ("bare", "4-(5-6)="),
        ("plain", "4-(5-6)="),
        ("spaced", "4 - (5 - 6) = "),
        ("comma", "4 - (5 - 6) = "),
        ("qa", "Q: What is 4 - (5 - 6)?\nA: "),
    ],
)
@pytest.mark.parametrize("shots", [None, problems(NESTED)], ids=["none", "empty"])
def test_zero_shot(style: str, written: str, shots: ProblemSet | None) -> None:
    assert text(NESTED, (4, 5, 6), Prompting(style, shots), "digits") == written


@pytest.mark.parametrize(
    ("style", "written"),
    [
        ("plain", "Add up 1+2. 3\nAdd up 4+5. "),
        ("spaced", "Add up 1 + 2. 3\nAdd up 4 + 5. "),
        ("comma", "Add up 1 + 2. 3, Add up 4 + 5. "),
        ("qa", "Q: Add up 1 + 2.\nA: 3\n\nQ: Add up 4 + 5.\nA: "),
    ],
)
def test_a_wording_stands_as_it_is(style: str, written: str) -> None:
    shots = problems(COMPUTE, (1, 2))
    assert text(COMPUTE, (4, 5), Prompting(style, shots), "digits") == written


def test_a_chat_begins_the_models_turn() -> None:
    shots = problems(build_template("difference", "a-b"), (1, 3))
    assert text(shots.template, (4, 5), Prompting("chat", shots), "chat") == (
        "<|im_start|>system\nYou count.<|im_end|>\n"
        "<|im_start|>user\nWhat is 1 - 3?<|im_end|>\n"
        "<|im_start|>assistant\n1 - 3 = -2<|im_end|>\n"
        "<|im_start|>user\nWhat is 4 - 5?<|im_end|>\n"
        "<|im_start|>assistant\n4 - 5 = "
    )


@pytest.mark.parametrize("style", sorted(STYLES))
@pytest.mark.parametrize("expression", ["a+(b+c)", "(a+c)+b"])
def test_other_readings_of_a_prompt(expression: str, style: str) -> None:
    """A wording that writes an expression out is asked as one, whatever its values are."""
    rows = [{"a": 1, "b": 2, "c": 3}, {"a": 4, "b": 5, "c": 6}]

    def asked(expression: str, wording: str) -> str:
        template = build_template("sum", expression, wording)
        shot, drawn = (
            problems(template, tuple(row[name] for name in template.expression.operands))
            for row in rows
        )
        takes_shots = STYLES[style].takes_shots
        prompting = Prompting(style, shot if takes_shots else None)
        return render(drawn, prompting, tokenizer("chat"))[0].text

    wording = "{a} + {b} + {c}" if STYLES[style].spaced else "{a}+{b}+{c}"
    assert asked(expression, wording) == asked("a+b+c", "{expression}")


def test_an_expression_within_words_is_no_equation() -> None:
    for wording in ("({expression})", "{a} and {b}", "{a} + {b}."):
        written = text(build_template("sum", "a+b", wording), (4, 5), Prompting("qa"), "digits")
        assert written.startswith("Q: ")
        assert "What is" not in written


def test_a_chat_in_words_with_a_system_turn_of_ones_own() -> None:
    assert text(COINS, (9, 2), Prompting("chat", None, "Be brief."), "chat") == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nLena has 9 coins and spends 2. How many are left?<|im_end|>\n"
        "<|im_start|>assistant\nThe answer is "
    )


def test_the_chat_template_of_a_real_model(smollm2: Path) -> None:
    shots = problems(SUM, (1, 2))
    assert render(problems(SUM, (3, 5)), Prompting("chat", shots), real(smollm2))[0].text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nWhat is 1 + 2?<|im_end|>\n"
        "<|im_start|>assistant\n1 + 2 = 3<|im_end|>\n"
        "<|im_start|>user\nWhat is 3 + 5?<|im_end|>\n<|im_start|>assistant\n3 + 5 = "
    )


# Where the answer begins


@pytest.mark.parametrize(
    ("kind", "style", "end", "pad"),
    [
        ("digits", "plain", "=", ""),
        ("digits", "spaced", " = ", ""),
        ("numbers", "comma", " = ", ""),
        ("spaced", "plain", "=", ""),
        ("spaced", "spaced", " =", " "),  # the space belongs to the answer's token
        ("spaced", "qa", "?\nA:", " "),
        ("bos", "spaced", " = ", ""),
        ("chat", "chat", " = ", ""),
    ],
)
def test_the_prompt_ends_where_the_answers_tokens_begin(
    kind: str, style: str, end: str, pad: str
) -> None:
    frame = build_frame(NESTED, Prompting(style), tokenizer(kind))
    assert (frame.literals[-1], frame.pad, frame.takes_negatives) == (end, pad, True)


@pytest.mark.parametrize(
    ("expression", "shot", "style", "end", "takes_negatives"),
    [
        ("a+b", None, "spaced", " = ", False),  # a digit stands apart from the space before it
        ("a-b", None, "spaced", " =", True),  # a minus sign does not
        ("a+b", (-3, 2), "spaced", " =", True),
        ("a-b", None, "plain", "=", False),  # '=-' is one token
    ],
)
def test_a_real_tokenizer_that_splits_digits_but_merges_signs(
    smollm2: Path,
    expression: str,
    shot: tuple[int, int] | None,
    style: str,
    end: str,
    takes_negatives: bool,
) -> None:
    template = build_template("t", expression)
    shots = None if shot is None else problems(template, shot)
    frame = build_frame(template, Prompting(style, shots), real(smollm2))
    assert (frame.literals[-1], frame.takes_negatives) == (end, takes_negatives)


def test_the_frame_does_not_depend_on_problems() -> None:
    prompting = Prompting("spaced", problems(SUM, (1, 2)))
    together = render(problems(SUM, (4, 5), (-60, 700)), prompting, tokenizer("spaced"))
    alone = render(problems(SUM, (-60, 700)), prompting, tokenizer("spaced"))
    assert together[1:] == alone


# Spans


@settings(max_examples=25)
@given(
    text=st.sampled_from(EXPRESSIONS),
    style=st.sampled_from(sorted(STYLES)),
    n_shots=st.integers(0, 3),
    data=st.data(),
)
def test_spans_are_the_questions_own(
    text: str, style: str, n_shots: int, data: st.DataObject
) -> None:
    template = build_template("t", text)
    row = st.tuples(*[st.integers(1, 999)] * len(template.expression.operands))
    shots = problems(template, *data.draw(st.lists(row, min_size=n_shots, max_size=n_shots)))
    if not STYLES[style].takes_shots:
        shots = None
    drawn = problems(template, data.draw(row))
    prompt = render(drawn, Prompting(style, shots), tokenizer("chat"))[0]
    own = prompt.text.rindex("What is ") if style in ("qa", "chat") else 0
    if style in ("plain", "spaced"):
        own = prompt.text.rindex("\n") if "\n" in prompt.text else 0
    alone = template.render({name: int(n[0]) for name, n in drawn.operands.items()})
    for value, spans in prompt.spans.items():
        written = [prompt.text[slice(*span)].replace(" ", "") for span in spans]
        once = [alone.text[slice(*span)] for span in alone.spans[value]]
        assert written == once * (2 if style == "chat" else 1)
        assert own <= min(spans)[0]


def test_a_chat_has_its_question_in_both_turns() -> None:
    prompt = render(problems(NESTED, (41, 5, 6)), Prompting("chat"), tokenizer("chat"))[0]
    assert [prompt.text[slice(*span)] for span in prompt.spans["b-c"]] == ["5 - 6", "5 - 6"]
    assert [prompt.text[slice(*span)] for span in prompt.spans["a"]] == ["41", "41"]


@pytest.mark.parametrize(
    ("tight", "spaced"),
    [
        ("a-(b-c)", "a - (b - c)"),
        ("(a-b)-(c-d)", "(a - b) - (c - d)"),
        ("a--b", "a - -b"),
        ("-(a-b)*c", "-(a - b) * c"),
        ("max(a,b,c)//2", "max(a, b, c) // 2"),
        ("max((a-b),-c)%d", "max((a - b), -c) % d"),
        ("((a))-(-(b))", "((a)) - (-(b))"),
        ("a", "a"),
    ],
)
def test_spaces_around_operators(tight: str, spaced: str) -> None:
    expression = with_spaces(parse(tight))
    assert expression.source == spaced
    letters = {name: name for name in expression.operands}
    rendered, before = expression.render(letters), parse(tight).render(letters)
    for value, spans in rendered.spans.items():
        cut = [rendered.text[slice(*span)] for span in spans]
        assert [found.replace(" ", "") for found in cut] == [
            before.text[slice(*span)] for span in before.spans[value]
        ]
        assert all(found == found.strip() for found in cut)


# Configs


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_prompts(path: Path) -> None:
    keys = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(keys) - {"date"} == {"style", "shots", "system"}
    assert ("date" in keys) == (path.stem == "chat")
    assert keys["style"] == (None if path.stem == "own" else path.stem)
    if path.stem != "own":
        shots = problems(SUM, *[(1, 2)] * keys["shots"])
        assert render(problems(SUM, (1, 2)), Prompting(keys["style"], shots), tokenizer("chat"))


def test_there_is_a_config_for_every_style() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == {"own", *STYLES}


# Errors


def refused(prompting: Prompting, of: PreTrainedTokenizerFast, template: Template = SUM) -> str:
    with pytest.raises(UserError) as caught:
        render(problems(template, (1, 2)), prompting, of)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_styles() -> None:
    said = refused(Prompting("poem"), tokenizer("digits"))
    assert said == (
        "unknown prompt style 'poem'; expected one of: bare, plain, spaced, comma, qa, chat"
    )


@pytest.mark.parametrize("kind", [kind for kind in TOKENIZERS if kind != "chat"])
def test_a_chat_needs_a_chat_template(kind: str) -> None:
    said = refused(Prompting("chat"), tokenizer(kind))
    assert "a chat template for prompt.style=chat, got one without" in said
    assert said.endswith("choose prompt.style=spaced or plain")


def test_examples_are_of_the_same_template() -> None:
    said = refused(Prompting("plain", problems(COMPUTE, (1, 2))), tokenizer("digits"))
    assert "examples of the problems' template 'sum', got some of 'compute'" in said


def test_a_bare_problem_has_no_examples() -> None:
    said = refused(Prompting("bare", problems(SUM, (1, 2))), tokenizer("digits"))
    assert "no examples in style 'bare', got 1; set prompt.shots=0" in said


def test_a_system_turn_needs_a_chat() -> None:
    said = refused(Prompting("plain", None, "Be brief."), tokenizer("chat"))
    assert "no prompt.system in style 'plain', which has no turns, got 'Be brief.'" in said


def test_a_chat_template_that_takes_no_system_turn() -> None:
    of = tiny_tokenizer("chat")
    of.chat_template = (
        "{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('No system\nrole') }}{% endif %}"
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}model: "
    )
    assert render(problems(SUM, (1, 2)), Prompting("chat"), of)[0].text == (
        "user: What is 1 + 2?\nmodel: 1 + 2 = "
    )
    said = refused(Prompting("chat", None, "Be brief."), of)
    assert "takes system, user turns, got 'No system role'; leave prompt.system out" in said


def test_a_chat_template_that_repeats_the_question() -> None:
    of = tiny_tokenizer("chat")
    of.chat_template = "{{ messages[-1]['content'] }} {{ messages[-1]['content'] }}"
    said = refused(Prompting("chat"), of)
    assert "writes a question once, got it 2 times" in said


def test_slow_tokenizers() -> None:
    said = refused(Prompting("plain"), ByT5Tokenizer())
    assert "a fast tokenizer, which tells where its tokens stand" in said
    assert "got the slow ByT5Tokenizer" in said
