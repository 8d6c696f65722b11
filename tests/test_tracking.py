import json
import logging
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from mech_arith.errors import UserError
from mech_arith.tracking import Run, TrackingSettings, curves, headline

KEY = "0123456789abcdef" * 3

CONFIG = {"model": {"name": "arith_decoder"}, "problems": {"n": 1000}}

SUMMARY = {
    "cell": {"model": "arith_decoder", "seed": 0},
    "baseline_accuracy": 0.97,
    "baseline_r2": None,
    "best": {
        "b": {"abs_r": 0.96, "r": -0.96, "layer": 1, "component": 2, "position": "all"},
        "a//b": {"abs_r": 0.5, "r": 0.5, "layer": 0, "component": 0, "position": "all"},
    },
    "largest_drop": {"b": {"accuracy_drop": 0.8, "layer": 3, "control_drop": 0.01}},
    "control": {"largest_drop": 0.05, "layer": 2, "strength": 3.0},
    "warnings": ["one"],
    "seconds": {"tracing": 1.5},
    "provenance": {"git_commit": None, "versions": {"torch": "2.13.0"}},
}

HEADLINE = {
    "baseline_accuracy": 0.97,
    "best/b/abs_r": 0.96,
    "best/b/r": -0.96,
    "best/b/layer": 1,
    "best/b/component": 2,
    "best/b/position": "all",
    "best/a//b/abs_r": 0.5,
    "best/a//b/r": 0.5,
    "best/a//b/layer": 0,
    "best/a//b/component": 0,
    "best/a//b/position": "all",
    "drop/b/accuracy_drop": 0.8,
    "drop/b/layer": 3,
    "drop/b/control_drop": 0.01,
    "control/largest_drop": 0.05,
    "control/layer": 2,
    "control/strength": 3.0,
    "warnings": 1,
    "seconds/tracing": 1.5,
    "provenance/versions/torch": "2.13.0",
}

CORRELATIONS = pd.DataFrame({"value": ["a", "b"], "r": [0.5, float("nan")], "layer": [0, 1]})


def effects(**changes: Any) -> pd.DataFrame:
    rows = [
        {
            "layer": layer,
            "point": "resid_post",
            "position": "all",
            "component": layer + 1,
            "arm": arm,
            "chosen_for": "b | a//b",
            "strength": strength,
            "accuracy_drop": abs(strength) * (layer + 1) / (10 if arm == "target" else 100),
            "status": "ok",
        }
        for layer in (0, 1)
        for arm in ("target", "control")
        for strength in (2.0, -1.0, 0.0)
    ]
    return pd.DataFrame(rows).assign(**changes)


def settings(directory: Path, **changes: Any) -> TrackingSettings:
    names = {"project": "arithmetic", "group": "sweep", "name": "cell 0", "tags": ("x", "x", "")}
    return TrackingSettings(**({"mode": "offline", "directory": directory} | names | changes))


def log_all(run: Run, directory: Path) -> None:
    run.log_summary(SUMMARY)
    run.log_table("correlations", CORRELATIONS)
    run.log_table("effects", effects())
    image = directory / "heatmap.png"
    Image.new("RGB", (4, 3)).save(image)
    run.log_images({"heatmap": image})
    run.log_curves(effects())


