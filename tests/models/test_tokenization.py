from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast

from mech_arith.common.errors import UserError
from mech_arith.models.language.prompting import Prompting, render
from mech_arith.models.language.styles import STYLES
from mech_arith.models.language.tokenization import AnswerReader, tokenize
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet
from mech_arith.problems.templates import Template, build_template
from tests.lms import BOS, EOS, PRINTABLE, TOKENIZERS, smollm2, tiny_tokenizer
from tests.thinned import thinned

__all__ = ["smollm2"]  # a fixture

SUM = build_template("sum", "a+b")
NESTED = build_template("nested", "a-(b-c)")
COINS = build_template("coins", "a-b", "Lena has {a} coins and spends {b}. How many are left?")
NUMBERS = np.concatenate([np.arange(0, 12), [21, 99, 100, 123, 987]])
WAYS = [
    (kind, style)
    for kind in TOKENIZERS
    for style in STYLES
    if kind == "chat" or not STYLES[style].is_chat
]
"""Every tokenizer in every style that it can write."""
FAST = [
    *(("digits", "bare"), ("numbers", "plain"), ("spaced", "comma"), ("bos", "bare")),
    *(("bos", "qa"), ("chat", "spaced"), ("chat", "chat")),
]
"""Every tokenizer, every style, and the one that begins every prompt with a token of its own."""
each_way = pytest.mark.parametrize(("kind", "style"), thinned(WAYS, FAST))


def problems(template: Template, *rows: tuple[int, ...]) -> ProblemSet:
    columns = np.array(rows, dtype=np.int64).reshape(-1, len(template.expression.operands))
    return ProblemSet.of(template, dict(zip(template.expression.operands, columns.T, strict=True)))


def drawn(template: Template, n: int, seed: int = 0) -> ProblemSet:
    random = np.random.default_rng(seed)
    names = template.expression.operands
    return ProblemSet.of(template, {name: random.choice(NUMBERS, size=n) for name in names})


@cache
def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    return tiny_tokenizer(kind)


