"""Output that has nowhere to go ends quietly, and what matters is on disk."""

import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mech_arith.common.streams import LogFile, no_room
from mech_arith.evidence.results import load_run
from tests.running import SMALL

QUICK = (*SMALL, "intervention=none", "tracing.position_map=false")

needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


def command(tmp_path: Path, *arguments: str) -> list[str]:
    store = f"store.path={tmp_path}/store"
    return [sys.executable, "-m", "mech_arith", *arguments, *QUICK, store]


@pytest.mark.slow
def test_a_closed_pipe_ends_quietly(tmp_path: Path):
    """As in `... | head -1`."""
    sweep = tmp_path / "sweep"
    arguments = command(tmp_path, "-m", f"hydra.sweep.dir={sweep}", "layers=early,late")
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as begun:
        assert begun.stdout is not None
        assert begun.stderr is not None
        assert begun.stdout.readline()
        begun.stdout.close()
        assert begun.stderr.read() == ""
    assert begun.returncode == 0
    assert all(load_run(sweep / name).summary["best"] for name in ("0", "1"))
    assert (sweep / "report.html").is_file()
    assert (sweep / "cells.json").is_file()


@pytest.mark.slow
@needs_full_device
def test_output_to_a_full_disk_is_one_line(tmp_path: Path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(tmp_path, f"hydra.run.dir={tmp_path}/run"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 0
    assert done.stderr == "output cannot be written (No space left on device): it is lost\n"
    assert load_run(tmp_path / "run").summary["best"]


@pytest.mark.slow
def test_results_that_do_not_fit_are_one_line(tmp_path: Path):
    """No file may grow beyond what the tables need: as on a full disk, in the midst of the work."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    arguments = command(tmp_path, f"hydra.run.dir={tmp_path}/run", "store.enabled=false")
    done = subprocess.run(arguments, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr == ""
    last = done.stdout.splitlines()[-1]
    said = "expected room on the disk, got 'File too large'; make room and start again"
    assert said in last
    assert "Traceback" not in done.stdout
    assert (tmp_path / "run" / "error.txt").read_text().startswith(said)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_full_disk_is_seen_behind_other_errors():
    inner = OSError(28, os.strerror(28))
    outer = RuntimeError("could not save")
    outer.__cause__ = inner
    assert no_room(outer) == "No space left on device"
    # Libraries that are not Python's put it into a text.
    assert no_room(ValueError("IoError: No space left on device (os error 28)")) is not None
    assert no_room(FileNotFoundError(2, "No such file or directory")) is None
    assert no_room(None) is None


@needs_full_device
def test_a_log_that_cannot_be_written_says_so_once(capfd: pytest.CaptureFixture[str]):
    handler = LogFile("/dev/full")
    logger = logging.Logger("full")
    logger.addHandler(handler)
    for _ in range(3):
        logger.info("lost")
    with pytest.raises(OSError, match="No space left"):
        handler.close()
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "the log /dev/full cannot be written (No space left on device)"
