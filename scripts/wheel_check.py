"""Try the wheel in an empty environment, with the oldest or newest versions that its bounds allow.

    python scripts/wheel_check.py oldest
    python scripts/wheel_check.py newest --python python3.12 --torch none

Builds the wheel, installs it without the checkout, and runs what a user runs first: the help, a
cell, a sweep, the report. Needs a package index. torch is installed by itself, at the version of
constraints.txt: others may pull gigabytes of CUDA packages. `--torch none` leaves it out, and with
it all that computes. uv, which finds the oldest versions, is installed aside.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("gguf", "multi-gpu", "workspace")
"""What a user may install; the others are for contributors, who have constraints.txt."""
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
SMALL = (
    *("problems.n=40", "layers=late", "wandb=disabled", "tracing.n_components=2"),
    *("intervention.controls.random=2", "intervention.controls.span=0"),
)
WITHOUT_TORCH = (
    ("python", "-c", "import mech_arith; print(mech_arith.__version__)"),
    ("mech-arith", "--help"),
    ("mech-arith", "--cfg", "job"),
)
WITH_TORCH = (
    ("mech-arith", "model=arith_decoder", "hydra.run.dir=cell", *SMALL),
    ("mech-arith", "-m", "model=arith_encoder,arith_decoder", "hydra.sweep.dir=sweep", *SMALL),
    ("python", "-m", "mech_arith.reports.page", "sweep"),
    ("python", "-m", "mech_arith.reports.figures", "cell"),
    ("python", "-m", "mech_arith.reports.table", "sweep", "--format", "latex"),
    ("python", "-c", "import mech_arith.models.language.gguf_conversion"),
)
"""Commands in an empty directory; `python` and `mech-arith` are the environment's."""


def main() -> None:
    """Build, install, try; the first command that fails ends it."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog=(__doc__ or "").split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("which", choices=RESOLUTIONS, help="which versions")
    parser.add_argument("--python", default=sys.executable, help="the environment's interpreter")
    parser.add_argument("--torch", default=locked_torch(), help="its version, or 'none'")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wheel_check.") as made:
        directory = Path(made)
        build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", directory)
        _run(sys.executable, *build, at=ROOT)
        environment = directory / "environment"
        _run(arguments.python, "-m", "venv", environment, at=directory)
        versions = resolve(arguments.which, environment / "bin" / "python", directory)
        install(environment / "bin" / "python", versions, directory, torch=arguments.torch)
        try_out(environment / "bin", directory, torch=arguments.torch)


def locked_torch() -> str:
    """The version of torch in constraints.txt."""
    (version,) = re.findall(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return version


def resolve(which: str, python: Path, directory: Path) -> Path:
    """The versions of all packages but torch and what it alone needs, as a file for pip."""
    tools, override = directory / "tools", directory / "no_torch.txt"
    versions = directory / f"{which}.txt"
    override.write_text("torch; python_version < '3'\n")
    _run(sys.executable, "-m", "venv", tools, at=directory)
    _run(tools / "bin" / "python", "-m", "pip", "install", "--quiet", "uv", at=directory)
    _run(
        *(tools / "bin" / "uv", "pip", "compile", ROOT / "pyproject.toml", "--python", python),
        *("--resolution", RESOLUTIONS[which], "--override", override, "--output-file", versions),
        *("--quiet", "--no-header", "--no-annotate", *(f"--extra={name}" for name in EXTRAS)),
        at=directory,
    )
    print(versions.read_text())
    return versions


def install(python: Path, versions: Path, directory: Path, *, torch: str) -> None:
    """Install torch, then the other versions and the wheel; pip says whether they fit."""
    (wheel,) = directory.glob("*.whl")
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    if torch != "none":
        _run(*pip, "install", "--quiet", f"torch=={torch}", at=directory)
    _run(*pip, "install", "--quiet", "--no-deps", "--requirement", versions, wheel, at=directory)
    if torch != "none":
        _run(*pip, "check", at=directory)


def try_out(scripts: Path, directory: Path, *, torch: str) -> None:
    """Run the commands in an empty directory, with a store of its own."""
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir()
    for program, *rest in WITHOUT_TORCH + (WITH_TORCH if torch != "none" else ()):
        _run(scripts / program, *rest, at=elsewhere)
    for needed in ("cell/summary.json", "sweep/report.html") if torch != "none" else ():
        if not (elsewhere / needed).is_file():
            sys.exit(f"expected {needed}, found none")


def _run(*command: str | Path, at: Path) -> None:
    """Run a command that sees nothing of the checkout; end with its output where it fails."""
    words = [str(word) for word in command]
    hidden = ("PYTHON", "VIRTUAL_ENV", "MECH_ARITH")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    environment |= {"MECH_ARITH_STORE": str(at / "store"), "HF_HUB_OFFLINE": "1"}
    environment |= {"UV_PYTHON_DOWNLOADS": "never"}
    began = time.monotonic()
    done = subprocess.run(
        words, cwd=at, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    said = " ".join(words)
    if done.returncode != 0:
        sys.exit(f"failed: {said}\n{done.stdout}\n{done.stderr}")
    print(f"{time.monotonic() - began:5.0f} s  {said}", flush=True)


if __name__ == "__main__":
    main()
