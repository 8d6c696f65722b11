"""Online runs, against a server that may fail in any way: no number is lost, no job waits long."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mech_arith.reports.wandb.upload import is_sent, send
from tests.running import SMALL
from tests.waiting import PATIENCE_S
from tests.wandb_runs import (
    CONFIG,
    HEADLINE,
    KEY,
    SUMMARY,
    check_history,
    program,
    records,
    tracked,
)
from tests.wandb_server import Fault, StoredRun, WandbServer, wandb_server

pytestmark = pytest.mark.slow

JOB = """
print(tracked(Path.cwd(), mode="online", run_id="abc", **{changes}))
"""
"""A job whose W&B is all that it does."""


KEPT = "; the run is kept on disk, upload it later with `python scripts/wandb_sync.py {folder}`"


def job(directory: Path, url: str, **changes: Any) -> tuple[Path, str]:
    """Run a job: its run's folder and its log."""
    environment = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": url, "HF_TOKEN": "hf_swordfish"}
    done = program(JOB.format(changes=changes), directory, **environment)
    return Path(done.stdout.strip()), done.stderr


def check_complete(run: StoredRun) -> None:
    """The server has all that `log_all` logs, tables and images too."""
    check_history(run.history)
    assert HEADLINE.items() <= run.summary.items()
    assert run.config["problems"] == CONFIG["problems"]
    assert run.config["cell"] == SUMMARY["cell"]
    fields = {name: run.fields[name] for name in ("groupName", "jobType", "displayName", "tags")}
    assert fields == {
        "groupName": "sweep",
        "jobType": "cell",
        "displayName": "cell 0",
        "tags": ["x"],
    }
    names = {Path(name).name.split("_")[0]: name for name in run.files if "media/" in name}
    assert set(names) == {"correlations", "effects", "evidence", "heatmap"}
    assert len(json.loads(run.files[names["correlations"]])["data"]) == 12
    assert run.exit_code == 0


def check_whole_on_disk(folder: Path) -> None:
    history = [
        record["history"]["item"] for record in records(folder) if record["type"] == "history"
    ]
    check_history(history)


