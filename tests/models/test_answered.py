"""Prompts with right answers behind them: which positions they have, and what is refused."""

import numpy as np
import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.engine.sites import Site, name_positions
from mech_arith.models.answered import check_answers, encode_for
from mech_arith.models.prompts import NO_TOKEN, Prompts, names_answer
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.tiny import tiny_decoder, tiny_encoder

SPANS = {"a": (0,), "b": (2,)}
PROMPTS = Prompts.uniform(torch.arange(12).view(3, 4), ("a", "-", "b", "="), SPANS)
LABELS = ("sign", "units", "tens")
EVEN = PROMPTS.answered([(1, 2, 3), (4, 5, 6), (7, 8, 9)], LABELS)
UNEVEN = PROMPTS.answered([(1, 2, 3), (4,), (7, 8)], LABELS)
PROBLEMS = draw(build_template("d", "a-b"), n=9, ranges=dict.fromkeys("ab", (1, 999)), seed=0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("answer.0", (3,)),
        ("answer.1", (4,)),
        ("answer.2", (5,)),
        ("answer", (3, 4, 5)),
        ("all+answer", (0, 1, 2, 3, 4, 5)),
        ("all", (0, 1, 2, 3)),
        ("5", (5,)),
    ],
)
def test_positions_of_the_answer_go_on_from_the_prompts_last_one(name, expected):
    assert EVEN.positions(name) == (expected,)
    assert name_positions(name, EVEN) == [name]
    assert names_answer(name) == ("answer" in name)


def test_a_position_is_behind_the_right_answers_tokens_before_it():
    (layout,) = EVEN.layouts
    assert [layout.n_before(f"answer.{token}") for token in range(3)] == [0, 1, 2]
    assert layout.n_before("all+answer") == 2
    assert layout.n_before("all") == 0
    assert layout.with_answer(2)[1].tolist() == [4, 5, 6, 7, 4, 5]
    assert EVEN.whole(layout, n_answer=1)[2].tolist() == [8, 9, 10, 11, 7]
    assert [EVEN.single(f"answer.{token}") for token in range(3)] == [
        (3, "="),
        (4, "sign"),
        (5, "units"),
    ]


def test_the_first_position_of_the_answer_is_the_prompts_last_one_in_the_store():
    for prompts in (EVEN, UNEVEN):
        assert Site(1, "z", "answer.0").key(prompts) == Site(1, "z", "last").key(PROMPTS)
    other = PROMPTS.answered([(1, 2, 3), (4, 5, 6), (9, 8, 9)], LABELS)
    keys = [Site(1, "z", "answer.1").key(prompts) for prompts in (EVEN, other)]
    assert keys[0][2][0] == keys[1][2][0] == [4]
    assert keys[0] != keys[1]
    assert EVEN.digest() == PROMPTS.digest()
    assert Site(1, "z", "all").key(EVEN) == Site(1, "z", "all").key(PROMPTS)


def test_answers_of_unlike_lengths_share_their_first_position():
    assert UNEVEN.positions("answer.0") == ((3,),)
    assert UNEVEN.layouts[0].answer is not None
    assert UNEVEN.layouts[0].answer[1].tolist() == [4, NO_TOKEN, NO_TOKEN]
    with pytest.raises(
        UserError,
        match=r"right answer of every problem has, of 1 to 3 tokens, got 'answer.1'; choose "
        r"answer\.0$",
    ):
        UNEVEN.positions("answer.1")
    for name in ("answer", "all+answer"):
        with pytest.raises(
            UserError,
            match=rf"one length for positions '{name.replace('+', '.')}', got 1 to 3 tokens; "
            r"choose answer\.0, which all problems have, or problems\.constraints",
        ):
            UNEVEN.positions(name)


def test_the_lengths_of_all_layouts_count():
    first, last = (EVEN.layouts[0].part(slice(2)), UNEVEN.layouts[0].part(slice(2, None)))
    both = Prompts(EVEN.prefix, (first, last))
    assert both.positions("answer.1") == ((4,), (4,))
    with pytest.raises(UserError, match=r"got 2 to 3 tokens; choose answer\.0 to answer\.1, which"):
        both.positions("answer")


@pytest.mark.parametrize("name", ["answer.9", "answer.3", "9"])
def test_positions_beyond_the_longest_answer_are_refused(name):
    said = r"of 3 tokens, got 'answer\.\d'; choose answer\.0 to answer\.2"
    with pytest.raises(UserError, match=said):
        EVEN.positions(name)


@pytest.mark.parametrize("name", ["answer.-1", "answer.x", "answer.", "answer.1.5"])
def test_positions_that_are_no_number_are_refused(name):
    with pytest.raises(
        UserError, match=r"position of the answer .*: answer, answer.each, all\+answer, answer.0"
    ):
        EVEN.positions(name)


def test_parts_and_joined_prompts_keep_their_own_answers():
    (layout,) = EVEN.layouts
    part = layout.part(torch.tensor([2, 0]))
    assert part.answer is not None
    assert part.answer.tolist() == [[7, 8, 9], [1, 2, 3]]
    (joined,) = EVEN.joined(UNEVEN).layouts
    assert joined.answer is not None
    assert joined.answer[:, 0].tolist() == [1, 4, 7, 1, 4, 7]
    assert joined.answer_lengths == (1, 3)


def test_a_model_that_writes_has_its_right_answers_behind_its_prompts():
    model = tiny_decoder()
    prompts = encode_for(model, PROBLEMS, ["all", "answer.2"], digits=3)
    (layout,) = prompts.layouts
    assert layout.answer is not None
    for row, answer in enumerate(PROBLEMS.answers.tolist()):
        assert tuple(layout.answer[row].tolist()) == model.reader.tokens(answer)
    assert [prompts.single(f"answer.{t}")[1] for t in range(5)] == ["=", "sign"] + [
        f"10^{power}" for power in range(3)
    ]
    assert encode_for(model, PROBLEMS, ["all"]).layouts[0].answer is None


def test_a_model_that_regresses_has_no_position_of_an_answer():
    with pytest.raises(
        UserError,
        match=r"expected a model that writes its answer for positions 'answer\.1', got "
        "tiny_encoder, which regresses one number; choose last",
    ):
        encode_for(tiny_encoder(), PROBLEMS, ["answer.1"])


def test_prompts_without_answers_say_how_to_get_them():
    with pytest.raises(ValueError, match="right answers behind the prompts, got none"):
        PROMPTS.positions("answer")


def test_answers_are_checked_by_themselves():
    check_answers([(1, 2), (3, 4)], ["answer", "answer.1"])
    with pytest.raises(UserError, match="got 0 to 2 tokens"):
        check_answers([(1, 2), ()], ["answer"])
    check_answers([(1, 2), ()], ["answer.0"])


def test_answers_stay_with_their_problems_when_some_are_taken():
    model = tiny_decoder()
    some = encode_for(model, PROBLEMS.take(np.arange(4)), ["answer"])
    every = encode_for(model, PROBLEMS, ["answer"]).take(4)
    assert some.layouts[0].answer is not None
    assert every.layouts[0].answer is not None
    assert torch.equal(some.layouts[0].answer, every.layouts[0].answer)
