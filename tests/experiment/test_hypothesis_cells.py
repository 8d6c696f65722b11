"""Cells with hypotheses: their values are traced and edited, and rivals compared, end to end."""

import json
from pathlib import Path

import pandas as pd
import pytest

from mech_arith import compose
from mech_arith.evidence.hypothesis_summary import at_best
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.names import check_one_meaning
from tests.running import SMALL, main

ASKED = (
    *SMALL,
    "layers=[2]",
    "tracing.positions=last",
    "tracing.position_map=false",
    "intervention=interchange",
    "intervention.controls.valueless=1",
)
STEPS = '["ones: a%10+b%10","carry: ones//10","tens: a//10+b//10+carry","answer: tens*10+ones%10"]'
SUM = ("template=sum_of_two", "problems.operands={min:10,max:99}")


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *overrides: str) -> Path:
    assert main(monkeypatch, tmp_path, *ASKED, *overrides) == 0
    return tmp_path / "run"


def test_rivals_are_compared_in_tables_summary_and_figure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(monkeypatch, tmp_path, "hypothesis=left_to_right")
    table, evidence = (
        pd.read_parquet(found / f"{name}.parquet") for name in ("hypotheses", "evidence")
    )
    assert set(evidence["value"]) == {"a", "b", "c", "a-b", "b-c", "a-(b-c)"}
    compared = set(zip(table["value"], table["rival_value"], strict=True))
    assert compared == {("a-b", "b-c"), ("b-c", "a-b")}
    assert (table["n_distinguishing"] > 0.8 * table["n_pairs"]).all()
    summary = json.loads((found / "summary.json").read_text())
    (names, pair) = next(iter(summary["hypotheses"].items()))
    assert names == "left_to_right or tree"
    assert pair["n_comparisons"] == len(at_best(table, evidence)) == 2
    printed = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "Which algorithm do the interventions support, and where?" in printed
    assert f"{names.split()[0]} or" in printed
    assert pair["text"].split(" (")[0] in printed
    assert pair["supports"] == "tie"
    assert set(pair["share"]) == set(pair["floor"]) == {"left_to_right", "tree"}
    assert summary["cell"]["hypothesis"] == "left_to_right"
    assert (found / "figures" / "hypotheses.png").is_file()
    drawn = pd.read_csv(found / "figures" / "hypotheses.csv")
    assert sorted(drawn["value"]) == ["a-b", "b-c"]


def test_digits_compete_with_the_operands_and_are_drawn_in_their_largest_rank(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = ("tracing=mean_difference", "tracing.rank=[1,4]", "tracing.position_map=false")
    values = "intervention.values=[ones,ones_carry]"
    found = run(monkeypatch, tmp_path, *SUM, "hypothesis=digits", *asked, values)
    table = pd.read_parquet(found / "hypotheses.parquet")
    compared = set(zip(table["value"], table["rival"], table["rival_value"], strict=True))
    assert compared == {(v, "tree", o) for v in ("ones", "ones_carry") for o in "ab"}
    drawn = pd.read_csv(found / "figures" / "hypotheses.csv")
    # Two classes span one direction.
    assert set(zip(drawn["value"], drawn["rank"], strict=True)) == {("ones", 4), ("ones_carry", 1)}


def test_steps_of_ones_own_are_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = run(monkeypatch, tmp_path, *SUM, f"hypothesis.steps={STEPS}")
    evidence = pd.read_parquet(found / "evidence.parquet")
    assert set(evidence["value"]) == {"a", "b", "ones", "carry", "tens", "a+b"}
    carry = evidence.set_index("value").loc["carry"]
    assert carry["n_classes"] == 2
    assert carry["class_accuracy_low"] <= carry["class_accuracy"] <= 1
    assert evidence.set_index("value").loc["a", ["n_classes"]].isna().all()
    assert "name: custom" in (found / "config.yaml").read_text()
    assert not (found / "hypotheses.parquet").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("hypothesis=digit",), "digit"),
        (("hypothesis.rivals=[treee]",), "unknown hypothesis.rule 'treee'"),
        (("hypothesis.rivals=[tree]",), "unlike names, got 'tree' twice"),
        (("hypothesis.rivals=[{name: x, steps: 3}]",), "got {'name': 'x', 'steps': 3}; write"),
        (("hypothesis.rivals=[{name: x, rule: digits, options: 3}]",), "'options': 3}; write"),
        (("hypothesis.steps=['answer: a-b']",), "expected hypothesis 'custom' to compute a-(b-c)"),
        (("hypothesis.steps='answer: a'",), "expected hypothesis.steps as a list of texts"),
        (("hypothesis=modulo", "hypothesis.options={moduli:[4,6]}"), "hypothesis.options.moduli"),
        (("hypothesis=digits", "template=product_of_two"), "does not apply to 'a*b'"),
        (("hypothesis.name=''",), "expected a name of the hypothesis"),
        (("intervention.values=[a-b]",), "unknown value 'a-b'"),
        (
            ("tracing=fourier", "tracing.options.periods=[nan]"),
            "a finite number in tracing.options",
        ),
    ],
)
def test_bad_input_is_one_line_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...],
    said: str,
) -> None:
    assert main(monkeypatch, tmp_path, *ASKED, "model=hf_dir", "model.path=/no", *overrides) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in last
    assert last.startswith("error:")