def records(run_directory: Path) -> list[dict[str, Any]]:
    """The records of an offline run, read back with W&B's own tool."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run_directory)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in found.stdout.splitlines()]


def of_type(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in found if record["type"] == kind]


def exit_code(found: list[dict[str, Any]]) -> int:
    (ended,) = of_type(found, "exit")
    return ended["exit_code"]


def summary_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for summary in of_type(found, "summary"):
        merged |= summary["update"]
    return merged


def check_whole(run_directory: Path) -> None:
    """Everything that `log_all` logs is in the offline run."""
    found = records(run_directory)
    (run,) = of_type(found, "run")
    assert run["config"]["update"]["problems"] == {"n": 1000}
    assert (run["project"], run["run_group"], run["display_name"], run["tags"]) == (
        "arithmetic",
        "sweep",
        "cell 0",
        ["x"],
    )
    summary = summary_of(found)
    assert HEADLINE.items() <= summary.items()
    assert not [name for name in summary if name.startswith("accuracy_drop/")]

    history = [record["item"] for record in of_type(found, "history")]
    lines = [item for item in history if "strength" in item]
    assert [line["strength"] for line in lines] == [-1, 0, 2]
    assert lines[2]["accuracy_drop/b/layer 1"] == pytest.approx(0.4)
    assert lines[2]["accuracy_drop/a//b/layer 1 control"] == pytest.approx(0.04)
    (axis,) = [metric for metric in of_type(found, "metric") if "step_metric" in metric]
    assert (axis["glob_name"], axis["step_metric"]) == ("accuracy_drop/*", "strength")

    tables = {path.name.split("_")[0]: path for path in run_directory.rglob("*.table.json")}
    table = json.loads(tables["correlations"].read_text())
    assert table == {"columns": ["value", "r", "layer"], "data": [["a", 0.5, 0], ["b", None, 1]]}
    assert len(json.loads(tables["effects"].read_text())["data"]) == len(effects())
    (image,) = run_directory.rglob("heatmap*.png")
    with Image.open(image) as opened:
        assert opened.size == (4, 3)
    assert exit_code(found) == 0


def test_the_headline_is_flat() -> None:
    assert headline(SUMMARY) == HEADLINE
    assert headline(HEADLINE) == HEADLINE


def test_curves_have_a_row_per_strength() -> None:
    rows = curves(effects())
    assert [row["strength"] for row in rows] == [-1.0, 0.0, 2.0]
    assert rows[0] == pytest.approx(
        {
            "strength": -1.0,
            "accuracy_drop/b/layer 0": 0.1,
            "accuracy_drop/a//b/layer 0": 0.1,
            "accuracy_drop/b/layer 1": 0.2,
            "accuracy_drop/a//b/layer 1": 0.2,
            "accuracy_drop/b/layer 0 control": 0.01,
            "accuracy_drop/a//b/layer 0 control": 0.01,
            "accuracy_drop/b/layer 1 control": 0.02,
            "accuracy_drop/a//b/layer 1 control": 0.02,
        }
    )


def test_curves_name_positions_where_there_are_several() -> None:
    table = pd.concat([effects(chosen_for=""), effects(chosen_for="", position="last")])
    (row, *_) = curves(table)
    assert "accuracy_drop/component 2/layer 1 last control" in row
    assert len(row) == 1 + 2 * 4


def test_curves_leave_failed_rows_out() -> None:
    table = effects()
    table.loc[table["strength"] == 2, "status"] = "failed"
    assert [row["strength"] for row in curves(table)] == [-1.0, 0.0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mode": "onlin"}, "unknown W&B mode 'onlin'; expected one of: online, offline, disabled"),
        ({"project": ""}, "expected a W&B project, got an empty name; set wandb.project"),
        ({"init_timeout_s": 3.0}, "expected wandb.init_timeout_s of 12 or more, got 3.0; raise it"),
        ({"init_timeout_s": float("nan")}, "got nan"),
        ({"finish_timeout_s": 0.0}, "expected wandb.finish_timeout_s above 0, got 0.0; raise it"),
    ],
)
def test_bad_settings(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        settings(tmp_path, **change)
    assert said in str(caught.value)


def test_an_offline_run_holds_everything(tmp_path: Path) -> None:
    with Run.start(settings(tmp_path / "job"), CONFIG) as run:
        directory = run.directory
        assert run.offline
        assert run.url is None
        log_all(run, tmp_path)
    assert directory is not None
    assert directory.parent == tmp_path / "job" / "wandb"
    check_whole(directory)


def test_jobs_of_one_process_are_runs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "the-same")
    directories = []
    for job in range(2):
        with Run.start(settings(tmp_path, name=f"job {job}"), {"job": job}) as run:
            run.log_summary({"baseline_accuracy": job / 2})
            directories.append(run.directory)
    found = [records(directory) for directory in directories]
    assert [of_type(one, "run")[0]["display_name"] for one in found] == ["job 0", "job 1"]
    assert len({of_type(one, "run")[0]["run_id"] for one in found}) == 2
    assert [summary_of(one)["baseline_accuracy"] for one in found] == [0, 0.5]
    assert [exit_code(one) for one in found] == [0, 0]


def test_an_exception_finishes_the_run_and_passes_on(tmp_path: Path) -> None:
    run = Run.start(settings(tmp_path), CONFIG)
    directory = run.directory
    with pytest.raises(ZeroDivisionError), run:
        raise ZeroDivisionError
    assert directory is not None
    assert exit_code(records(directory)) == 1
    run.finish()  # a second time does nothing


def test_a_large_table_is_whole(tmp_path: Path) -> None:
    """Past 10,000 rows W&B would cut it."""
    n = 10_050
    with Run.start(settings(tmp_path), {}) as run:
        run.log_table("correlations", pd.DataFrame({"r": range(n)}))
    (path,) = tmp_path.rglob("*.table.json")
    assert len(json.loads(path.read_text())["data"]) == n


def test_nothing_to_log_is_no_error(tmp_path: Path) -> None:
    with Run.start(settings(tmp_path), {}) as run:
        run.log_table("effects", pd.DataFrame())
        run.log_curves(pd.DataFrame())
        run.log_images({})
        run.log_summary({})


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with (
        Run.start(settings(tmp_path), {}) as run,
        pytest.raises(FileNotFoundError, match=r"expected an image at .*missing\.png, found none"),
    ):
        run.log_images({"heatmap": tmp_path / "missing.png"})


def test_disabled_touches_nothing(tmp_path: Path) -> None:
    done = program(
        """
        import sys
        with Run.start(settings(Path("job"), mode="disabled"), CONFIG) as run:
            assert run.directory is None and run.url is None and not run.offline
            log_all(run, Path.cwd())
        assert "wandb" not in sys.modules
        """,
        tmp_path,
    )
    assert done.stderr == ""
    assert {path.name for path in tmp_path.iterdir()} == {"heatmap.png"}


def program(
    code: str, directory: Path, *, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run code that uses this module in a process of its own; its log goes to stderr."""
    head = f"""
        import logging, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).resolve().parent.parent)!r})
        from tests.test_tracking import *
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code)],
        cwd=directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done


ONLINE = """
import time
begun = time.monotonic()
with Run.start(settings(Path("job"), mode="online"), CONFIG) as run:
    print(run.directory, run.offline, time.monotonic() - begun)
    log_all(run, Path.cwd())
