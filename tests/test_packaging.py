"""The wheel is whole: installed elsewhere, it runs without the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
CHECKPOINTS = ROOT / "mech_arith" / "models" / "arithmetic" / "checkpoints"
pytestmark = pytest.mark.slow


def _run(*command: str | Path, cwd: Path) -> str:
    """The standard output of a command that must succeed, run with no trace of the checkout."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV", "PYTEST"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout; without isolation, so without a network."""
    dist = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", dist, cwd=ROOT)
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an environment `.venv` that holds the wheel and its dependencies.

    The dependencies are not downloaded anew (two gigabytes): a .pth file shows the environment the
    packages that already stand here. An editable installation of this project among them stays
    unseen, because Python reads the .pth files of a directory only where that directory is itself
    a site directory. `--no-index` shows that nothing else is fetched: pip finds each dependency
    that the wheel declares, at a version that its bounds and the constraints allow.
    """
    directory = tmp_path_factory.mktemp("elsewhere")
    venv.create(directory / ".venv", with_pip=False)
    python = directory / ".venv" / "bin" / "python"
    purelib = _run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=directory
    )
    (Path(purelib.strip()) / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    # First the wheel by force, because the same version may be visible already; then with all that
    # it needs.
    _run(*pip, "install", "--no-index", "--no-deps", "--force-reinstall", wheel, cwd=directory)
    _run(
        *pip,
        *("install", "--no-index", "--constraint", ROOT / "constraints.txt", wheel),
        cwd=directory,
    )
    return directory


def _python(elsewhere: Path) -> Path:
    return elsewhere / ".venv" / "bin" / "python"


def _files(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }


def test_the_wheel_holds_all_and_nothing_else(wheel: Path) -> None:
    assert {"arith_decoder", "arith_encoder", "modular_addition"} <= {
        path.parent.name for path in CHECKPOINTS.rglob("model.safetensors")
    }
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {f"mech_arith/conf/{name}" for name in _files(CONF)} <= held
    assert {
        f"mech_arith/models/arithmetic/checkpoints/{name}" for name in _files(CHECKPOINTS)
    } <= held
    assert {name.split("/")[0].split("-")[0] for name in held} == {"mech_arith", "hydra_plugins"}
    licences = {name.split("/licenses/")[1] for name in held if "/licenses/" in name}
    shipped = {path.relative_to(ROOT).as_posix() for path in CHECKPOINTS.glob("*/LICENSE")}
    assert licences == {"LICENSE", "NOTICE", *shipped}


def test_the_wheel_is_imported_and_not_the_checkout(elsewhere: Path) -> None:
    code = (
        "import mech_arith; from mech_arith.common.paths import conf_dir, checkpoints_dir;"
        "print(mech_arith.__file__, conf_dir(), checkpoints_dir(), sep='\\n')"
    )
    for line in _run(_python(elsewhere), "-c", code, cwd=elsewhere).splitlines():
        assert Path(line).is_relative_to(elsewhere)


def test_help_and_config_are_shown(elsewhere: Path) -> None:
    script = elsewhere / ".venv" / "bin" / "mech-arith"
    assert "intervention" in _run(_python(elsewhere), "-m", "mech_arith", "--help", cwd=elsewhere)
    assert "problems:" in _run(script, "--cfg", "job", cwd=elsewhere)


@pytest.mark.parametrize(
    ("model", "template"),
    [
        ("arith_decoder", "nested_subtraction"),
        ("arith_encoder", "nested_subtraction"),
        ("modular_addition", "modular_sum"),
    ],
)
def test_a_small_run(elsewhere: Path, model: str, template: str) -> None:
    out = elsewhere / model
    _run(
        *(_python(elsewhere), "-m", "mech_arith", f"model={model}", f"template={template}"),
        "problems.n=40",
        *("tracing.n_components=2", "wandb=disabled", f"hydra.run.dir={out}"),
        *("layers=late", "intervention.controls.random=2", "intervention.controls.span=0"),
        cwd=elsewhere,
    )
    assert {"summary.json", "correlations.parquet", "effects.parquet"} <= _files(out)