def steps(*texts: str) -> str:
    return "[" + ",".join(f'"{text}"' for text in (*texts, "answer: a-(b-c)")) + "]"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            (f"hypothesis.steps={steps('x: a-b')},{steps('x: a-c')}",),
            "got 'custom' for '[x: a-b, answer: a-(b-c)]' and for '[x: a-c, answer: a-(b-c)]'; ",
        ),
        (
            ("hypothesis=modulo", "hypothesis.options.moduli=[10],[2,5,10]"),
            "got 'modulo' for 'modulo(moduli=[10])' and for 'modulo(moduli=[2, 5, 10])'; name each",
        ),
        (
            (
                f"hypothesis.rivals=[{{name: mine, steps: {steps('x: a-b')}}}],"
                f"[{{name: mine, steps: {steps('x: a-c')}}}]",
            ),
            "got 'mine' for '[x: a-b",
        ),
        (
            ("hypothesis=tree,digits", "hypothesis.rivals=[],[{name: tree, rule: modulo}]"),
            "got 'tree' for 'tree()' and for 'modulo(moduli=[2, 5, 10])'",
        ),
    ],
)
def test_one_name_for_two_hypotheses_of_a_sweep_is_one_line_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...],
    said: str,
) -> None:
    nowhere = ("model=hf_dir", "model.path=/no")
    assert main(monkeypatch, tmp_path, *ASKED, *nowhere, *overrides, sweep=True) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: expected hypotheses of unlike names in a sweep, got ")
    assert said in line
    assert line.endswith("'sweep.together=[hypothesis.name,hypothesis.steps]'")
    assert not (tmp_path / "run").exists()


def of_cell(*overrides: str) -> RunConfig:
    return compose(*overrides).settings


def test_names_tell_the_hypotheses_of_a_sweep_apart() -> None:
    one, two = steps("x: a-b"), steps("x: a-c")
    named = ("hypothesis.name=one", f"hypothesis.steps={one}")
    check_one_meaning([of_cell(*named), of_cell("hypothesis.name=two", f"hypothesis.steps={two}")])
    # The same one may stand in many cells, as a rival with its defaults too.
    modulo = of_cell("hypothesis=modulo")
    check_one_meaning([modulo, of_cell("hypothesis.rivals=[modulo]"), of_cell("layers=1"), modulo])
    # Of another template it is another one anyway.
    other = of_cell("hypothesis.name=one", f"hypothesis.steps={two}", "template.expression=a-b+c")
    check_one_meaning([of_cell(*named), other])