@contextmanager
def key_for(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("WANDB_BASE_URL", url)
        yield


def check_sync_completes(
    folder: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later sync brings every row to the server, once."""
    server.fault = Fault()
    with key_for(server.url, monkeypatch):
        assert send(folder, within_s=PATIENCE_S).error == ""
        check_complete(server.runs["abc"])
    assert list(server.runs) == ["abc"]
    assert is_sent(folder)


def test_a_run_arrives_whole(tmp_path: Path) -> None:
    with wandb_server() as server:
        folder, log = job(tmp_path, server.url)
    assert log == ""
    assert is_sent(folder)
    check_whole_on_disk(folder)
    check_complete(server.runs["abc"])


@pytest.mark.slow
def test_a_requeued_job_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another directory too: on the server it is one run, with every row once."""
    # wandb's own resuming would append the same rows to those that are there.
    monkeypatch.setenv("WANDB_RESUME", "allow")
    with wandb_server() as server:
        for name in ("first", "first", "second"):
            (tmp_path / name).mkdir(exist_ok=True)
            job(tmp_path / name, server.url)
        check_complete(server.runs["abc"])
    assert list(server.runs) == ["abc"]


WAIT_S = 40.0
"""Enough to begin a run on a busy machine; each job that meets a fault waits so long."""

FAULTS = {
    "429": Fault(status=429),
    "500": Fault(status=500),
    "429 to uploads": Fault(status=429, only_uploads=True),
    "500 to uploads": Fault(status=500, only_uploads=True),
    "slow to take uploads": Fault(delay_s=WAIT_S, only_uploads=True),
    "dies before the run": Fault(dies_after=1),
    "dies in the middle": Fault(dies_after=5),
}


@pytest.mark.slow
def test_failing_servers_cost_no_number_and_a_bounded_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each for a job of its own, three at a time: most of it is waiting."""

    def meet(name: str) -> tuple[Path, str]:
        directory = tmp_path / name.replace(" ", "-")
        directory.mkdir()
        return job(directory, servers[name].url, wait_s=WAIT_S)

    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(wandb_server(replace(fault)))
            for name, fault in FAULTS.items()
        }
        with ThreadPoolExecutor(3) as pool:
            jobs = dict(zip(servers, pool.map(meet, servers), strict=True))
        for name, (folder, log) in jobs.items():
            (warning,) = log.splitlines()
            assert warning.startswith("WARNING W&B: not sent within "), name
            assert warning.endswith(KEPT.format(folder=folder))
            assert not is_sent(folder)
            check_whole_on_disk(folder)
            check_sync_completes(folder, servers[name], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("status", [403, 404])
def test_refused_rows_are_not_taken_for_sent(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`wandb sync` itself says nothing of it in its exit code, and marks the run as synced."""
    with wandb_server(Fault(status=status, only_uploads=True)) as server:
        folder, log = job(tmp_path, server.url)
        assert str(status) in log
        assert not is_sent(folder)
        check_sync_completes(folder, server, monkeypatch)


@pytest.mark.slow
def test_a_refused_file_is_not_taken_for_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wandb_server(Fault(status=403, only_path="/storage/")) as server:
        folder, log = job(tmp_path, server.url)
        assert "failed to upload" in log
        assert not is_sent(folder)
        check_sync_completes(folder, server, monkeypatch)


@pytest.mark.slow
def test_a_refused_key_is_said(tmp_path: Path) -> None:
    with wandb_server(Fault(status=401)) as server:
        folder, log = job(tmp_path, server.url)
    assert log.startswith("WARNING W&B: ")
    check_whole_on_disk(folder)


def test_no_server(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        folder, log = job(tmp_path, url)
    assert log.startswith(
        f"WARNING W&B: no answer from {url} (Connection refused); the run is kept"
    )
    check_whole_on_disk(folder)


@pytest.mark.slow
def test_an_address_that_is_none(tmp_path: Path) -> None:
    """wandb itself would not even write an offline run; nor may the next cell go elsewhere."""
    environment = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "localhost:8080"}
    cells = JOB.format(changes={}) + JOB.format(changes={}).replace("abc", "abcd")
    done = program(cells, tmp_path, **environment)
    folders = [Path(folder) for folder in done.stdout.split()]
    said = "WARNING W&B: no URL in WANDB_BASE_URL: 'localhost:8080' (set it to https://... or"
    lines = done.stderr.splitlines()
    assert len(lines) == len(folders) == 2
    for folder, line in zip(folders, lines, strict=True):
        assert line.startswith(said)
        assert line.endswith(KEPT.format(folder=folder))
        check_whole_on_disk(folder)


@pytest.mark.slow
def test_a_server_that_accepts_and_is_silent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        folder, log = job(tmp_path, url)
    # On a busy machine its own time is out before wandb's.
    assert re.match(rf"WARNING W&B: no answer from {url} \((waited 6 s|timed out)\); the run", log)
    check_whole_on_disk(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "reason"),
    [("", "no API key for {url} (set one with `wandb login`)"), ("abc", "no usable API key")],
)
def test_no_key(key: str, reason: str, tmp_path: Path) -> None:
    with wandb_server() as server:
        done = program(
            JOB.format(changes={}),
            tmp_path,
            WANDB_API_KEY=key,
            WANDB_BASE_URL=server.url,
            HOME=str(tmp_path / "home"),  # with no .netrc
        )
    assert done.stderr.startswith(f"WARNING W&B: {reason.format(url=server.url)}")
    check_whole_on_disk(Path(done.stdout.strip()))


@pytest.mark.slow
def test_a_run_still_being_written_is_not_taken_for_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tracked(tmp_path, run_id="abc")
    (log,) = folder.glob("*.wandb")
    with wandb_server() as server, key_for(server.url, monkeypatch):
        server.on_request = lambda _: os.utime(log)
        assert (
            send(folder, within_s=PATIENCE_S).error
            == "the run was still being written; send it again"
        )
        assert not is_sent(folder)
        server.on_request = lambda _: None
        assert send(folder, within_s=PATIENCE_S).error == ""
        assert is_sent(folder)
        os.utime(log, (time.time() + 1, time.time() + 1))
        assert not is_sent(folder)


@pytest.mark.slow
def test_no_key_is_written_anywhere(tmp_path: Path) -> None:
    """Two runs of one process, so that the second begins with the key in wandb's settings."""
    code = """
    logging.getLogger().setLevel(logging.DEBUG)
    for cell in ("0", "1"):
        Path(cell).mkdir()
        tracked(Path.cwd() / cell, mode="online")
    """
    home = {
        name: str(tmp_path / name) for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR")
    }
    environment = home | {"WANDB_CONFIG_DIR": str(tmp_path / "config"), "TMPDIR": str(tmp_path)}
    with wandb_server() as server:
        environment |= {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url}
        done = program(code, tmp_path, HF_TOKEN="hf_swordfish", **environment)
        assert len(server.runs) == 2
        assert server.keys  # it was used
    (tmp_path / "log").write_text(done.stdout + done.stderr)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".wandb"]) == 2
    for path in files:
        content = path.read_bytes()
        for unwanted in (KEY, "swordfish", "HF_TOKEN", "WANDB_API_KEY="):
            assert unwanted.encode() not in content, path


@pytest.mark.slow
def test_a_whole_cell_writes_no_key_anywhere(tmp_path: Path) -> None:
    """Run as a user does, with its directory, its caches, its log and what it prints.

    Online, which is offline and more.
    """
    overrides = ["wandb=online" if one == "wandb=disabled" else one for one in SMALL]
    places = [f"hydra.run.dir={tmp_path}/run", f"store.path={tmp_path}/store"]
    variables = ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "TMPDIR")
    with wandb_server() as server:
        done = subprocess.run(
            [sys.executable, "-m", "mech_arith", *overrides, *places],
            env=os.environ
            | {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "HF_TOKEN": "hf_swordfish"}
            | {"MECH_SECRET": "swordfish-in-the-environment"}
            | dict.fromkeys(variables, str(tmp_path)),
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
        )
    assert done.returncode == 0, done.stderr.decode()
    assert len(server.runs) == 1
    (tmp_path / "printed").write_bytes(done.stdout + done.stderr)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix == ".wandb"]
    assert [path for path in files if path.name == "mech_arith.log"]
    for path in files:
        content = path.read_bytes()
        for unwanted in (KEY, "swordfish", "MECH_SECRET", "HF_TOKEN", "WANDB_API_KEY="):
            assert unwanted.encode() not in content, path
