"""What is said of a baseline: how its answers were read, chance level, what edits would cost."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.engine.batching import Batching
from mech_arith.engine.reading import NO_TOKEN, force, read_written
from mech_arith.engine.run import ReferenceAnswers, run_baseline, write_on
from mech_arith.engine.session import Session
from mech_arith.engine.writing import Writing
from mech_arith.evidence.baseline import (
    SHOWN_TOKENS,
    chance_warnings,
    is_low,
    most_edits,
    written_answers,
)
from mech_arith.evidence.summary import Reported
from mech_arith.interventions.controls import Controls
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.run import InterventionPlan
from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.problems import draw_with_shots
from mech_arith.problems.templates import build_template
from tests.lms import tiny_lm
from tests.models.test_pretrained import model_in

TEMPLATE = build_template("sum", "a+b")
PROBLEMS, SHOTS = draw_with_shots(
    TEMPLATE, n=8, n_shots=3, ranges=dict.fromkeys("ab", (100, 999)), seed=0
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModel:
    return model_in(tiny_lm("llama", tmp_path_factory.mktemp("llama")), "comma", SHOTS)


@pytest.fixture(scope="module")
def reported(model: PretrainedModel) -> Reported:
    """A model that knows no arithmetic."""
    asked = ReferenceAnswers.of_problems(PROBLEMS)
    baseline = run_baseline(Session(model, Batching(3)), model.encode(PROBLEMS), asked)
    return Reported(baseline, 0.0, 8)


def answering(model: PretrainedModel, reported: Reported, *texts: str) -> Reported:
    """The same problems, had the model begun to write these texts."""
    tokens = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    read = [model.reader.read(row) for row in tokens]
    assert all(ended for _, ended in read)
    longest = max(map(len, tokens))
    written = torch.tensor([row + [NO_TOKEN] * (longest - len(row)) for row in tokens])
    numbers = torch.tensor([torch.nan if n is None else float(n) for n, _ in read]).double()
    answers = replace(reported.baseline.answers, numbers=numbers)
    return replace(reported, baseline=replace(reported.baseline, answers=answers, written=written))


# How answers were read


def test_the_baseline_keeps_what_was_written(model, reported):
    """Its tokens are those of the numbers that were read, and show that they have ended."""
    for row, number in enumerate(reported.baseline.answers.numbers.tolist()):
        read, ended = model.reader.read(reported.baseline.tokens(row))
        assert ended
        assert read == number or (read is None and number != number)
    assert torch.equal(reported.baseline.take(3).written, reported.baseline.written[:3])


def test_shares_and_examples_by_hand(model, reported):
    right = [f"{answer}, " for answer in PROBLEMS.answers.tolist()]
    texts = ["the sum", "1,23\n", right[2], right[3], right[4], "12 34\n", "12/3", right[7]]
    said = answering(model, reported, *texts)
    assert said.accuracy == 0.5
    found = written_answers(model, said, PROBLEMS)
    assert found is not None
    assert (found.not_a_number, found.cut) == (0.25, 0.25)
    first, second, third = found.examples  # of the wrong ones
    assert first.read is None
    assert first.written.startswith("the sum")
    assert (second.read, second.written) == (1, "1,23")
    assert (third.read, third.written) == (12, "12 34")
    assert third.problem == PROBLEMS.prompts()[5].text
    assert third.right == PROBLEMS.answers[5]
    line = str(found)
    assert line.startswith("25.0% of the answers are no number, 25.0% are cut at a separator; as ")
    assert f"{first.problem} -> '1,23' (read as 1, right is {second.right})" not in line
    assert f"{second.problem} -> '1,23' (read as 1, right is {second.right})" in line
    assert found.summary()["baseline_cut"] == 0.25
    assert found.summary()["baseline_written"][1]["written"] == "1,23"


def test_answers_with_thousands_separators_are_right(model, reported):
    texts = [f"{answer:,}, " for answer in PROBLEMS.answers.tolist()]
    assert any(text.count(",") == 2 for text in texts)
    said = answering(model, reported, *texts)
    assert said.accuracy == 1
    assert not is_low(said)
    found = written_answers(model, said, PROBLEMS)
    assert found is not None
    assert (found.not_a_number, found.cut) == (0, 0)
    assert [example.read for example in found.examples] == PROBLEMS.answers[:3].tolist()


def test_answers_go_on_as_the_model_would_write_them(model, reported):
    """The same tokens as the model's own greedy generation, which knows nothing of our reading."""
    baseline = reported.baseline
    longer = write_on(
        model, baseline.prompts, {1: baseline.tokens(1), 6: baseline.tokens(6)}, length=12
    )
    assert sorted(longer) == [1, 6]
    for layout in baseline.prompts.layouts:
        for row, tokens in zip(layout.rows.tolist(), layout.tokens, strict=True):
            if row not in longer:
                continue
            prompt = torch.cat([baseline.prompts.prefix, tokens])[None]
            with torch.inference_mode():
                theirs = model.network.generate(
                    prompt, max_new_tokens=12, min_new_tokens=12, do_sample=False, eos_token_id=None
                )
            assert longer[row] == tuple(theirs[0, prompt.shape[1] :].tolist())
    found = written_answers(model, reported, PROBLEMS)
    assert found is not None
    assert SHOWN_TOKENS > 12


