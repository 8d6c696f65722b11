"""Flags may stand anywhere among the overrides."""

import itertools
import sys

import pytest
from hydra._internal.utils import get_args_parser

from mech_arith.common.errors import UserError
from mech_arith.experiment.flags import (
    ALL_FLAGS,
    MAY_TAKE_A_VALUE,
    SWITCHES,
    TAKE_A_VALUE,
    own_folders,
    split_flags,
)
from tests.running import exit_code

TAKES = {0: SWITCHES, None: TAKE_A_VALUE, "?": MAY_TAKE_A_VALUE}
"""By `nargs` of argparse."""


def test_the_flags_are_hydras():
    theirs = {flag: a.nargs for a in get_args_parser()._actions for flag in a.option_strings}
    assert {flag: nargs for nargs, flags in TAKES.items() for flag in flags} == theirs
    assert len(ALL_FLAGS) == len(theirs)


def test_the_order_does_not_matter():
    parts = (["-m"], ["--config-dir", "mine"], ["--package=p"], ["layers=1"], ["~wandb"])
    for order in itertools.permutations(parts):
        flags, overrides = split_flags([argument for part in order for argument in part])
        assert sorted(overrides) == ["layers=1", "~wandb"]
        assert flags[flags.index("--config-dir") + 1] == "mine"
        assert sorted(flags) == ["--config-dir", "--package=p", "-m", "mine"]


def test_an_optional_value_is_no_override():
    assert split_flags(["--info", "layers=1"]) == (["--info"], ["layers=1"])
    assert split_flags(["--info", "config", "layers=1"]) == (["--info", "config"], ["layers=1"])


def test_folders_are_found_in_each_spelling():
    flags = ["--config-dir", "a", "-cd", "b", "--config-dir=c", "--config-name", "d"]
    assert [str(folder) for folder in own_folders(flags)] == ["a", "b", "c"]


@pytest.mark.parametrize("arguments", [["--config-dir"], ["--config-dir", "-m"]])
def test_a_flag_without_its_value_is_refused(arguments):
    with pytest.raises(UserError, match="expected a value after --config-dir, got none"):
        split_flags(arguments)


def test_a_folder_between_overrides_is_read(tmp_path, monkeypatch, capsys):
    (tmp_path / "template").mkdir()
    mine = tmp_path / "template" / "mine.yaml"
    mine.write_text("name: mine\nexpression: a*b-c\n", encoding="utf-8")
    between = ["layers=1", "--config-dir", str(tmp_path), "template=mine", "--cfg", "job"]
    monkeypatch.setattr(sys, "argv", ["mech_arith", *between, "problems.seed=7"])
    assert exit_code() == 0
    shown = capsys.readouterr().out
    assert "expression: a*b-c" in shown
    assert "seed: 7" in shown
