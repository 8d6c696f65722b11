"""Files of a user's own: how they are found, and what is wrong with some of them."""

import shutil
from pathlib import Path

import pytest

from mech_arith.common import plugins
from mech_arith.common.errors import UserError
from mech_arith.common.plugins import load_plugins, plugin_digests
from mech_arith.experiment.config import InterventionConfig, RunConfig
from mech_arith.experiment.identity import identify
from mech_arith.interventions.edits import EDITS
from tests.running import SMALL, main

EDIT = """
from dataclasses import dataclass
from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.base import Edit

@EDITS.register({name!r})
@dataclass(frozen=True)
class Own(Edit):
    unit, no_change, is_affine = "share", 0.0, {affine}

    def moved(self, coordinate, strength, *, sd, wanted):
        return coordinate - 2 * strength * coordinate
"""


def written(path: Path, name: str, *, affine: bool = True) -> Path:
    path.write_text(EDIT.format(name=name, affine=affine), encoding="utf-8")
    return path


def test_a_file_is_found_from_here_and_from_the_users_folder(monkeypatch, tmp_path):
    (tmp_path / "conf").mkdir()
    own = written(tmp_path / "found.py", "found_twice")
    monkeypatch.chdir(tmp_path)
    assert load_plugins(["found.py"]) == [own]
    assert load_plugins(["../found.py"], [tmp_path / "conf"]) == [own]
    assert "found_twice" in EDITS.names()


def test_a_file_is_imported_once_wherever_it_lies(tmp_path):
    own = written(tmp_path / "once.py", "imported_once")
    copy = Path(shutil.copy(own, tmp_path / "copy.py"))
    load_plugins([str(own), str(own), str(copy)])
    assert plugin_digests([own]) == plugin_digests([own, copy])
    assert not (tmp_path / "__pycache__").exists()


def test_the_content_is_part_of_the_cell_and_the_place_is_not(tmp_path):
    one = written(tmp_path / "one.py", "in_the_cell")
    other = written(tmp_path / "other.py", "in_another_cell")
    copy = Path(shutil.copy(one, tmp_path / "copy.py"))
    load_plugins([str(one), str(other), str(copy)])

    def digest(*paths: Path) -> str:
        nothing = InterventionConfig(edit="none")
        named = [str(path) for path in paths]
        return identify(RunConfig(plugins=named, intervention=nothing)).digest

    assert digest(one) == digest(copy)
    assert len({digest(), digest(one), digest(other), digest(one, other)}) == 4
    assert digest(one, other) == digest(other, one)


BAD = {
    "x = (": r"expected Python in .*bad.py, got a syntax error in line 1: '\(' was never closed",
    "x = 1": "bad.py to register a tracing method, an edit, .* got a plugin that registers nothing",
    "\n1 / 0": r"an error in .*bad.py, line 2: ZeroDivisionError: division by zero; mend it",
    "from mech_arith.interventions.edits import WRONG": "bad.py, line 1: ImportError",
    "raise SystemExit(3)": "bad.py, line 1: SystemExit: 3",
    EDIT.format(name="scale", affine=True): "for this edit in .*bad.py, got 'scale'",
    "\0": "expected .*bad.py",
}


@pytest.mark.parametrize("content", BAD)
def test_what_cannot_be_imported_is_one_line_each_time(tmp_path, content):
    (tmp_path / "bad.py").write_text(content, encoding="utf-8")
    for _ in range(2):
        with pytest.raises(UserError, match=BAD[content]) as said:
            load_plugins([str(tmp_path / "bad.py")])
        assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("none.py", "expected a Python file at none.py .see plugins., found none in "),
        ("text.txt", "expected a Python file, NAME.py, in plugins, got text.txt"),
        (".", "expected a Python file, NAME.py, in plugins, got ."),
    ],
)
def test_what_is_no_python_file(monkeypatch, tmp_path, path, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=said):
        load_plugins([path])


def test_a_file_that_is_edited_meanwhile_counts_as_it_was(tmp_path):
    own = written(tmp_path / "edited.py", "edited_meanwhile")
    load_plugins([str(own)])
    before = plugin_digests([own])
    own.write_text("x = (", encoding="utf-8")
    load_plugins([str(own)])
    assert plugin_digests([own]) == before


@pytest.mark.parametrize("sweep", [False, True])
def test_a_bad_plugin_is_refused_before_a_directory_is_made(monkeypatch, tmp_path, capsys, sweep):
    assert main(monkeypatch, tmp_path, *SMALL, "plugins=[nowhere.py]", sweep=sweep) == 1
    assert "error: expected a Python file at nowhere.py" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_weights_carry_an_edit_that_is_affine_and_no_other(monkeypatch, tmp_path, capsys):
    plain = written(tmp_path / "plain.py", "plainly_bent", affine=False)
    asked = ["tracing.point=mlp_out", "tracing.positions=last", "intervention.via=weights"]
    asked += ["intervention.strengths=[0,1]", "layers=late"]
    given = [f"plugins=[{plain}]", "intervention.edit=plainly_bent"]
    assert main(monkeypatch, tmp_path, *SMALL, *given, *asked) == 1
    line = (tmp_path / "run" / "error.txt").read_text(encoding="utf-8")
    assert "with intervention.via=weights, got 'plainly_bent', which is no line in the" in line
    flip = written(tmp_path / "flip.py", "flipped")
    given = [f"plugins=[{flip}]", "intervention.edit=flipped"]
    assert main(monkeypatch, tmp_path, *SMALL, *given, *asked) == 0


def test_the_module_is_named_by_its_content(tmp_path):
    """The name is part of the keys of what the store has of it."""
    own = written(tmp_path / "module.py", "of_a_module")
    load_plugins([str(own)])
    (digest,) = plugin_digests([own])
    assert EDITS.module("of_a_module").__name__ == f"plugin_{digest[:16]}"
    assert plugins.plugin_digests([]) == []
