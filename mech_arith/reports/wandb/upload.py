"""Sending a run that lies on disk, with `wandb sync` in a process that can be given up."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mech_arith.reports.wandb.environment import HIDDEN

POLL_SECONDS = 0.2
WRITING_POLL_SECONDS = 0.05

LOG = "run-*.wandb"
"""The file of a run's records, in its folder."""


@dataclass(frozen=True)
class Sent:
    """What came of an upload."""

    error: str = ""
    """Why not everything arrived; empty if it did."""

    url: str = ""
    """The run's page; empty if the server named none."""

    late: bool = False
    """Whether it was given up for want of time."""


def is_sent(folder: Path) -> bool:
    """Whether the run in `folder` is on the server as it is on disk; False if it has gone."""
    try:
        log, marker = _log_and_marker(folder)
        return marker.stat().st_mtime >= log.stat().st_mtime
    except FileNotFoundError:
        return False


def check_whole(folder: Path, *, within_s: float) -> None:
    """Wait until the finished run in a folder is whole on disk.

    wandb's own process writes the last of it after the end of `finish`, and says nothing of a full
    disk.

    Raises:
        OSError: it is not whole after so many seconds.
    """
    end = time.monotonic() + within_s
    while not _is_whole(folder):
        if time.monotonic() > end:
            raise OSError(f"expected a whole W&B run in {folder}, got one that was cut off")
        time.sleep(WRITING_POLL_SECONDS)


def _is_whole(folder: Path) -> bool:
    """Whether the last record of a run is its end."""
    from wandb.util import get_core_path

    log = _log_and_marker(folder)[0]
    # What `wandb leet inspect` calls, without the second that its start takes.
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
    told = subprocess.run(
        [*command, "--run-file", str(log), str(folder.parent)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    *_, last = [b"{}", *told.stdout.splitlines()]
    return told.returncode == 0 and json.loads(last).get("type") == "exit"


def send(folder: Path, *, within_s: float, stop: threading.Event | None = None) -> Sent:
    """Send the run in a folder, again if need be; after any error it does not count as sent.

    Rows go to the server under their step, so sending a run twice leaves what sending it once does.

    Args:
        folder: of one run, as wandb makes it.
        within_s: seconds after which the upload is given up.
        stop: gives it up too, when set.
    """
    # A job that starts again may remove what it left before, at any time.
    try:
        return _send(folder, within_s=within_s, stop=stop)
    except FileNotFoundError:
        if folder.is_dir() and any(folder.glob(LOG)):
            raise
        return Sent("the run is gone; send what has taken its place")


def _send(folder: Path, *, within_s: float, stop: threading.Event | None) -> Sent:
    before = _state(folder)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        ended = _sync(folder, Path(scratch), within_s=within_s, stop=stop)
        output = (Path(scratch) / "output").read_text(encoding="utf-8", errors="replace")
        errors = list(_logged_errors(Path(scratch)))
    error = ended or _said(errors, output, folder)
    if not error and _state(folder) != before:
        error = "the run was still being written; send it again"
    if error:
        # `wandb sync` counts a run as sent even where the server has refused its rows or files.
        _log_and_marker(folder)[1].unlink(missing_ok=True)
    url = re.search(r"View run .* at (\S+)", output)
    return Sent(error, url[1] if url else "", late=bool(ended))


def _sync(folder: Path, scratch: Path, *, within_s: float, stop: threading.Event | None) -> str:
    """Run `wandb sync`, with its output and logs in `scratch`; why it was given up, or nothing."""
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", "--include-synced"]
    # What the run says of itself counts, whatever the environment says of runs.
    hidden = {*HIDDEN, "WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_NAME", "WANDB_TAGS"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
        "WANDB_DIR": str(scratch),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "false",  # it would say nothing of errors either
    }
    end = time.monotonic() + within_s
    # Not a pipe: wandb's own background process would hold it open after the end.
    with (scratch / "output").open("wb") as output:
        process = subprocess.Popen(
            [*command, str(folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while time.monotonic() < end and not (stop and stop.is_set()):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
                    return ""
        finally:
            # wandb's background process ends when it notices that this one has.
            process.kill()
            process.wait()
    return "interrupted" if stop and stop.is_set() else f"not sent within {within_s:.0f} s"


def _logged_errors(scratch: Path) -> Iterator[str]:
    """The errors in the log of `wandb sync`, which tells of more of them than its output."""
    for path in scratch.rglob("debug-sync.*.log"):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                # Every failed request is logged; where it mattered, another error follows.
                if entry["level"].startswith("ERROR") and entry["msg"] != "api: HTTP error":
                    yield entry["msg"]


def _said(errors: Sequence[str], output: str, folder: Path) -> str:
    """Why not everything arrived; nothing if it did."""
    told = re.findall(r"ERROR (?:\[\S+\] )?(.+)|^Error: (.+)", output, flags=re.MULTILINE)
    reasons = [*errors, *(first or second for first, second in told)]
    if any("incomplete transaction log" in reason for reason in reasons):
        return "the run was cut off while it was written; what could be read was sent"
    if reasons:
        return reasons[0].strip().partition("\n")[0]
    if not is_sent(folder):
        lines = output.strip().splitlines()
        return lines[-1] if lines else "wandb sync ended early"
    return ""


def _state(folder: Path) -> tuple[int, int]:
    stat = _log_and_marker(folder)[0].stat()
    return stat.st_size, stat.st_mtime_ns


def _log_and_marker(folder: Path) -> tuple[Path, Path]:
    """A run's file, and the one that `wandb sync` puts beside it.

    Raises:
        FileNotFoundError: there is no run in `folder`.
    """
    logs = sorted(folder.glob(LOG))
    if not logs:
        raise FileNotFoundError(f"expected a W&B run in {folder}, found no {LOG}")
    return logs[0], logs[0].with_suffix(".wandb.synced")
