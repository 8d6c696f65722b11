"""A sweep over several methods asks which of them finds what the model uses."""

import pytest

from mech_arith.__main__ import hydra_arguments
from mech_arith.common.runs.sweeps import SweepPlan, write_plan
from mech_arith.experiment.comparing import METHODS

SWEEP = ("-m", "tracing=pca,pls,ridge,fourier,das", "model=arith_decoder,arith_encoder")


def test_a_sweep_over_methods_asks_for_iia_against_rank(capsys):
    assert hydra_arguments(SWEEP) == [*SWEEP, METHODS]
    assert "name an intervention, tracing.rank or an experiment" in capsys.readouterr().err


@pytest.mark.parametrize(
    "own",
    ["intervention=scale", "intervention=none", "+experiment=paper", "tracing.rank=[1,2]"],
)
def test_what_the_command_line_asks_goes_first(own, capsys):
    assert METHODS not in hydra_arguments([*SWEEP, own])
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["tracing=pca"],
        ["-m", "tracing=das", "layers=early,late"],
        ["-m", "tracing=pca,pca_last,pca_each"],
        ["-m", "tracing=pls", "tracing.positions=all,last"],
    ],
)
def test_one_method_is_no_comparison(arguments):
    assert METHODS not in hydra_arguments(arguments)


def test_a_users_own_method_is_compared(tmp_path):
    folder = tmp_path / "tracing"
    folder.mkdir()
    (folder / "mine.yaml").write_text("defaults:\n  - pca\n  - _self_\nmethod: mine\n")
    (folder / "mine_last.yaml").write_text("defaults:\n  - mine\n  - _self_\npositions: last\n")
    flags = ["-m", "--config-dir", str(tmp_path)]
    assert METHODS in hydra_arguments([*flags, "tracing=pca,mine"])
    assert METHODS in hydra_arguments([*flags, "tracing=pca,mine_last"])
    assert METHODS not in hydra_arguments([*flags, "tracing=mine,mine_last"])


def test_a_sweep_that_goes_on_asks_what_it_has_asked(tmp_path):
    plan = SweepPlan(("tracing=pca,pls", "layers=[1]"), (), (), ())
    write_plan(tmp_path, plan)
    assert METHODS not in hydra_arguments([f"sweep.resume={tmp_path}"])
