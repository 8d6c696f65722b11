"""README is the front door: what it says to type works, and what it shows is there."""

import re
import shlex
from pathlib import Path

import pytest

from mech_arith.results import find_runs
from tests.running import SMALL, main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    {
        re.sub(r" hydra\.(run|sweep)\.dir=\S+", "", line.split("#")[0]).strip()
        for line in re.findall(r"(?:^    |`)(python -m mech_arith(?= |$|`)[^`\n]*)", README, re.M)
    }
)
OF_THE_USERS_OWN = (
    *("--help", "model=trained", "model=hf_dir", "sweep.resume", "hydra/launcher=", "save_model="),
)
"""What needs a directory of the user's, SLURM or many processes; other tests run those."""
RUNNABLE = [
    command for command in COMMANDS if not any(part in command for part in OF_THE_USERS_OWN)
]


def test_readme_is_short():
    assert README.count("\n") < 300
    assert "@@" not in README


def test_there_are_commands_to_run():
    assert "python -m mech_arith" in RUNNABLE
    assert any("+experiment=paper" in command for command in RUNNABLE)
    assert any(" -m model=" in command for command in RUNNABLE)


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNNABLE)
def test_commands_run_on_fewer_problems(monkeypatch, tmp_path, command):
    overrides = shlex.split(command)[3:]
    sweep = "-m" in overrides
    own = [o for o in overrides if o != "-m"]
    small = [o for o in SMALL if o != "wandb=disabled"]
    extra = ["wandb=disabled", "locality.n_problems=4", *small]
    if any("smollm2" in o for o in own):
        extra += ["layers.step=15", "tracing.position_map=false"]
    if "+experiment=paper" in own:
        extra += ["layers.step=3", "tracing.position_map=false", "intervention.sources=1"]
        extra += ["model=arith_decoder"] if sweep else []
    if any(o.startswith("+experiment") for o in own):
        extra[0] = "wandb.mode=disabled"
    assert main(monkeypatch, tmp_path, *own, *extra, sweep=sweep) == 0
    expected = 4 if "+experiment=quickstart" in own else 1
    expected = 2 if sweep and "+experiment=paper" in own else expected
    for override in own if sweep else []:
        expected *= override.count(",") + 1
    assert len(find_runs(tmp_path / "run")) == expected


def test_python_examples_run():
    examples = re.findall(r"```python\n(.*?)```", README, re.S)
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})


def test_make_targets_and_files_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^    |`)make ([a-z-]+)", README, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_sweep_of_the_quickstart_is_the_one_that_readme_counts():
    quickstart = (ROOT / "conf" / "experiment" / "quickstart.yaml").read_text(encoding="utf-8")
    lists = re.findall(r"^      \w+: (.*,.*)$", quickstart, re.M)
    cells = 1
    for options in lists:
        cells *= len(options.split(","))
    assert cells == 4
