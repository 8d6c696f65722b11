"""The script that sends what lies on disk, against a server that may fail."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mech_arith.reports.wandb.upload import is_sent
from tests.reports.test_wandb_online import check_complete
from tests.waiting import PATIENCE_S, wait
from tests.wandb_runs import KEY, tracked
from tests.wandb_server import Fault, WandbServer, wandb_server

SCRIPT = Path(__file__).parents[2] / "scripts" / "wandb_sync.py"

pytestmark = pytest.mark.slow

CELLS = 3

WAIT_S = 40
"""Enough to send a run on a busy machine; one that is not taken costs as much."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose cells have each left an offline run."""
    sweep = tmp_path_factory.mktemp("sweep")
    for cell in range(CELLS):
        (sweep / str(cell)).mkdir()
        tracked(sweep / str(cell), run_id=f"cell{cell}")
    return sweep


@pytest.fixture
def sweep(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "sweep", symlinks=True))


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with wandb_server() as server:
        yield server


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


def environment(server: WandbServer, key: str = KEY) -> dict[str, str]:
    return os.environ | {"WANDB_API_KEY": key, "WANDB_BASE_URL": server.url}


def sync(server: WandbServer, *arguments: object, key: str = KEY) -> tuple[int, list[str], str]:
    """Exit code, lines of output, and what was said of errors."""
    done = subprocess.run(
        command(*arguments),
        env=environment(server, key),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def check_all_there(server: WandbServer, ids: Sequence[str] = ("cell0", "cell1", "cell2")) -> None:
    assert set(server.runs) == set(ids)
    for name in ids:
        check_complete(server.runs[name])


def test_a_sweep_is_sent_once_and_then_passed_over(server: WandbServer, sweep: Path) -> None:
    code, lines, errors = sync(server, sweep)
    assert (code, errors) == (0, "")
    assert lines[0] == "3 runs, 0 of them on the server already"
    assert lines[-1] == "3 sent"
    for cell in range(CELLS):
        (line,) = [line for line in lines if f"/{cell}/wandb/" in line]
        assert line.startswith("sent ")
        assert line.endswith(f" {server.url}/me/arithmetic/runs/cell{cell}")
    check_all_there(server)

    requests = len(server.requests)
    assert sync(server, sweep) == (
        0,
        ["3 runs, 3 of them on the server already", "nothing to send"],
        "",
    )
    assert len(server.requests) == requests
    assert sync(server, "--again", sweep / "0", sweep)[1][-1] == "3 sent"
    check_all_there(server)


def test_what_has_changed_is_sent_again(server: WandbServer, sweep: Path) -> None:
    assert sync(server, sweep)[0] == 0
    shutil.rmtree(sweep / "1" / "wandb")
    time.sleep(1.1)
    tracked(sweep / "1", run_id="cell1")
    (old,) = (sweep / "2" / "wandb").glob("offline-run-*")
    (log,) = old.glob("*.wandb")
    os.utime(log, (time.time() + 1, time.time() + 1))
    code, lines, _ = sync(server, sweep)
    assert code == 0
    assert lines[0] == "3 runs, 1 of them on the server already"
    assert lines[-1] == "2 sent"
    check_all_there(server)


def torn(folder: Path, share: float) -> Path:
    """What a kill leaves of an online run: its file stops somewhere."""
    (log,) = folder.glob("*.wandb")
    content = log.read_bytes()
    log.write_bytes(content[: int(share * len(content))])
    return folder.rename(folder.with_name(folder.name.removeprefix("offline-")))


def test_attempts_at_one_run_are_sent_in_their_order(
    server: WandbServer, sweep: Path, tmp_path: Path
) -> None:
    """An online run that was cut off, and the whole one that followed it."""
    (tmp_path / "whole").mkdir()
    time.sleep(1.1)
    whole = tracked(tmp_path / "whole", run_id="cell1")
    (earlier,) = (sweep / "1" / "wandb").glob("offline-run-*")
    shutil.move(whole, earlier.parent)
    torn(earlier, 0.5)
    code, lines, _ = sync(server, sweep / "1")
    assert (code, lines[0]) == (0, "1 run, 0 of them on the server already")
    check_complete(server.runs["cell1"])


def test_what_can_be_read_of_a_torn_run_is_sent(server: WandbServer, sweep: Path) -> None:
    (folder,) = (sweep / "1" / "wandb").glob("offline-run-*")
    cut_off = torn(folder, 0.9)
    code, lines, _ = sync(server, sweep)
    assert (code, lines[-1]) == (1, "2 sent, 1 failed")
    (line,) = [line for line in lines if line.startswith("failed")]
    assert line.startswith(f"failed {cut_off}: the run was cut off while it was written; ")
    assert [row["strength"] for row in server.runs["cell1"].history[:3]] == [-1, 0, 2]


def test_a_dry_run_sends_nothing(server: WandbServer, sweep: Path) -> None:
    (sweep / ".superseded").mkdir()
    shutil.copytree(sweep / "0", sweep / ".superseded" / "0", symlinks=True)
    code, lines, errors = sync(server, "--dry-run", sweep, key="")
    assert (code, errors, server.requests) == (0, "", [])
    assert len(lines) == 1 + CELLS
    assert lines[1].startswith(f"would send {sweep}/0/wandb/offline-run-")
    for log in sweep.rglob("run-*.wandb"):
        log.with_suffix(".wandb.synced").touch()
    code, lines, _ = sync(server, "--dry-run", sweep, key="")
    assert (code, lines[1:]) == (0, ["nothing to send"])


def test_a_run_that_goes_away_ends_nothing(server: WandbServer, sweep: Path) -> None:
    """A job that starts again removes what it left before."""
    server.on_request = lambda _: shutil.rmtree(sweep / "1" / "wandb", ignore_errors=True)
    code, lines, errors = sync(server, sweep)
    assert (code, lines[-1], errors) == (1, "2 sent, 1 failed", "")
    (line,) = [line for line in lines if line.startswith("failed")]
    assert line.endswith(": the run is gone; send what has taken its place")
    check_all_there(server, ["cell0", "cell2"])
    assert not is_sent(sweep / "1" / "wandb")


@pytest.mark.parametrize("status", [403, 429])
def test_what_fails_is_said_and_can_be_sent_later(
    status: int, server: WandbServer, sweep: Path
) -> None:
    server.fault = Fault(status=status, only_path="cell1")
    code, lines, _ = sync(server, "--timeout", WAIT_S, sweep)
    assert code == 1
    assert lines[-1] == "2 sent, 1 failed"
    (line,) = [line for line in lines if line.startswith("failed")]
    assert "/1/wandb/" in line
    assert (f"not sent within {WAIT_S} s" if status != 403 else "403") in line
    server.fault = Fault()
    code, lines, _ = sync(server, sweep)
    assert (code, lines[0], lines[-1]) == (0, "3 runs, 2 of them on the server already", "1 sent")
    check_all_there(server)


def test_a_server_that_dies_ends_the_sync(server: WandbServer, sweep: Path) -> None:
    """Not one time limit after the other."""
    server.fault = Fault(dies_after=14)
    code, lines, errors = sync(server, "--jobs", 1, "--timeout", WAIT_S, sweep)
    assert code == 1
    assert lines[-1].endswith(" not sent")
    assert "stopped: no answer from" in errors
    server.fault = Fault()
    assert sync(server, sweep)[0] == 0
    check_all_there(server)


def test_a_server_that_answers_nothing_but_errors_ends_it_too(
    server: WandbServer, sweep: Path
) -> None:
    server.fault = Fault(status=500, only_uploads=True)
    code, lines, errors = sync(server, "--jobs", 1, "--timeout", 5, sweep)
    assert (code, lines[-1]) == (1, "2 failed, 1 not sent")
    assert errors == "stopped: 2 runs in a row were late; run again to complete\n"


def test_an_interrupted_sync_is_completed_by_the_next(server: WandbServer, sweep: Path) -> None:
    server.fault = Fault(delay_s=3.0)
    begun = subprocess.Popen(
        command("--jobs", 1, sweep),
        env=environment(server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background, these tests too, ignores the signal otherwise.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait(lambda: len(server.requests) >= 2, unless=lambda: begun.poll() is not None)
    begun.send_signal(signal.SIGINT)  # to the script alone, not to what it has started
    output, errors = begun.communicate(timeout=PATIENCE_S)
    assert begun.returncode == 130
    assert errors == "stopped: interrupted; run again to complete\n"
    assert output.splitlines()[-1] == "3 not sent"
    server.fault = Fault()
    assert sync(server, sweep)[1][-1] == "3 sent"
    check_all_there(server)


def test_bad_input(server: WandbServer, sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        (["nowhere"], "expected a directory of runs, got 'nowhere'; give one that exists\n"),
        ([tmp_path / "empty"], f"expected W&B runs under {tmp_path}/empty, found none; "),
        (["--jobs", "0", sweep], "expected a whole number of 1 or more, got '0'"),
    ):
        code, lines, errors = sync(server, *arguments)
        assert code in (1, 2)
        assert said in errors
        assert not lines


@pytest.mark.parametrize("key", ["", "abc"])
def test_no_key_is_one_line(
    key: str, server: WandbServer, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # with no .netrc
    code, lines, errors = sync(server, sweep, key=key)
    assert code == 1
    (line,) = errors.splitlines()
    assert line.startswith("expected a W&B server, got no ")
    assert line.endswith("; nothing was sent")
    assert len(lines) == 1


def test_an_address_that_is_none_is_one_line(server: WandbServer, sweep: Path) -> None:
    server.url = "localhost:8080"
    code, _, errors = sync(server, sweep)
    assert code == 1
    (line,) = errors.splitlines()
    assert line.startswith(
        "expected a W&B server, got no URL in WANDB_BASE_URL: 'localhost:8080' (set it to "
    )


def test_an_unreachable_server_is_one_line(server: WandbServer, sweep: Path) -> None:
    server.url = "http://127.0.0.1:9"
    code, _, errors = sync(server, sweep)
    assert code == 1
    (line,) = errors.splitlines()
    assert line.startswith("expected a W&B server, got no answer from http://127.0.0.1:9 (")
