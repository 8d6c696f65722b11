"""A W&B run on disk."""

import contextlib
import io
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from mech_arith.common.errors import UserError
from mech_arith.reports.wandb import Run, TrackingSettings, upload
from mech_arith.reports.wandb.metrics import curves
from tests.waiting import PATIENCE_S
from tests.wandb_runs import (
    CONFIG,
    HEADLINE,
    KEY,
    SUMMARY,
    check_history,
    effects,
    exit_code,
    of_type,
    program,
    records,
    settings,
    summary_of,
    tracked,
)


def check_whole(run_directory: Path) -> None:
    """Everything that `log_all` logs is in the offline run."""
    found = records(run_directory)
    (run,) = of_type(found, "run")
    assert run["config"]["update"]["problems"] == {"n": 1000}
    (more,) = [record["update"] for record in of_type(found, "config")]
    assert more["cell"] == SUMMARY["cell"]
    assert more["values"] == {"b": "b", "a_div_b": "a//b"}
    assert (
        run["project"],
        run["run_group"],
        run["display_name"],
        run["tags"],
        run["job_type"],
    ) == (
        "arithmetic",
        "sweep",
        "cell 0",
        ["x"],
        "cell",
    )
    summary = summary_of(found)
    assert HEADLINE.items() <= summary.items()
    prefixes = (
        "accuracy_drop/",
        "drop_by",
        "control_drop",
        "control_acc",
        "best_abs_r",
        "strength",
        "layer",
    )
    for prefix in (*prefixes, "excess_drop/", "iia/", "floor/", "ceiling/"):
        assert not [name for name in summary if name.startswith(prefix)]
    check_history([record["item"] for record in of_type(found, "history")])
    axes = {
        m["glob_name"]: m["step_metric"] for m in of_type(found, "metric") if "step_metric" in m
    }
    assert axes == {
        "best_abs_r/*": "layer",
        "drop_by_layer/*": "layer",
        "control_drop_by_layer/*": "layer",
        "as_expected/*": "layer",
        "drop_by_strength/*": "strength",
        "control_drop_by_strength/*": "strength",
        "accuracy_drop/*": "strength",
        "control_accuracy_drop/*": "strength",
        **{f"{curve}/*": "layer" for curve in curves()},
    }

    tables = {path.name.split("_")[0]: path for path in run_directory.rglob("*.table.json")}
    assert len(json.loads(tables["correlations"].read_text())["data"]) == 12
    assert len(json.loads(tables["effects"].read_text())["data"]) == len(effects())
    (image,) = run_directory.rglob("heatmap*.png")
    with Image.open(image) as opened:
        assert opened.size == (4, 3)
    assert exit_code(found) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mode": "onlin"}, "unknown W&B mode 'onlin'; expected one of: online, offline, disabled"),
        ({"project": ""}, "expected a W&B project, got an empty name; set wandb.project"),
        ({"run_id": "a/b"}, "expected a W&B run id of 1 to 64 letters, digits, '-' and '_'"),
        ({"wait_s": 3.0}, "expected wandb.wait_s of 10 or more, got 3.0; raise it"),
        ({"wait_s": float("nan")}, "got nan"),
    ],
)
def test_bad_settings(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert TrackingSettings.wait_s == 30  # a cell waits for W&B no longer
    with pytest.raises(UserError) as caught:
        settings(tmp_path, **change)
    assert said in str(caught.value)


def test_an_offline_run_holds_everything(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    directory = tracked(tmp_path / "job")
    assert directory.parent == tmp_path / "job" / "wandb"
    check_whole(directory)


def test_tables_are_as_they_were(tmp_path: Path) -> None:
    table = pd.DataFrame({"value": ["a", "b"], "r": [0.5, float("nan")], "layer": [0, 1]})
    with Run.start(settings(tmp_path), CONFIG) as run:
        run.log_table("correlations", table)
    (path,) = tmp_path.rglob("*.table.json")
    expected = {"columns": ["value", "r", "layer"], "data": [["a", 0.5, 0], ["b", None, 1]]}
    assert json.loads(path.read_text()) == expected


def test_nothing_is_kept_outside_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables as artifacts would lie in the home directory until they are sent, or for ever."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "job").mkdir()
    folder = tracked(tmp_path / "job")
    assert not of_type(records(folder), "artifact")
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


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


def test_the_run_of_an_agents_sweep_keeps_its_own_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variable wandb gives it a random id, so that a restart makes a second run."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "swept")
    monkeypatch.setenv("WANDB_RUN_ID", "the-agents")
    folder = tracked(tmp_path, run_id="abc", sweep_id="swept")
    (run,) = of_type(records(folder), "run")
    assert (run["run_id"], run["sweep_id"], run["project"]) == ("abc", "swept", "arithmetic")
    assert os.environ["WANDB_RUN_ID"] == "the-agents"  # it is others' too


def test_long_tags_and_names_stay_distinct(tmp_path: Path) -> None:
    stem = "a" * 80
    tags, name = (f"{stem}1", f"{stem}2", "short"), stem + stem
    (run,) = of_type(records(tracked(tmp_path, tags=tags, name=name)), "run")
    assert len(set(run["tags"])) == 3
    assert "short" in run["tags"]
    assert max(len(tag) for tag in run["tags"]) == 64
    assert len(run["display_name"]) == 128


def test_a_full_disk_is_no_traceback_of_wandbs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Run.start(settings(tmp_path), CONFIG):
        *_, handler = logging.getLogger("wandb").handlers
        assert isinstance(handler, logging.StreamHandler)
        full = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)
        kept = handler.setStream(full)
        logging.getLogger("wandb").warning("lost")
        handler.setStream(kept)
        with contextlib.suppress(OSError):
            full.close()
    assert capfd.readouterr().err == ""


def test_a_run_of_the_same_id_takes_the_place_of_the_earlier(tmp_path: Path) -> None:
    """A requeued job in the same directory; the first was cut off, and left half of its rows."""
    wandb = tmp_path / "wandb"
    cut_off = Run.start(settings(tmp_path, run_id="abc"), CONFIG)
    cut_off.finish(failed=True)
    (wandb / "run-20260101_000000-abc").mkdir()
    (wandb / "offline-run-20260101_000000-abcd").mkdir()
    time.sleep(1.1)  # a folder is named by its id and second
    folder = tracked(tmp_path, run_id="abc")
    check_whole(folder)
    assert {path.name for path in wandb.glob("*run-*")} == {
        folder.name,
        "run-20260101_000000-abc",  # an online run of wandb's own: not ours to remove
        "offline-run-20260101_000000-abcd",
    }


def test_a_run_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    earlier = tracked(tmp_path, run_id="abc")
    time.sleep(1.1)
    run = Run.start(settings(tmp_path, run_id="abc"), CONFIG)
    assert run.directory != earlier
    with pytest.raises(ZeroDivisionError), run:
        raise ZeroDivisionError
    check_whole(earlier)


def test_an_exception_finishes_the_run_and_passes_on(tmp_path: Path) -> None:
    run = Run.start(settings(tmp_path), CONFIG)
    directory = run.directory
    with pytest.raises(ZeroDivisionError), run:
        raise ZeroDivisionError
    assert directory is not None
    assert exit_code(records(directory)) == 1
    run.finish()  # a second time does nothing


def test_a_run_that_does_not_reach_the_disk_is_no_success(tmp_path: Path) -> None:
    """wandb's own process may die or find the disk full, and it is for others to say so."""
    folder = tracked(tmp_path)
    upload.check_whole(folder, within_s=PATIENCE_S)
    (log,) = folder.glob("*.wandb")
    for length in (len(log.read_bytes()) - 1, 7, 0):
        os.truncate(log, length)
        with pytest.raises(OSError, match=r"expected a whole W&B run in .*, got one that was cut"):
            upload.check_whole(folder, within_s=0.1)

    (tmp_path / "job").mkdir()
    run = Run.start(settings(tmp_path / "job"), CONFIG)
    shutil.rmtree(tmp_path / "job")
    with pytest.raises(FileNotFoundError):
        run.finish()


def test_a_large_table_is_whole(tmp_path: Path) -> None:
    """Past 10,000 rows W&B would cut it."""
    n = 10_050
    with Run.start(settings(tmp_path), {}) as run:
        run.log_table("correlations", pd.DataFrame({"r": range(n)}))
    (path,) = tmp_path.rglob("*.table.json")
    assert len(json.loads(path.read_text())["data"]) == n


def test_nothing_to_log_is_no_error(tmp_path: Path) -> None:
    nothing = pd.DataFrame(columns=["layer", "position", "value", "r_fit", "abs_r"])
    with Run.start(settings(tmp_path), {}) as run:
        run.log_table("effects", pd.DataFrame())
        run.log_curves(nothing, pd.DataFrame(), pd.DataFrame(), positions="all")
        run.log_images({})
        run.log_summary({})


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with (
        Run.start(settings(tmp_path), {}) as run,
        pytest.raises(FileNotFoundError, match=r"expected an image at .*missing\.png, found none"),
    ):
        run.log_images({"heatmap": tmp_path / "missing.png"})


@pytest.mark.slow
def test_disabled_touches_nothing(tmp_path: Path) -> None:
    done = program(
        """
        import sys
        with Run.start(settings(Path("job"), mode="disabled"), CONFIG) as run:
            assert run.directory is None
            log_all(run, Path.cwd())
        assert "wandb" not in sys.modules
        """,
        tmp_path,
    )
    assert done.stderr == ""
    assert {path.name for path in tmp_path.iterdir()} == {"heatmap.png"}


@pytest.mark.slow
def test_files_hold_no_token_and_no_environment(tmp_path: Path) -> None:
    done = program(
        """
        with Run.start(settings(Path("job")), CONFIG) as run:
            print("printed to the console")
            log_all(run, Path.cwd())
        """,
        tmp_path,
        WANDB_API_KEY=KEY,
        HF_TOKEN="hf_swordfish",
        MECH_SECRET="swordfish-in-the-environment",
    )
    assert done.stderr == ""
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        for unwanted in (KEY, "swordfish", "MECH_SECRET", "HF_TOKEN", "printed to the console"):
            assert unwanted.encode() not in content, path
    assert not {"requirements.txt", "wandb-metadata.json"} & {path.name for path in files}


def test_an_offline_run_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="mech_arith")
    tracked(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name.startswith("mech_arith")] == []