@cache
def real(directory: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(directory)


def prompting(style: str, template: Template) -> Prompting:
    return Prompting(style, drawn(template, 3, seed=9) if STYLES[style].takes_shots else None)


@cache
def reader(kind: str, style: str) -> AnswerReader:
    return AnswerReader(tokenizer(kind), prompting(style, NESTED))


def check_tokens(
    prompts: Prompts, drawn: ProblemSet, asked: Prompting, of: PreTrainedTokenizerFast
) -> None:
    """What must hold of all prompts, by the tokenizer's own word."""
    special = not STYLES[asked.style].is_chat
    rendered = render(drawn, asked, of)
    assert sorted(row for layout in prompts.layouts for row in layout.rows.tolist()) == list(
        range(len(drawn))
    )
    for layout in prompts.layouts:
        assert len(layout.labels) == layout.tokens.shape[1] > 0
        assert list(layout.spans) == list(drawn.template.expression.values)
        for row, tokens in zip(layout.rows.tolist(), layout.tokens, strict=True):
            whole = of(rendered[row].text, add_special_tokens=special)["input_ids"]
            assert prompts.prefix.tolist() + tokens.tolist() == whole
            for operand, numbers in drawn.operands.items():
                held = tokens[list(layout.spans[operand])].tolist()
                n_times = len(rendered[row].spans[operand])
                pieces = of.decode(held, clean_up_tokenization_spaces=False)
                assert pieces.replace(" ", "") == str(numbers[row]) * n_times


# Prompts


@each_way
@pytest.mark.parametrize("template", [NESTED, COINS], ids=["nested", "coins"])
def test_prompts_are_the_tokenizers_own(kind: str, style: str, template: Template) -> None:
    asked, asks = prompting(style, template), drawn(template, 40)
    prompts = tokenize(asks, asked, tokenizer(kind))
    check_tokens(prompts, asks, asked, tokenizer(kind))


@pytest.mark.parametrize("style", ["spaced", "comma", "qa", "chat"])
def test_prompts_of_a_real_tokenizer(smollm2: Path, style: str) -> None:
    for template in (NESTED, COINS):
        asked, asks = prompting(style, template), drawn(template, 30)
        check_tokens(tokenize(asks, asked, real(smollm2)), asks, asked, real(smollm2))


@each_way
def test_the_prefix_does_not_depend_on_the_problems(kind: str, style: str) -> None:
    asked = prompting(style, SUM)
    sets = [problems(SUM, row) for row in [(1, 2), (987, 1), (-5, 3), (12, 100)]]
    prefixes = {tuple(tokenize(asks, asked, tokenizer(kind)).prefix.tolist()) for asks in sets}
    (prefix,) = prefixes
    assert bool(prefix) == (style != "bare" or kind == "bos")


def test_the_prefix_holds_all_examples() -> None:
    asked = Prompting("plain", problems(SUM, (1, 2)))
    prompts = tokenize(problems(SUM, (4, 5)), asked, tokenizer("bos"))
    assert tokenizer("bos").decode(prompts.prefix.tolist()) == f"{BOS}1+2=3\n"
    assert tokenizer("bos").decode(prompts.layouts[0].tokens[0].tolist()) == "4+5="


def test_a_space_that_belongs_to_an_operand_is_not_in_the_prefix() -> None:
    asked = Prompting("comma", problems(SUM, (1, 2)))
    prompts = tokenize(problems(SUM, (4, 5)), asked, tokenizer("spaced"))
    assert tokenizer("spaced").decode(prompts.prefix.tolist()) == "1 + 2 = 3,"
    assert tokenizer("spaced").decode(prompts.layouts[0].tokens[0].tolist()) == " 4 + 5 ="


def test_layouts_by_hand() -> None:
    asks = problems(SUM, (12, 3), (4, 5), (6, 78), (9, 10), (7, 1))
    prompts = tokenize(asks, Prompting("plain"), tokenizer("digits"))
    assert [layout.rows.tolist() for layout in prompts.layouts] == [[1, 4], [2, 3], [0]]
    assert [layout.labels for layout in prompts.layouts] == [
        ("a", "+", "b", "="),
        ("a", "+", "b·0", "b·1", "="),
        ("a·0", "a·1", "+", "b", "="),
    ]
    assert [layout.spans for layout in prompts.layouts] == [
        {"a": (0,), "b": (2,), "a+b": (0, 1, 2)},
        {"a": (0,), "b": (2, 3), "a+b": (0, 1, 2, 3)},
        {"a": (0, 1), "b": (3,), "a+b": (0, 1, 2, 3)},
    ]
    assert tokenizer("digits").decode(prompts.layouts[1].tokens[1].tolist()) == "9+10="


def test_numbers_that_are_one_token_have_one_layout() -> None:
    asks = problems(NESTED, (1, 22, 333), (444, 5, 66))
    (layout,) = tokenize(asks, Prompting("spaced"), tokenizer("numbers")).layouts
    assert layout.labels == ("a", "␣", "-", "␣", "(", "b", "␣", "-", "␣", "c", ")", "␣", "=", "␣")
    assert layout.spans["b-c"] == (5, 6, 7, 8, 9)


def test_a_token_may_hold_an_operator_and_a_parenthesis() -> None:
    (layout,) = tokenize(
        problems(NESTED, (41, 5, 6)), Prompting("plain"), tokenizer("spaced")
    ).layouts
    assert layout.labels == ("a", "-(", "b", "-", "c", ")", "=")
    assert layout.spans == {
        "a": (0,),
        "b": (2,),
        "c": (4,),
        "b-c": (2, 3, 4),
        "a-(b-c)": (0, 1, 2, 3, 4, 5),
    }


def test_both_places_of_a_chats_question_are_labelled() -> None:
    (layout,) = tokenize(problems(SUM, (12, 3)), Prompting("chat"), tokenizer("chat")).layouts
    assert [label for label in layout.labels if label[0] in "ab" and label != "a"] == [
        *("a·0", "a·1", "b"),
        *("a·0", "a·1", "b"),
    ]
    assert layout.spans["b"][-1] == len(layout.labels) - 4  # `b`, space, `=`, space
    assert "\\n" in layout.labels


@each_way
def test_the_order_of_problems_changes_rows_alone(kind: str, style: str) -> None:
    asked, asks = prompting(style, NESTED), drawn(NESTED, 12)
    prompts = tokenize(asks, asked, tokenizer(kind))
    turned = tokenize(asks.take(np.arange(12)[::-1].copy()), asked, tokenizer(kind))
    for layout, other in zip(prompts.layouts, turned.layouts, strict=True):
        assert layout.rows.tolist() == [11 - row for row in reversed(other.rows.tolist())]
        assert torch.equal(layout.tokens, other.tokens.flip(0))
        assert (layout.labels, layout.spans) == (other.labels, other.spans)


def test_many_problems_in_parts_are_as_few() -> None:
    asks = drawn(SUM, 1100)
    prompts = tokenize(asks, Prompting("plain"), tokenizer("numbers"))
    (layout,) = prompts.layouts
    last = tokenize(asks.take(np.array([1099])), Prompting("plain"), tokenizer("numbers"))
    assert torch.equal(layout.tokens[1099:], last.layouts[0].tokens)


def test_a_chat_template_writes_the_only_bos() -> None:
    of = tiny_tokenizer("bos")
    of.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    prompts = tokenize(problems(SUM, (4, 5)), Prompting("chat"), of)
    assert of.decode(prompts.prefix.tolist()) == f"{BOS}What is "


def test_padding_and_truncation_set_before_play_no_part() -> None:
    of = tiny_tokenizer("digits")
    of("1+2", max_length=2, truncation=True, padding="max_length")
    asks = problems(SUM, (12, 3), (4, 5))
    prompts = tokenize(asks, Prompting("plain"), of)
    check_tokens(prompts, asks, Prompting("plain"), of)


def test_no_problems() -> None:
    prompts = tokenize(problems(SUM), prompting("plain", SUM), tokenizer("digits"))
    assert len(prompts) == 0
    assert len(prompts.prefix)


def sentencepiece() -> PreTrainedTokenizerFast:
    """As Llama 2's: a space before every text, characters as tokens, others as bytes."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *map(chr, range(33, 127))]
    merges = [("▁", "+"), ("▁", "=")]
    vocabulary = {word: i for i, word in enumerate([*words, "▁+", "▁="])}
    backend = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def test_the_space_that_sentencepiece_puts_before_a_text_is_no_operands() -> None:
    asks = problems(SUM, (12, 3))
    prompts = tokenize(asks, Prompting("plain"), sentencepiece())
    assert prompts.layouts[0].labels == ("a·0", "a·1", "+", "b", "=")
    assert len(prompts.prefix) == 1
    check_tokens(prompts, asks, Prompting("plain"), sentencepiece())


# Answers


@settings(max_examples=150)
@given(
    way=st.sampled_from(WAYS),
    number=st.integers(-(10**6), 10**6),
    end=st.sampled_from(["\n", ", ", " is", ".\n", "-x", "x", "=", "−x", EOS]),  # noqa: RUF001
)
def test_what_is_written_is_read(way: tuple[str, str], number: int, end: str) -> None:
    written, of = reader(*way), tokenizer(way[0])
    tokens = written.tokens(number)
    assert written.read(tokens) == (number, False)
    behind = of(end, add_special_tokens=False)["input_ids"]
    assert written.read([*tokens, *behind]) == (number, True)
    assert not written.is_cut([*tokens, *behind])
    assert written.text([*tokens, *behind]).strip() == f"{number}{end}".strip()
    assert written.read(()) == (None, False)
    assert len(tokens) + 1 <= written.longest(number) <= written.longest(10 * number)


@each_way
def test_answers_continue_the_prompts_of_all_problems(kind: str, style: str) -> None:
    asked, asks, of = prompting(style, NESTED), drawn(NESTED, 8), tokenizer(kind)
    prompts = tokenize(asks, asked, of)
    rendered = render(asks, asked, of)
    for layout in prompts.layouts:
        for row, tokens in zip(layout.rows.tolist(), layout.tokens.tolist(), strict=True):
            answer = int(asks.answers[row])
            whole = prompts.prefix.tolist() + tokens + list(reader(kind, style).tokens(answer))
            assert of.decode(whole).replace(BOS, "") in (
                f"{rendered[row].text}{answer}",
                f"{rendered[row].text} {answer}",
            )
            texts = [of.decode(whole).replace(BOS, "")]
            assert of(texts, add_special_tokens=not STYLES[style].is_chat)["input_ids"] == [whole]


@pytest.mark.parametrize(
    ("text", "number", "ended"),
    [
        ("", None, False),
        (" ", None, False),
        (" 8", 8, False),
        ("8\n", 8, True),
        (" -1", -1, False),
        ("−12, ", -12, True),  # noqa: RUF001
        ("- 1\n", -1, True),
        ("+1\n", 1, True),
        ("\n8", None, True),  # an empty answer, and the next example
        ("the answer is 8", None, True),
        ("1,234\n", 1234, True),
        ("**1 234**", 1234, True),
        ("8-3", None, True),
        (EOS, None, True),
        (f"8{EOS}", 8, True),
    ],
)
@pytest.mark.parametrize("kind", ["digits", "spaced"])
def test_reading(kind: str, text: str, number: int | None, ended: bool) -> None:
    tokens = tokenizer(kind)(text)["input_ids"]
    assert reader(kind, "plain").read(tokens) == (number, ended)


def test_a_minus_sign_that_comes_byte_by_byte() -> None:
    tokens = tokenizer("spaced")("−7")["input_ids"]  # noqa: RUF001
    assert len(tokens) == 4
    read = [reader("spaced", "spaced").read(tokens[:n]) for n in range(5)]
    assert read == [(None, False)] * 4 + [(-7, False)]


def test_answers_of_a_real_tokenizer(smollm2: Path) -> None:
    sums = AnswerReader(real(smollm2), prompting("spaced", SUM))
    words = real(smollm2).convert_ids_to_tokens
    assert words(list(sums.tokens(12))) == ["1", "2"]
    assert sums.tokens(-12) == ()  # the prompt ends in a space, and `Ġ-` is one token
    differences = AnswerReader(real(smollm2), prompting("spaced", NESTED))
    assert words(list(differences.tokens(12))) == ["Ġ", "1", "2"]
    assert words(list(differences.tokens(-12))) == ["Ġ-", "1", "2"]
    assert differences.read(differences.tokens(-12)) == (-12, False)
    assert sums.longest(999) >= len("-10,000,000, ")
    assert words(list(AnswerReader(real(smollm2), prompting("comma", SUM)).behind)) == [","]
    assert sums.behind == ()


@each_way
def test_what_the_examples_write_behind_an_answer_shows_that_it_has_ended(kind, style) -> None:
    """A comma may be a thousands separator: the answer has ended with the token behind it."""
    asks = reader(kind, style)
    assert asks.text(asks.behind) == ("," if style == "comma" else "")
    (space,) = tokenizer(kind)(" ", add_special_tokens=False)["input_ids"]
    if style == "comma":
        assert asks.read([*asks.tokens(8), *asks.behind]) == (8, False)
        assert asks.read([*asks.tokens(8), *asks.behind, space]) == (8, True)


def test_the_reader_takes_the_examples_template() -> None:
    of = tokenizer("spaced")
    assert AnswerReader(of, Prompting("plain")).tokens(7) == tuple(of("7")["input_ids"])
    for words in (Prompting("plain", problems(COINS)), Prompting("plain")):
        told = AnswerReader(of, words, template=COINS)
        assert told.tokens(7) == tuple(of(" 7")["input_ids"])
    assert AnswerReader(of, Prompting("plain", problems(COINS))).tokens(7) == told.tokens(7)


# Errors


def refused(asks: ProblemSet, asked: Prompting, of: PreTrainedTokenizerFast) -> str:
    with pytest.raises(UserError) as caught:
        tokenize(asks, asked, of)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def merging(*merges: str, post: processors.PostProcessor | None = None) -> PreTrainedTokenizerFast:
    """Characters as tokens, but for merged pairs."""
    words = [*PRINTABLE, EOS, *merges]
    backend = Tokenizer(
        BPE({word: i for i, word in enumerate(words)}, [(*pair,) for pair in merges])
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\n]+|\n"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    if post is not None:
        backend.post_processor = post
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS)


def test_an_operand_that_shares_its_token() -> None:
    said = refused(problems(SUM, (3, -5)), Prompting("plain"), merging("+-"))
    assert said == (
        "expected operand 'b' (-5) as tokens of its own, got the token text '+-5' (decoded '+-5'); "
        "choose another prompt.style, such as spaced, or another model"
    )
    asks = problems(SUM, (3, -5))
    check_tokens(
        tokenize(asks, Prompting("spaced"), merging("+-")), asks, Prompting("spaced"), merging("+-")
    )


def test_an_operand_that_decodes_to_something_else() -> None:
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate("012345+=?")}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    of = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?")
    said = refused(problems(SUM, (3, 7)), Prompting("plain"), of)
    assert "operand 'b' (7) as tokens of its own, got the token text '7' (decoded '?')" in said


def test_answers_that_merge_with_the_prompt() -> None:
    of = merging(*(f"={digit}" for digit in "0123456789"))
    assert (
        "the tokenizer merges the end of the prompt '=' with a number; choose another"
        in refused(problems(SUM, (3, 5)), Prompting("plain"), of)
    )
    assert len(tokenize(problems(SUM, (3, 5)), Prompting("spaced"), of)) == 1


def test_negative_answers_that_merge_with_the_prompt() -> None:
    difference = build_template("difference", "a-b")
    of = merging("=-")
    assert len(tokenize(problems(difference, (5, 3)), Prompting("plain"), of)) == 1
    assert AnswerReader(of, Prompting("plain")).tokens(-2) == ()
    said = refused(problems(difference, (5, 3), (3, 5)), Prompting("plain"), of)
    assert "no negative answers in prompt style 'plain'" in said
    assert "merges the end of the prompt with a minus sign, got 1 of 2" in said


def test_an_answer_that_no_probe_foresaw() -> None:
    said = refused(problems(SUM, (7, 70)), Prompting("plain"), rare())
    assert "the tokenizer merges the two in '7+70=77'; choose another prompt.style" in said


def rare() -> PreTrainedTokenizerFast:
    """Merges the equals sign with 77 alone."""
    words = [*PRINTABLE, "77", "=77"]
    merges = [("7", "7"), ("=", "77")]
    backend = Tokenizer(BPE({word: i for i, word in enumerate(words)}, merges))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_examples_whose_tokens_depend_on_the_problem() -> None:
    words = [*PRINTABLE, "77", "\n77", "=3", "3\n77", "3\n"]
    backend = Tokenizer(
        BPE({word: i for i, word in enumerate(words)}, [("7", "7"), ("\n", "77"), ("3", "\n77")])
    )
    backend.decoder = decoders.Fuse()
    of = PreTrainedTokenizerFast(tokenizer_object=backend)
    asked = Prompting("plain", problems(SUM, (1, 2)))
    assert len(tokenize(problems(SUM, (70, 2)), asked, of)) == 1
    said = refused(problems(SUM, (77, 2)), asked, of)
    assert "the same tokens before every problem, got others before" in said


def test_a_tokenizer_that_ends_texts() -> None:
    last = len(PRINTABLE)
    post = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, last)])
    said = refused(problems(SUM, (3, 5)), Prompting("plain"), merging(post=post))
    assert "a tokenizer that adds nothing behind a text, got one that adds '</s>'" in said


def test_a_tokenizer_that_does_not_decode() -> None:
    of = tiny_tokenizer("digits")
    of.backend_tokenizer.decoder = None  # tokens are then joined by spaces
    with pytest.raises(UserError, match=r"decodes the tokens of 10 to itself, got '1 0'; choose"):
        AnswerReader(of, Prompting("plain"))