class Following:
    """Rows that write the right answer, and then what the examples have behind it."""

    n_same = 0

    def __init__(self, tokens: torch.Tensor, width: int) -> None:
        self._logits = torch.nn.functional.one_hot(tokens, width).float()

    def read_outs(self):
        yield slice(None), self._logits

    def tails(self, rows):
        raise AssertionError("expected no step of its own")


def test_right_answers_take_no_step_of_their_own_though_a_comma_may_go_on(model):
    """`8,` may become `8,123`: the comma is fed, so that the token behind it is read at once."""
    asked = ReferenceAnswers.of_problems(PROBLEMS)
    forced = force(model, asked)
    (space,) = model.tokenizer(" ", add_special_tokens=False)["input_ids"]
    behind = torch.full((len(asked), 1), space)
    expected = torch.cat([forced.expected, behind], dim=1)
    expected[expected == NO_TOKEN] = space
    rows = Following(expected, model.width_out)
    writing = Writing(model.reader, bound=asked.bound, at_once=100)
    answers, written = read_written(model, rows, forced, writing, n_edits=1)
    writing.finish()
    assert torch.equal(answers.numbers[0], asked.right)
    texts = [model.reader.text(row) for row in written]
    assert texts == [f"{answer}, " for answer in PROBLEMS.answers.tolist()]


# Chance level, and what follows


def test_chance_level_says_what_the_edits_cost_and_how_to_stop(model, reported):
    (said,) = chance_warnings(model, reported, require_baseline=False, n_edits=1200)
    assert said.endswith(
        "what is traced here need not be arithmetic; up to 1,200 edits of 8 problems follow, 9,600 "
        "edited answers: require_baseline=true would stop here"
    )
    (said,) = chance_warnings(model, reported, require_baseline=False, n_edits=0)
    assert said.endswith("need not be arithmetic")
    with pytest.raises(UserError, match="expected a model that answers the problems, but"):
        chance_warnings(model, reported, require_baseline=True, n_edits=0)


@pytest.mark.parametrize(
    ("plan", "n_edits"),
    [
        # 3 values, each with a component of its own: itself, 4 random, 2 span, 3 valueless,
        # 2 other, 1 shuffled
        (
            InterventionPlan(find_edit("scale"), (0.0, 2.0), controls=Controls(4, 2, 3)),
            5 * 3 * 13 * 2,
        ),
        # component 0 is the best for one value at most in each of the sums over components
        (
            InterventionPlan(
                find_edit("scale"),
                (0.0,),
                components=(0, 1),
                controls=Controls(0, 0, 0, other=False, shuffled=False),
            ),
            5 * 2,
        ),
        # 2 values, 3 sources of each
        (
            InterventionPlan(
                find_edit("interchange"),
                (1.0,),
                values=("a", "b"),
                controls=Controls(1, 0, 0, other=False, shuffled=False),
            ),
            5 * 2 * 2 * 3,
        ),
    ],
)
def test_the_most_edits_by_hand(plan: InterventionPlan, n_edits: int) -> None:
    assert most_edits(plan, n_sites=5, n_values=3, n_components=4) == n_edits


@pytest.mark.slow
def test_a_whole_cell_says_it_in_the_log_the_warnings_and_the_summary(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tests.experiment.test_language_cells import run

    summary = run(monkeypatch, tmp_path, tiny_lm("llama", tmp_path / "llama"))
    (said,) = [warning for warning in summary["warnings"] if "as written" in warning]
    assert re.match(r"\d+\.\d% of the answers are no number, \d+\.\d% are cut at a separator", said)
    assert said in (tmp_path / "run" / "mech_arith.log").read_text(encoding="utf-8")
    assert 0 <= summary["baseline_cut"] <= 1 - summary["baseline_not_a_number"]
    assert len(summary["baseline_written"]) == 3
    for example in summary["baseline_written"]:
        assert set(example) == {"problem", "right", "written", "read"}
        assert eval_sum(example["problem"]) == example["right"]
        assert f"{example['problem']} -> {example['written']!r}" in said


def eval_sum(problem: str) -> int:
    return sum(map(int, problem.split("+")))
