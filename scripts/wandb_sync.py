"""Send the W&B runs of sweeps and runs that lie on disk, as often as you like.

    python scripts/wandb_sync.py multirun/2026-11-23/10-00-00
    python scripts/wandb_sync.py --dry-run multirun outputs

Finds every run under the directories, offline ones and online ones that were cut off. What is on
the server already is passed over, what has changed since is sent again; sending a run twice leaves
what sending it once does. Exit code 1 if a run could not be sent.
"""

import argparse
import os
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from mech_arith.common.errors import UserError
from mech_arith.common.progress import counted
from mech_arith.reports.wandb.client import no_server
from mech_arith.reports.wandb.upload import Sent, is_sent, send

INTERRUPTED = 130
"""Exit code of a program that is ended by Ctrl-C."""

NOTHING = "nothing to send"

Group = tuple[Path, ...]
"""Folders of one run, the oldest first: it may have been begun several times."""


def main() -> None:
    """Find, send, and say what became of each run."""
    asked = _arguments()
    try:
        groups = find(asked.directories)
        waiting = [group for group in groups if asked.again or not is_sent(group[-1])]
        sent = len(groups) - len(waiting)
        print(f"{counted(len(groups), 'run')}, {sent} of them on the server already")
        if asked.dry_run:
            told = [f"would send {group[-1]}" for group in waiting]
            print("\n".join(told) or NOTHING)
            return
        if waiting and (reason := no_server()):
            raise UserError(f"expected a W&B server, got {reason}; nothing was sent")
    except UserError as error:
        sys.exit(str(error))
    sys.exit(_send_all(waiting, jobs=asked.jobs, within_s=asked.timeout))


def find(directories: Sequence[Path]) -> list[Group]:
    """The runs under the directories, by id, in natural reading order of their folders.

    Hidden directories and links are passed over.

    Raises:
        UserError: a directory is not there, or there is no run at all.
    """
    by_id: dict[str, set[Path]] = defaultdict(set)
    for directory in directories:
        if not directory.is_dir():
            raise UserError(
                f"expected a directory of runs, got {str(directory)!r}; give one that exists"
            )
        for parent, children, files in os.walk(directory.resolve()):
            children[:] = [child for child in children if not child.startswith(".")]
            for name in files:
                if name.startswith("run-") and name.endswith(".wandb"):
                    by_id[name].add(Path(parent))
    if not by_id:
        raise UserError(
            f"expected W&B runs under {', '.join(map(str, directories))}, found none; runs with "
            "wandb=disabled leave none"
        )
    # Folders are named by kind and time.
    groups = [
        tuple(sorted(folders, key=lambda path: path.name.removeprefix("offline-")))
        for folders in by_id.values()
    ]
    return sorted(groups)


def _send_all(groups: Sequence[Group], *, jobs: int, within_s: float) -> int:
    """Send runs, `jobs` at a time; the exit code."""
    counts: Counter[str] = Counter()
    stop = threading.Event()
    reason = ""
    with ThreadPoolExecutor(jobs) as pool:
        asked: dict[Future[Sent | None], Group] = {
            pool.submit(_send_unless, stop, group, within_s): group for group in groups
        }
        try:
            late = 0
            for done in as_completed(asked):
                sent = done.result()
                counts[_said(asked[done], sent)] += 1
                if sent is None or not sent.late:
                    late = 0
                    continue
                # The others would wait for the same server, one time limit after the other.
                late += 1
                reason = no_server() or (f"{late} runs in a row were late" if late > jobs else "")
                if reason:
                    stop.set()
                    break
        except KeyboardInterrupt:
            reason = "interrupted"
            stop.set()
    counts["not sent"] = len(groups) - counts["sent"] - counts["failed"]
    told = [f"{counts[kind]} {kind}" for kind in ("sent", "failed", "not sent") if counts[kind]]
    print(", ".join(told) or NOTHING)
    if reason:
        print(f"stopped: {reason}; run again to complete", file=sys.stderr)
    if reason == "interrupted":
        return INTERRUPTED
    return 0 if counts["sent"] == len(groups) else 1


def _send_unless(stop: threading.Event, group: Group, within_s: float) -> Sent | None:
    """Send a run, beginning by beginning; what came of the newest, which holds all of it.

    None if it was stopped.
    """
    sent = None
    for folder in group:
        sent = None if stop.is_set() else send(folder, within_s=within_s, stop=stop)
    return None if stop.is_set() and sent and sent.error else sent


def _said(group: Group, sent: Sent | None) -> str:
    """Print what became of a run; its kind in the count."""
    if sent is None:
        return "not sent"
    if sent.error:
        print(f"failed {group[-1]}: {sent.error}", flush=True)
        return "failed"
    print(f"sent {group[-1]} {sent.url}", flush=True)
    return "sent"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directories", nargs="+", type=Path, help="of sweeps or runs")
    parser.add_argument("--jobs", type=_at_least_one, default=4, help="runs at a time (4)")
    parser.add_argument(
        "--timeout", type=_at_least_one, default=120, help="seconds for one run (120)"
    )
    parser.add_argument("--again", action="store_true", help="send runs that are there, too")
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent")
    return parser.parse_args()


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
