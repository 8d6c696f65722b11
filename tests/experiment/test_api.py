"""From Python one gets what the command line computes."""

import subprocess
import sys

import pandas as pd
import pytest
import torch

from mech_arith import compose, load_run
from mech_arith.common.errors import UserError
from mech_arith.experiment import api
from tests.lms import tiny_lm
from tests.running import SMALL, main


def test_a_cell_gives_what_the_command_line_writes(monkeypatch, tmp_path):
    asked = [*SMALL, "layers=2-3"]
    assert main(monkeypatch, tmp_path, *asked) == 0
    written = load_run(tmp_path / "run").tables
    tables = compose(*asked, f"store.path={tmp_path}/other").run()
    assert tables.keys() == written.keys()
    for name, table in tables.items():
        made_by = ["model", "template", "expression", "prompt", "seed", "dtype"]
        made_by += ["weights_digest", "identity"]
        same = [column for column in table if column not in made_by]
        pd.testing.assert_frame_equal(table[same], written[name][same])


def test_the_package_has_the_names_of_the_api():
    import mech_arith

    for name in ("compose", "find_runs", "load_run", "read_objective", "read_sweep"):
        assert getattr(mech_arith, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="no attribute 'composed'"):
        mech_arith.composed  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, mech_arith; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pandas", "hydra", "transformers"} & set(found.stdout.split())


def test_activations_and_their_subspace():
    cell = compose("problems.n=40", "tracing.n_components=3", "store.enabled=false")
    fit = cell.activations(layer=2, position="last")
    assert fit.shape == (20, 128)
    assert cell.activations(layer=2, split="report").shape[0] == 20
    found = cell.subspace(layer=2, position="last")
    assert torch.allclose(found.directions @ found.directions.mT, torch.eye(3).double())
    assert torch.allclose(found.project(fit).mean(0), torch.zeros(3).double(), atol=1e-6)
    assert cell.session.model is cell.session.model


def test_a_template_brings_its_operands_and_a_table_names_the_frequencies():
    """The command of the tutorial, on fewer problems, against the truth that the tutorial shows."""
    asked = ["model=modular_addition", "template=modular_sum", "tracing=fourier_modulus"]
    asked += ["tracing.point=resid_pre", "tracing.positions=a", "tracing.rank=[2,6]"]
    asked += ["problems.n=400", "intervention=none", "tracing.position_map=false"]
    cell = compose(*asked, "inference.permutations=100", "store.enabled=false")
    assert cell.settings.problems.operands == {"min": 0, "max": 96}
    subspaces = cell.run()["subspaces"].query("value == 'a'").set_index("rank")
    assert subspaces["periods"].to_dict() == {2: "97/12", 6: "97/12 97/35 97/33"}
    fewer = compose(*asked, "tracing=pca", "problems.operands.max=50")
    assert fewer.settings.problems.operands == {"min": 0, "max": 50}


def test_rows_are_in_the_order_of_the_problems(tmp_path):
    """Numbers of one and of two digits are run apart; each problem gets its own row."""
    directory = tiny_lm("llama", tmp_path / "lm", tokenizer="digits")
    cell = compose(
        "model=hf_dir",
        f"model.path={directory}",
        "template=sum_of_two",
        "prompt=comma",
        "problems.operands={min:5,max:15}",
        "problems.n=40",
        "store.enabled=false",
    )
    found = cell.activations(layer=0, point="resid_pre", position="a.last", split="report")
    last_digit = cell.problems("report").values["a"] % 10
    for digit in set(last_digit):
        rows = found[torch.from_numpy(last_digit == digit)]
        assert torch.equal(rows, rows[:1].expand_as(rows))  # the embedding of that digit
    assert len(found.unique(dim=0)) == len(set(last_digit))
    with pytest.raises(UserError, match="positions 'all' with as many tokens"):
        cell.activations(layer=0, position="all")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (lambda cell: cell.activations(layer=4), "a layer from 0 to 3, got 4"),
        (lambda cell: cell.subspace(layer=0, rank=0), "n_components >= 1, got 0"),
        (lambda cell: cell.activations(layer=0, point="resid"), "unknown point 'resid'"),
        (lambda cell: cell.activations(layer=0, position="d"), "unknown position 'd'"),
        (lambda cell: cell.problems("test"), "unknown split 'test'; expected one of: fit, report"),
    ],
)
def test_what_cannot_be_had_is_said(asked, expected):
    with pytest.raises(UserError, match=expected):
        asked(compose("problems.n=40", "store.enabled=false"))


@pytest.mark.parametrize("override", ["problems.m=3", "model=gpt3", "problems.n=[b>c]"])
def test_overrides_are_refused_as_on_the_command_line(monkeypatch, tmp_path, capsys, override):
    assert main(monkeypatch, tmp_path, override) == 1
    said = capsys.readouterr().err
    with pytest.raises(UserError) as caught:
        compose(override)
    assert said == f"error: {caught.value}\n"
