import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mech_arith.common.errors import UserError
from mech_arith.common.paths import checkpoints_dir
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.models.arithmetic.checkpoints import card_text, read_card, write_checkpoint
from mech_arith.models.arithmetic.loading import load_arithmetic, shipped_models
from mech_arith.models.arithmetic.networks import DecoderShape
from mech_arith.models.arithmetic.objectives import draw_operands
from mech_arith.models.arithmetic.tokens import (
    ARITHMETIC,
    AnswerFormat,
    DigitOrder,
    Negatives,
    SignPlace,
    encode_expression,
)
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.tiny import tiny_decoder, tiny_encoder, tiny_pre_norm_encoder

ROOT = Path(__file__).resolve().parents[2]
NESTED = build_template("nested", "a-(b-c)")
formats = st.builds(
    AnswerFormat,
    st.just(4),
    st.sampled_from(list(SignPlace)),
    st.sampled_from(list(DigitOrder)),
    st.sampled_from(list(Negatives)),
)


def problems(expression="a-(b-c)", n=20, low=100, high=999):
    template = build_template("t", expression)
    return draw(
        template, n=n, ranges=dict.fromkeys(template.expression.operands, (low, high)), seed=3
    )


@given(formats, st.lists(st.integers(-9999, 9999), min_size=1, max_size=20))
def test_answers_survive_being_written_and_read(answer_format, numbers):
    answers = torch.tensor(numbers)
    read = [answer_format.read(tokens) for tokens in answer_format.encode(answers).tolist()]
    assert read == [(number, True) for number in numbers]


@pytest.mark.parametrize(
    ("answer_format", "written"),
    [
        (AnswerFormat(), "-7300"),
        (AnswerFormat(sign=SignPlace.LAST), "7300-"),
        (AnswerFormat(digits=DigitOrder.UNITS_LAST), "-0037"),
        (AnswerFormat(negatives=Negatives.COMPLEMENT, sign=SignPlace.LAST), "3699-"),
    ],
)
def test_how_minus_37_is_written(answer_format, written):
    tokens = answer_format.encode(torch.tensor([-37]))[0].tolist()
    assert "".join(ARITHMETIC.tokens[token] for token in tokens) == written
    assert len(answer_format.labels()) == answer_format.length
    # One by one as all together.
    for number in (-9999, -37, -1, 0, 5, 120, 9999):
        together = answer_format.encode(torch.tensor([number]))[0]
        assert answer_format.tokens(number) == tuple(together.tolist())
    assert answer_format.tokens(10**4) == ()


def test_what_is_no_number_is_not_guessed():
    right = AnswerFormat().encode(torch.tensor([5]))
    for place, token in ((0, "3"), (2, "+"), (4, "_")):
        broken = right.clone()
        broken[0, place] = ARITHMETIC.id(token)
        assert AnswerFormat().read(broken[0].tolist()) == (None, True)
    assert AnswerFormat().read(right[0, :-1].tolist()) == (None, False)


def test_answer_format_errors():
    with pytest.raises(UserError, match=r"at most 4 digits, got 12345"):
        AnswerFormat().encode(torch.tensor([12345]))
    with pytest.raises(UserError, match=r"unknown answer\.sign 'middle'; expected one of: first"):
        AnswerFormat.named(width=4, sign="middle", digits="units_first", negatives="magnitude")


def test_prompts_are_the_problems_digits():
    drawn = problems(n=5)
    tokens = encode_expression(NESTED.expression, drawn.operands, vocabulary=ARITHMETIC, width=3)
    for row, prompt in zip(tokens.tolist(), drawn.prompts(width=3), strict=True):
        assert "".join(ARITHMETIC.tokens[token] for token in row) == prompt.text


@pytest.mark.parametrize("make", [tiny_decoder, tiny_encoder, tiny_pre_norm_encoder])
def test_spans_cover_the_text_they_name(make):
    model = make()
    drawn = problems(n=4)
    prompts = model.encode(drawn)
    (layout,) = prompts.layouts
    assert len(layout.labels) == layout.tokens.shape[1]
    for row, text in zip(layout.tokens.tolist(), drawn.prompts(width=3), strict=True):
        for value, ((start, end), *_) in text.spans.items():
            span = "".join(model.vocabulary.tokens[row[i]] for i in layout.spans[value])
            assert span == text.text[start:end]
    assert layout.labels[layout.spans["b"][0]] == "b·100"


def test_short_prompts_end_where_long_ones_do():
    model = tiny_decoder()
    short, long = (model.encode(problems(text)).layouts[0].tokens for text in ("a-b", "a-(b-c)"))
    assert short.shape == long.shape
    assert (short[:, :5] == ARITHMETIC.id("_")).all()


def test_what_a_model_cannot_read():
    with pytest.raises(UserError, match=r"at most 14 tokens for tiny_decoder, got 20"):
        tiny_decoder().encode(problems("(a+b)-(c-d)"))
    with pytest.raises(UserError, match=r"prompt of the characters .* got '\*'"):
        tiny_encoder().encode(problems("a*b"))
    worded = build_template("shop", "a-b", "Of {a} apples {b} are sold.")
    drawn = draw(worded, n=3, ranges={"a": (10, 99), "b": (1, 9)}, seed=0)
    with pytest.raises(
        UserError, match="symbolic template for tiny_decoder, got the worded one 'shop'"
    ):
        tiny_decoder().encode(drawn)
    with pytest.raises(UserError, match=r"operands in 0..999 .* got a in -5..-5"):
        encode_expression(
            NESTED.expression,
            {name: np.array([-5 if name == "a" else 7]) for name in "abc"},
            vocabulary=ARITHMETIC,
            width=3,
        )


