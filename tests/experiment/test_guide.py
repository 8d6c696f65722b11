"""What --help and --version print."""

import subprocess
import sys
from enum import Enum
from typing import get_type_hints

import pytest

from mech_arith import __main__ as entry
from mech_arith import __version__
from mech_arith.common.paths import conf_dir
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.guide import help_text
from mech_arith.models.kinds import POINTS, LayerPart

HELP = help_text()


def line_of(key: str) -> str:
    return next(line for line in HELP.splitlines() if line.strip().startswith(f"{key}:"))


def test_every_option_is_shown_with_what_it_is_for():
    for path in conf_dir().glob("*/*.yaml"):
        if path.parent.name != "train":
            about = next(
                line.removeprefix("# ")
                for line in path.read_text(encoding="utf-8").splitlines()
                if line.startswith("# ") and "@package" not in line
            )
            assert any(path.stem in line and about in line for line in HELP.splitlines()), path


def test_every_key_of_the_schema_is_shown():
    keys = HELP.partition("== Keys")[2]
    for section, kind in get_type_hints(RunConfig).items():
        assert f"\n{section}:" in keys
        if not issubclass(kind if isinstance(kind, type) else object, Enum) and hasattr(
            kind, "__dataclass_fields__"
        ):
            block = keys.partition(f"\n{section}:")[2]
            assert all(f"\n  {key}:" in block for key in get_type_hints(kind)), section


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("point", POINTS),
        ("part", LayerPart),
        ("device", ("auto", "cpu", "cuda")),
        ("dtype", ("auto", "float32", "bfloat16", "float16")),
        ("engine", ("auto", "full")),
        ("mode", ("online", "offline", "disabled")),
        ("style", ("bare", "chat", "comma", "plain", "qa", "spaced")),
        ("design", ("uniform", "decorrelated")),
        ("via", ("activations", "weights")),
    ],
)
def test_the_allowed_values_stand_beside_a_key(key, values):
    lines = [line for line in HELP.splitlines() if line.strip().startswith(f"{key}:")]
    assert any(all(value in line for value in values) for line in lines), lines


def test_comments_are_shown():
    assert "# of every interval" in line_of("level")
    assert "# other numbers tried for each problem and value" in line_of("sources")


def test_options_of_the_users_own_and_chosen_ones(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# My own model.\nname: mine\n", encoding="utf-8")
    text = help_text(["--help", "--config-dir", str(tmp_path), "model=mine"])
    assert "My own model." in text
    assert "\n  name: mine" in text


def test_the_version_is_ours(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mech_arith", "--version"])
    entry.main()
    assert capsys.readouterr().out == f"mech_arith {__version__}\n"


def test_help_is_printed_without_heavy_imports():
    program = (
        "import sys; from mech_arith import __main__ as m; m.main(); "
        "print([n for n in ('torch', 'pandas', 'wandb', 'sklearn') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("mech_arith finds where")
    assert done.stdout.endswith("[]\n")


def test_presets_in_a_folder_are_options_of_its_group():
    assert "\n  papers/zhu_2024" in HELP
    assert "\nexperiment/papers=" not in HELP
