"""The problems of a cell one by one, against the model asked by hand."""

import logging
import math
import re

import pandas as pd
import pytest
import torch

from mech_arith.engine.run import ReferenceAnswers
from mech_arith.evidence.problems import NO_END, NO_NUMBER, UNANSWERED
from mech_arith.evidence.results import load_run
from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.models.base import Model
from mech_arith.models.language.prompting import render
from mech_arith.problems import ProblemSet, draw_with_shots, split
from mech_arith.problems.templates import build_template
from tests.experiment.test_cell import plan, run
from tests.lms import tiny_lm
from tests.models.test_pretrained import model_in
from tests.running import SMALL, main
from tests.tiny import PlantedModel, tiny_encoder

COLUMNS = [
    *("split", "problem", "prompt_text", "operands", "values", "right"),
    *("edited", "reason", "written", "answer", "correct"),
]


def drawn(expression: str, *, n: int, low: int, high: int, n_shots: int = 0):
    """Both splits, and the examples."""
    template = build_template("t", expression)
    ranges = dict.fromkeys(template.expression.operands, (low, high))
    problems, shots = draw_with_shots(template, n=n, n_shots=n_shots, ranges=ranges, seed=0)
    return *split(problems, fit_share=0.5, seed=0), shots


def asked_by_hand(model: Model, problems: ProblemSet, row: int) -> tuple[str | None, float]:
    """What a model writes behind one prompt, a whole pass for each token, and its number."""
    alone = ProblemSet.of(
        problems.template, {name: numbers[[row]] for name, numbers in problems.operands.items()}
    )
    prompts = model.encode(alone, digits=3)
    tokens = prompts.whole(prompts.layouts[0])
    if model.reader is None:
        return None, float(model.full_pass(tokens, {}))
    written: list[int] = []
    longest = model.reader.longest(ReferenceAnswers.of_problems(problems).bound)
    while not model.reader.read(written)[1] and len(written) < longest:
        more = torch.tensor([[*tokens[0].tolist(), *written]])
        written.append(int(model.full_pass(more, {})[0, -1].argmax()))
    number = model.reader.read(written)[0]
    return model.reader.text(written), math.nan if number is None else number


def assert_rows(table: pd.DataFrame, fit: ProblemSet, report: ProblemSet) -> None:
    """The rows are the problems, in their order, and the fit split is not answered."""
    assert list(table.columns) == COLUMNS
    for name, problems in (("fit", fit), ("report", report)):
        rows = table.loc[table["split"] == name]
        assert rows["problem"].tolist() == list(range(len(problems)))
        for row in rows.to_dict(orient="records"):
            at, expression = row["problem"], problems.template.expression
            operands = {operand: int(numbers[at]) for operand, numbers in problems.operands.items()}
            assert row["operands"] == operands
            assert row["values"] == {
                value: int(numbers[0])
                for value, numbers in expression.hypothesis.evaluate(
                    {operand: problems.operands[operand][[at]] for operand in operands}
                ).items()
            }
            assert row["right"] == row["values"][expression.answer]
    unanswered = table.loc[table["split"] == "fit"]
    assert unanswered[["written", "answer", "correct"]].isna().all(axis=None)
    assert set(unanswered["reason"]) == {UNANSWERED}
    assert not unanswered["edited"].any()


def test_a_decoder_answers_as_if_asked_by_hand():
    model = load_arithmetic("arith_decoder")
    fit, report, _ = drawn("a-(b-c)", n=60, low=1, high=999)
    table = run(model, fit, report, plan(intervention=None)).tables["problems"]
    assert_rows(table, fit, report)
    rows = table.loc[table["split"] == "report"].to_dict(orient="records")
    for row in rows[:8]:
        assert asked_by_hand(model, report, row["problem"]) == (row["written"], row["answer"])
    # A sign, and four digits of which the units come first.
    assert all(re.fullmatch(r"[-+]\d{4}", row["written"]) for row in rows)
    assert all(int(row["written"][0] + row["written"][:0:-1]) == row["answer"] for row in rows)
    assert [row["correct"] for row in rows] == [row["answer"] == row["right"] for row in rows]
    assert sum(row["correct"] for row in rows) > 20
    a, b, c = (rows[0]["operands"][name] for name in "abc")
    assert rows[0]["prompt_text"].endswith(f"{a:03}-({b:03}-{c:03})=")