def test_unknown_model_lists_the_shipped_ones():
    assert shipped_models() == ["arith_decoder", "arith_encoder", "modular_addition"]
    with pytest.raises(
        UserError, match="unknown model 'gpt5'; expected one of: arith_decoder, arith"
    ):
        load_arithmetic("gpt5")


def saved(tmp_path):
    model = tiny_decoder()
    shape = DecoderShape(**model.card.facts["shape"])
    training = {
        "sparse_share": 0.5, "seed": 0, "steps": 1, "batch_size": 1, "learning_rate": 0.1,
        "warmup_steps": 1, "seconds": 60, "hardware": "none", "threads": 1, "torch": "2",
        "pretrained": None, "held_out_problems": 1,
    }  # fmt: skip
    card = type(model.card)(**{**vars(model.card), "training": training})
    write_checkpoint(tmp_path, shape.network(seed=0).state_dict(), card, dtype=torch.float32)
    return tmp_path


def test_a_saved_model_comes_back(tmp_path):
    directory = saved(tmp_path)
    first, again = (load_arithmetic("mine", directory=directory) for _ in range(2))
    tokens = first.encode(problems()).layouts[0].tokens
    assert torch.equal(first.full_pass(tokens, {}), again.full_pass(tokens, {}))
    assert first.digest == read_card(directory).digest
    assert (directory / "CARD.md").read_text(encoding="utf-8").startswith("# tiny_decoder")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"",
    ],
    ids=["truncated", "altered", "empty"],
)
def test_damaged_weights_are_refused(tmp_path, damage):
    directory = saved(tmp_path)
    weights = directory / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(UserError, match="truncated or altered; reinstall or train the model"):
        load_arithmetic("mine", directory=directory)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"expected a model in .* train one with"):
        load_arithmetic("mine", directory=tmp_path)
    directory = saved(tmp_path)
    (directory / "model.safetensors").unlink()
    with pytest.raises(UserError, match="expected weights at"):
        load_arithmetic("mine", directory=directory)
    card = json.loads((directory / "card.json").read_text(encoding="utf-8"))
    (directory / "card.json").write_text(json.dumps({**card, "kind": "oracle"}), encoding="utf-8")
    with pytest.raises(UserError, match="unknown kind of model 'oracle'"):
        load_arithmetic("mine", directory=directory)


BARS = {
    "arith_decoder": dict.fromkeys(("a-(b-c)", "(a-b)-c", "a+(b-c)", "a-b"), 0.99),
    "arith_encoder": {"a-(b-c)": 0.9995},
}


@pytest.mark.parametrize("name", BARS)
def test_cards_state_the_bars(name):
    card = read_card(checkpoints_dir() / name)
    report = card.held_out["operands_100_to_max"]
    headline = {text: next(iter(row.values())) for text, row in report.items()}
    assert set(card.templates) == set(headline)
    for text, bar in BARS[name].items():
        assert headline[text] >= bar
    if card.kind == "encoder":
        assert min(headline.values()) >= 0.995
    else:
        assert all(
            card.held_out["operands_all"][text]["accuracy"] >= bar
            for text, bar in BARS[name].items()
        )
    limit = {"arith_decoder": 10e6, "arith_encoder": 24e6}[name]
    assert (checkpoints_dir() / name / "model.safetensors").stat().st_size <= limit


@pytest.mark.parametrize("name", shipped_models())
def test_shipped_weights_have_a_licence_that_card_and_notice_name(name):
    directory = checkpoints_dir() / name
    card, page = read_card(directory), (directory / "CARD.md").read_text(encoding="utf-8")
    title = "Apache License" if card.training["pretrained"] else "MIT License"
    assert (directory / "LICENSE").read_text(encoding="utf-8").strip().startswith(title)
    assert f"\n| licence | [{title}](LICENSE) |\n" in page
    assert page == card_text(card, directory)
    assert f"\n{name}\n" in (ROOT / "NOTICE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", BARS)
@pytest.mark.slow
def test_shipped_models_answer_held_out_problems_as_their_cards_say(name):
    model = load_arithmetic(name)
    row = model.card.held_out["operands_100_to_max"]["a-(b-c)"]
    operands = draw_operands(
        ("a", "b", "c"), 500, low=100, high=999, rng=np.random.default_rng(99), want_held_out=True
    )
    drawn = type(problems()).of(NESTED, operands)
    asked = ReferenceAnswers.of_problems(drawn)
    baseline = run_baseline(Session(model), model.encode(drawn), asked)
    error = (baseline.answers.numbers - asked.right).abs()
    if model.regresses:
        assert float(error.median()) == pytest.approx(row["median_abs_error"], rel=0.3)
        assert (error <= model.tolerance).double().mean() >= 0.92
    else:
        assert (error == 0).double().mean() >= 0.98