"""


def check_went_offline(directory: Path, reason: str, *, key: str = KEY, **environment: str) -> None:
    """An online run without a server ends up whole on disk, after one warning."""
    done = program(ONLINE, directory, WANDB_API_KEY=key, **environment)
    path, offline, seconds = done.stdout.split()
    assert offline == "True"
    assert float(seconds) < 30
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("WARNING W&B: ")
    assert reason in warning
    assert warning.endswith(f"this run is kept offline, upload it later with `wandb sync {path}`")
    check_whole(Path(path))
    (only,) = (directory / "job" / "wandb").glob("*run-*")
    assert only == Path(path)


def test_online_without_a_server_goes_on_offline(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        reason = f"no answer from {url} (Connection refused)"
        check_went_offline(tmp_path, reason, WANDB_BASE_URL=url)


@pytest.mark.slow
def test_online_with_a_server_that_hangs_goes_on_offline(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        reason = f"no answer from {url} (waited 6 s)"
        check_went_offline(tmp_path, reason, WANDB_BASE_URL=url)


class FakeServer(BaseHTTPRequestHandler):
    """As much of a W&B server as beginning and ending a run asks for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply({})

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path != "/graphql":
            self.reply({})
            return
        asked = json.loads(sent)
        project = {"id": "p", "name": "arithmetic", "entity": {"id": "e", "name": "me"}}
        bucket = {
            "id": "r",
            "name": asked.get("variables", {}).get("name"),
            "displayName": "x",
            "config": "{}",
            "historyLineCount": 0,
            "project": project,
        }
        viewer = {"id": "u", "entity": "me", "username": "me", "flags": "{}"}
        answers = {
            "Viewer": {"viewer": viewer | {"teams": {"edges": []}}},
            "UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": True}},
            "ServerFeaturesQuery": {"serverInfo": {"features": []}},
            "CreateRunFiles": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": []}},
        }
        self.reply({"data": answers.get(asked["operationName"])})

    def reply(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class OtherServer(FakeServer):
    """Some server, but none of W&B."""

    def do_POST(self) -> None:
        self.send_error(404)


class HangingServer(FakeServer):
    """Answers, but not what a run asks."""

    def do_POST(self) -> None:
        time.sleep(60)


class FailingServer(FakeServer):
    """Begins a run and is never heard of again: its uploads wait."""

    def do_POST(self) -> None:
        if self.path != "/graphql":
            time.sleep(60)
        super().do_POST()


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that has gone is no news."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = QuietServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_online_with_a_server(tmp_path: Path) -> None:
    code = """
    logging.getLogger().setLevel(logging.INFO)
    for job in range(2):
        with Run.start(settings(Path("job"), mode="online"), CONFIG) as run:
            print(run.url, run.offline)
            run.log_summary(SUMMARY)
    """
    with serving(FakeServer) as url:
        done = program(code, tmp_path, WANDB_API_KEY=KEY, WANDB_BASE_URL=url)
    pages = [line.split()[0] for line in done.stdout.splitlines()]
    assert len(set(pages)) == 2
    assert all(page.startswith(f"{url}/me/arithmetic/runs/") for page in pages)
    assert done.stderr.splitlines() == [f"INFO W&B: {page}" for page in pages]


@pytest.mark.slow
def test_an_upload_that_hangs_is_given_up_and_kept(tmp_path: Path) -> None:
    code = """
    with Run.start(settings(Path("job"), mode="online", finish_timeout_s=2.0), CONFIG) as run:
        print(run.directory, run.offline)
        run.log_summary(SUMMARY)
    """
    with serving(FailingServer) as url:
        done = program(code, tmp_path, timeout=60, WANDB_API_KEY=KEY, WANDB_BASE_URL=url)
    path, offline = done.stdout.split()
    assert offline == "False"
    (warning,) = done.stderr.splitlines()
    assert warning.endswith(f"finish it with `wandb sync --include-online {path}`")
    assert HEADLINE.items() <= summary_of(records(Path(path))).items()


def test_online_with_some_other_server_goes_on_offline(tmp_path: Path) -> None:
    with serving(OtherServer) as url:
        reason = f"no run on {url} (not the answer of a W&B server)"
        check_went_offline(tmp_path, reason, WANDB_BASE_URL=url)


@pytest.mark.slow
def test_online_with_a_server_that_hangs_later_goes_on_offline(tmp_path: Path) -> None:
    with serving(HangingServer) as url:
        check_went_offline(tmp_path, f"no run on {url} (", WANDB_BASE_URL=url)


@pytest.mark.parametrize(
    ("key", "reason"),
    [("", "no API key for {url} (set one with `wandb login`)"), ("abc", "no usable API key")],
)
def test_online_without_a_key_goes_on_offline(key: str, reason: str, tmp_path: Path) -> None:
    with serving(FakeServer) as url:
        check_went_offline(
            tmp_path,
            reason.format(url=url),
            key=key,
            WANDB_BASE_URL=url,
            HOME=str(tmp_path / "home"),  # with no .netrc
        )


def test_files_hold_no_token_and_no_environment(tmp_path: Path) -> None:
    secret = "swordfish-in-the-environment"
    done = program(
        """
        with Run.start(settings(Path("job")), CONFIG) as run:
            print("printed to the console")
            log_all(run, Path.cwd())
        """,
        tmp_path,
        WANDB_API_KEY=KEY,
        MECH_SECRET=secret,
    )
    assert done.stderr == ""
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        for unwanted in (KEY, secret, "MECH_SECRET", "printed to the console"):
            assert unwanted.encode() not in content, path
    assert not {"requirements.txt", "wandb-metadata.json"} & {path.name for path in files}


def test_an_offline_run_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="mech_arith")
    with Run.start(settings(tmp_path), CONFIG) as run:
        log_all(run, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name.startswith("mech_arith")] == []