def test_an_encoder_writes_nothing_and_answers_with_a_number():
    model = tiny_encoder()
    fit, report, _ = drawn("a-(b-c)", n=40, low=1, high=99)
    asked = plan(intervention=None, tolerance=50.0)
    table = run(model, fit, report, asked).tables["problems"]
    assert_rows(table, fit, report)
    rows = table.loc[table["split"] == "report"].to_dict(orient="records")
    for row in rows:
        assert pd.isna(row["written"])
        _, number = asked_by_hand(model, report, row["problem"])
        assert row["answer"] == pytest.approx(number, rel=1e-4)
        assert row["correct"] == (abs(row["answer"] - row["right"]) <= 50)
        assert row["reason"] == ""
        a, b, c = row["operands"].values()
        assert row["prompt_text"] == f"[CLS]{a:03}-({b:03}-{c:03})"  # as it is read: three digits
    assert {row["correct"] for row in rows} == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tokenizer", "style", "reasons"),
    [("spaced", "comma", {"", NO_NUMBER, NO_END}), ("chat", "chat", {"", NO_NUMBER})],
)
def test_a_language_model_answers_as_if_asked_by_hand(tmp_path, caplog, tokenizer, style, reasons):
    fit, report, shots = drawn("a-b", n=40, low=1, high=99, n_shots=3)
    model = model_in(tiny_lm("llama", tmp_path, tokenizer=tokenizer), style, shots)
    caplog.set_level(logging.INFO, logger="mech_arith.experiment.cell")
    asked = plan(intervention=None, digits=2)
    table = run(model, fit, report, asked).tables["problems"]
    assert_rows(table, fit, report)
    whole = [prompt.text for prompt in render(report, model.prompting, model.tokenizer)]
    rows = table.loc[table["split"] == "report"].to_dict(orient="records")
    for row in rows:
        at = row["problem"]
        written, number = asked_by_hand(model, report, at)
        assert row["correct"] is False
        if row["reason"] == NO_END:  # given up, where reading by hand goes on
            assert written.startswith(row["written"])
            assert number > 10 ** len(str(row["right"]))
            assert math.isnan(row["answer"])
            continue
        assert row["written"] == written
        assert row["answer"] == pytest.approx(number, nan_ok=True)
        assert row["reason"] == (NO_NUMBER if math.isnan(number) else "")
        # Behind the examples, which all prompts share.
        assert whole[at].endswith(row["prompt_text"])
        a, b = row["operands"].values()
        assert f"{a} - {b}" in row["prompt_text"]
    assert {row["reason"] for row in rows} == reasons
    shown = [str(n) for n in shots.answers.tolist()]
    assert all(answer in whole[0] and answer not in rows[0]["prompt_text"] for answer in shown)
    said = [r.args for r in caplog.records if r.msg.startswith("the first prompt, whole")]
    assert said == [(whole[0],)]


def test_the_edited_problems_are_marked_and_tokens_without_characters_are_worded():
    fit, report, _ = drawn("a-(b-c)", n=60, low=100, high=999)
    table = run(PlantedModel(), fit, report, plan()).tables["problems"]
    assert_rows(table, fit, report)
    rows = table.loc[table["split"] == "report"]
    assert rows["edited"].tolist() == [True] * 20 + [False] * 10
    assert rows["correct"].all()
    assert rows["answer"].tolist() == pytest.approx(report.answers.tolist(), abs=0.5)
    assert rows["prompt_text"].tolist() == [prompt.text for prompt in report.prompts()]
    traced = run(PlantedModel(), fit, report, plan(intervention=None)).tables["problems"]
    assert not traced["edited"].any()


@pytest.mark.slow
def test_a_run_leaves_its_problems_and_logs_one_whole_prompt(monkeypatch, tmp_path):
    directory = tiny_lm("llama", tmp_path / "llama")
    overrides = (
        *("model=hf_dir", f"model.path={directory}", "template=sum_of_two", "prompt.shots=2"),
        *("problems.operands={min:1,max:9}", "problems.n=40", "tracing.n_components=3"),
        *("tracing.positions=last", "tracing.position_map=false", "intervention=none"),
    )
    small = [one for one in SMALL if one.split("=")[0] not in " ".join(overrides)]
    assert main(monkeypatch, tmp_path, *small, *overrides) == 0
    found = load_run(tmp_path / "run").tables["problems"]
    assert len(found) == 40
    first = found.loc[found["split"] == "report"].iloc[0]
    log = (tmp_path / "run" / "mech_arith.log").read_text(encoding="utf-8")
    (whole,) = re.findall(r"the first prompt, whole: '(.*)'", log)
    assert whole.endswith(first["prompt_text"])
    assert re.fullmatch(
        r"\d \+ \d = \d+, \d \+ \d = \d+, ", whole.removesuffix(first["prompt_text"])
    )
    assert first["operands"]["a"] + first["operands"]["b"] == first["right"]
    on_disk = pd.read_parquet(tmp_path / "run" / "problems.parquet")
    assert on_disk.loc[on_disk["split"] == "fit", "written"].isna().all()
    assert on_disk["reason"].notna().sum() >= 20
