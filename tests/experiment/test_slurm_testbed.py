"""The SLURM testbed: what it refuses, and that it leaves nothing behind."""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm import has_testbed
from tests.waiting import PATIENCE_S, wait

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm_testbed.py"

real = pytest.mark.skipif(not has_testbed(), reason="needs root and packages: make test-slurm")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Sockets are to lie below it, which have short paths."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | environment,
    )


def call(*arguments: object, **environment: str) -> tuple[int, str]:
    """Exit code and output."""
    process = start(*arguments, **environment)
    output = process.communicate(timeout=PATIENCE_S)[0]
    return process.returncode, output


def running(directory: Path) -> list[int]:
    """The processes of a testbed, by their ids."""
    return [process["pid"] for process in json.loads((directory / "testbed.json").read_text())]


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_down_of_nothing(tmp_path):
    code, output = call("down", "--dir", tmp_path)
    assert code == 1
    assert output == f"expected a testbed in {tmp_path}, found none; say where by --dir\n"


def test_down_with_a_record_that_cannot_be_read(tmp_path):
    for content in ("[{", "[1]", '[{"pid": 1}]'):
        (tmp_path / "testbed.json").write_text(content)
        code, output = call("down", "--dir", tmp_path)
        assert (code, output.count("\n")) == (1, 1)
        assert output.startswith(f"expected a list of processes in {tmp_path}/testbed.json, got ")


def test_files_are_whole_at_any_time(tmp_path, monkeypatch):
    """A kill in the middle must leave the record of what was started."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    testbed = importlib.import_module("slurm_testbed").Testbed(tmp_path)
    text = json.dumps(["x"] * 200_000)
    testbed._write("testbed.json", text)
    seen = []
    writer = threading.Thread(
        target=lambda: [testbed._write("testbed.json", text) for _ in "x" * 50]
    )
    writer.start()
    while writer.is_alive():
        seen.append(len((tmp_path / "testbed.json").read_text()))
    writer.join()
    assert set(seen) == {len(text)}
    assert [path.name for path in tmp_path.iterdir()] == ["testbed.json"]
    assert (tmp_path / "testbed.json").stat().st_mode & 0o777 == 0o600


def test_packages_that_are_missing(tmp_path):
    code, output = call("missing", PATH="/nonexistent")
    assert code == 0
    assert "slurm-wlm" in output.split()


def test_what_up_refuses_without_packages_or_root(tmp_path):
    code, output = call("up", "--dir", tmp_path / "new", PATH="/nonexistent")
    assert code == 1
    assert output.count("\n") == 1
    if os.geteuid() == 0:
        assert "run: apt-get install -y --no-install-recommends " in output
    else:
        assert output.startswith("expected root")
    assert not (tmp_path / "new").exists()


@pytest.mark.slurm
@real
def test_directories_that_up_refuses(tmp_path):
    (tmp_path / "mine").write_text("mine")
    code, output = call("up", "--dir", tmp_path)
    assert (code, output.count("\n")) == (1, 1)
    assert output.startswith(f"expected a new or an empty directory, got {tmp_path}")
    code, output = call("up", "--dir", tmp_path / ("x" * 70))
    assert (code, output.count("\n")) == (1, 1)
    assert output.startswith("expected a directory of at most 70 characters")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slurm
@real
def test_up_and_down_beside_another(short_path):
    home = short_path / "bed"
    code, output = call("up", "--dir", home)
    assert (code, output) == (0, f"export SLURM_CONF={home}/slurm.conf\n")
    pids = running(home)
    assert all(map(alive, pids))
    code, again = call("up", "--dir", home)
    assert code == 1
    assert again.startswith(f"expected a directory without a testbed, got {home}, which holds one")

    conf = {"SLURM_CONF": f"{home}/slurm.conf"}
    # A job that notices nothing but a kill, and a record of a process that is another's by now.
    wrapped = "trap '' TERM CONT; echo $$ > pid; while :; do sleep 1; done"
    subprocess.run(
        ["sbatch", f"--wrap={wrapped}", "--output=/dev/null", f"--chdir={short_path}"],
        env=os.environ | conf, check=True, capture_output=True,
    )  # fmt: skip
    wait((short_path / "pid").exists)
    foreign = subprocess.Popen(["sleep", "100"])
    record = home / "testbed.json"
    known = json.loads(record.read_text())
    record.write_text(json.dumps([*known, {"name": "sleep", "pid": foreign.pid, "started": "1"}]))

    assert call("down", "--dir", home) == (0, "")
    assert not any(map(alive, pids))
    assert not home.exists()
    wait(lambda: not alive(int((short_path / "pid").read_text())))
    assert foreign.poll() is None
    foreign.kill()
    foreign.wait()
    assert subprocess.run(["sinfo"], capture_output=True).returncode == 0, "the other one"


@pytest.mark.slurm
@real
def test_run_ends_with_the_commands_code(short_path):
    code, output = call("run", "--dir", short_path / "bed", "--", "sh", "-c", "sinfo -h; exit 7")
    assert code == 7
    assert "idle" in output
    assert not (short_path / "bed").exists()
    code, output = call("run", "--dir", short_path / "bed", "--", "/no/such/program")
    assert code == 1
    assert output.startswith("expected a command that can be run, got '/no/such/program'")
    assert not (short_path / "bed").exists()


@pytest.mark.slurm
@real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_takes_it_down_when_it_is_ended_itself(short_path, number):
    touched = short_path / "touched"
    command = f"touch {touched}; exec sleep 300"
    process = start("run", "--dir", short_path / "bed", "--", "sh", "-c", command)
    wait(touched.exists)
    pids = running(short_path / "bed")
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + number
    assert not any(map(alive, pids))
    assert not (short_path / "bed").exists()


@pytest.mark.slurm
@real
def test_a_daemon_that_does_not_start(short_path):
    (short_path / "bin").mkdir()
    broken = short_path / "bin" / "slurmctld"
    broken.write_text("#!/bin/sh\necho the port is taken; exit 1\n")
    broken.chmod(0o755)
    path = f"{short_path}/bin:{os.environ['PATH']}"
    code, output = call("up", "--dir", short_path / "bed", PATH=path)
    assert code == 1
    assert output.startswith("expected slurmctld to start within 60 s, got its end; its log ends:")
    assert output.endswith("the port is taken\n")
    assert not (short_path / "bed").exists()
