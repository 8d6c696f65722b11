"""The measurement of prompt styles, on a random model and on numbers worked out by hand."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.engine.answers import Answers
from mech_arith.engine.run import Baseline, ReferenceAnswers
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet
from tests.lms import tiny_lm

SCRIPT = Path(__file__).parents[2] / "scripts" / "prompt_styles.py"


@pytest.fixture(scope="module")
def styles() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prompt_styles", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["prompt_styles"] = module  # where dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


def run(styles: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["prompt_styles.py", *arguments])
    try:
        styles.main()
    finally:
        torch.set_num_threads(threads)


def answered(styles: ModuleType, numbers: Sequence[float]) -> tuple[Baseline, ProblemSet]:
    """1+1, 2+1, 5+6 and 1+2, and what was said to them."""
    template = styles.parse_case("a+b:0..9").template
    columns = np.array([[1, 2, 5, 1], [1, 1, 6, 2]])
    problems = ProblemSet.of(template, dict(zip("ab", columns, strict=True)))
    half = torch.full((4,), 0.5).double().log()
    said = Answers(torch.tensor(numbers).double(), half, torch.zeros(4).double())
    prompts = Prompts(torch.empty(0, dtype=torch.int64), ())
    written = torch.empty(4, 0, dtype=torch.int64)
    return Baseline(prompts, ReferenceAnswers.of_problems(problems), said, written), problems


def test_a_case_is_read(styles: ModuleType) -> None:
    case = styles.parse_case("a-b:-2..9:a>=b")
    assert str(case.template.expression) == "a-b"
    assert case.ranges == {"a": (-2, 9), "b": (-2, 9)}
    assert case.n_possible == 12 * 13 // 2
    assert styles.parse_case("a+b+c:0..3").n_possible == 64


@pytest.mark.parametrize("text", ["a+b", "a+b:9", "a+b:0-9", "a+b:0..x", "a+b:..9"])
def test_a_case_that_is_written_otherwise(styles: ModuleType, text: str) -> None:
    with pytest.raises(UserError, match=r"expected a template as EXPRESSION:LOW\.\.HIGH"):
        styles.parse_case(text)


def test_all_problems_that_there_are_but_the_examples(styles: ModuleType) -> None:
    case = styles.parse_case("a-b:0..9:a>=b")
    problems, examples = styles.drawn(case, n=200, shots=4, seed=0)
    texts = [prompt.text for some in (problems, examples) for prompt in some.prompts()]
    assert (len(problems), len(examples)) == (51, 4)
    assert len(set(texts)) == 55
    assert len(styles.drawn(case, n=20, shots=4, seed=0)[0]) == 20


def test_too_many_examples(styles: ModuleType) -> None:
    with pytest.raises(UserError, match="expected 2 distinct problems and 15 few-shot examples"):
        styles.drawn(styles.parse_case("a+b:0..3"), n=200, shots=15, seed=0)


def test_numbers_worked_out_by_hand(styles: ModuleType) -> None:
    # Right answers 2, 3, 11, 3: the most frequent, 3, is right in half the cases.
    baseline, problems = answered(styles, [2, 3, 10, float("nan")])
    found = styles.measure(baseline, template="t", style="s", shots=0, seed=0)
    assert (found.accuracy, found.floor, found.unparsable, found.n) == (0.5, 0.5, 0.25, 4)
    assert found.digit_accuracy == (1 + 1 + 0.5 + 0) / 4
    assert found.right_probability == pytest.approx(0.5)
    assert found.p == pytest.approx(11 / 16)  # 2 or more heads of 4
    assert styles.wrong_answers(baseline, problems) == ["5+6=10", "1+2=nan"]


def test_a_style_is_judged_by_the_mean_over_its_seeds(styles: ModuleType) -> None:
    rows = []
    for seed, numbers in enumerate(([2, 3, 11, 3], [2, 0, 0, 0])):
        baseline, _ = answered(styles, numbers)
        rows.append(styles.measure(baseline, template="t", style="s", shots=4, seed=seed))
    summary = styles.summarised(rows).iloc[0]
    assert tuple(summary[["seeds", "accuracy", "lowest", "highest"]]) == (2, 0.625, 0.25, 1)
    assert summary["p"] == max(row.p for row in rows)


def test_the_table_has_the_best_first(styles: ModuleType) -> None:
    rows = []
    for style, numbers in (("worse", [2, 0, 0, 0]), ("better", [2, 3, 11, 3])):
        baseline, _ = answered(styles, numbers)
        rows.append(styles.measure(baseline, template="t", style=style, shots=4, seed=0))
    assert list(styles.table(rows).columns[1].cells) == ["better", "worse"]


def test_from_the_command_line(
    styles: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tiny_lm("llama", tmp_path / "model")
    asked = ("--templates", "a+b:0..3", "--styles", "bare,plain", "--shots", "0,2", "--seeds", "2")
    csv = tmp_path / "out.csv"
    run(styles, monkeypatch, "--model-path", str(model), "--csv", str(csv), "--show", *asked)
    rows = pd.read_csv(csv)
    # Without examples all 16 problems are asked, whatever the seed; bare takes no examples.
    cells = [("bare", 0, 0, 16), ("plain", 0, 0, 16), ("plain", 2, 0, 14), ("plain", 2, 1, 14)]
    columns = ["style", "shots", "seed", "n"]
    assert list(rows[columns].itertuples(index=False, name=None)) == cells
    shown = capsys.readouterr().out
    assert "a+b:0..3 plain, 2 shots, seed 1" in shown
    assert "\\n" in shown, "a prompt with its examples"
    assert "baseline by template and prompt" in shown


def test_a_cell_that_cannot_be_asked_stands_beside_the_others(
    styles: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 15 examples leave one problem of the 16, and there is no statistic of one.
    model, csv = tiny_lm("llama", tmp_path / "model"), tmp_path / "out.csv"
    asked = ("--templates", "a+b:0..3", "--styles", "plain", "--shots", "1,15", "--seeds", "1")
    run(styles, monkeypatch, "--model-path", str(model), "--csv", str(csv), *asked)
    measured, failed = pd.read_csv(csv).to_dict(orient="records")
    assert measured["n"] == 15
    assert np.isnan(failed["accuracy"])
    assert "expected 2 distinct problems and 15 few-shot examples" in failed["reason"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--styles", "chatty"), "unknown prompt style 'chatty'"),
        (("--templates", "a+b"), "expected a template as"),
        (("--model-path", "nowhere"), "nowhere"),
        (("--styles", "chat", "--shots", "0"), "expected a cell that can be measured, got none"),
    ],
)
def test_one_line_for_the_user(
    styles: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    model = tiny_lm("llama", tmp_path / "model")
    with pytest.raises(SystemExit) as end:
        run(styles, monkeypatch, "--model-path", str(model), *arguments)
    assert message in str(end.value)
    assert len(str(end.value).splitlines()) == 1
