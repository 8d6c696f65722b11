"""What one cell leaves in the store, and which others find it there."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mech_arith.evidence.results import RunResult, load_run
from tests.running import SMALL, main
from tests.waiting import PATIENCE_S

CELL = (*SMALL, "layers=late", "tracing.position_map=false")


@pytest.fixture(autouse=True, scope="module")
def _without_figures() -> Iterator[None]:
    """They take longer than the rest of a cell, and nothing of them is in the store."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("mech_arith.reports.figures.draw_cell", lambda _, to, **__: to.mkdir())
        yield


def entries(store: Path) -> list[Path]:
    return sorted(store.glob("*/??/*.safetensors"))


def cell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, store: Path, *overrides: str
) -> RunResult:
    """Run a cell of its own directory with a store that may be another's."""
    assert main(monkeypatch, tmp_path / name, *CELL, *overrides, f"store.path={store}") == 0
    return load_run(tmp_path / name / "run")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Path]:
    """A cell that found its store empty, and the store."""
    directory = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as monkeypatch:
        return cell(monkeypatch, directory, "cell", directory / "store"), directory / "store"


def test_an_empty_store_is_filled(first):
    run, store = first
    assert run.summary["store"] == {"hits": 0, "misses": len(entries(store))}
    # Components and coordinates of two layers, answers, and the check of the fast path.
    assert len(entries(store)) == 2 * 2 + 2


def test_the_second_of_two_cells_that_differ_in_strength_traces_nothing(
    monkeypatch, tmp_path, first
):
    one, store = first
    found = len(entries(store))
    two = cell(monkeypatch, tmp_path, "two", store, "intervention.strengths=[3.0,4.0]")
    assert two.summary["store"] == {"hits": found, "misses": 0}
    assert len(entries(store)) == found
    pd.testing.assert_frame_equal(
        *(run.tables["correlations"].drop(columns="identity") for run in (one, two))
    )
    edited = [set(run.tables["effects"]["strength"]) for run in (one, two)]
    assert edited == [{0.0, 1.0, 2.0}, {3.0, 4.0}]
    for number in ("baseline_accuracy", "best"):
        assert one.summary[number] == two.summary[number]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "intervention=shift",
        "intervention=none",
        "intervention.n_problems=5",
        "intervention.components=all",
        "batch_size=7",
    ],
)
def test_what_tracing_does_not_depend_on_finds_all_of_it(monkeypatch, tmp_path, first, change):
    _, store = first
    run = cell(monkeypatch, tmp_path, "other", store, change)
    assert run.summary["store"]["misses"] == 0
    assert run.summary["store"]["hits"] > 0


@pytest.mark.slow
def test_of_fewer_layers_the_fast_path_alone_is_checked_anew(monkeypatch, tmp_path, first):
    run = cell(monkeypatch, tmp_path, "other", _copy(first[1], tmp_path), "layers.start=3")
    assert run.summary["store"]["misses"] == 1
    assert run.summary["store"]["hits"] > 0


def test_the_fast_path_is_checked_once_or_else_found_wanting_every_time(
    monkeypatch, tmp_path, first
):
    """A model that is turned to whole passes has to be turned in every cell."""
    checked: list[str] = []

    def differences(model: Any, *_: object) -> list[Any]:
        checked.append(model.name)
        raise ValueError("a block that needs more than its input")

    monkeypatch.setattr("mech_arith.engine.guard._differences", differences)
    store = _copy(first[1], tmp_path)
    # Other problems of the same layouts run by the same passes, and need no check of their own.
    again = cell(monkeypatch, tmp_path, "again", store, "problems.seed=3")
    assert again.summary["engine"] == "resumed"
    assert not checked
    shutil.rmtree(store / "checks")
    for name in ("one", "two"):
        assert cell(monkeypatch, tmp_path, name, store).summary["engine"] == "full passes"
    assert len(checked) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "problems.seed=1",
        "problems.n=62",
        "problems.operands.max=998",
        "problems.constraints=['b > c']",
        "template=sum_then_difference",
        "model=arith_encoder",
        "engine=full",
    ],
)
def test_what_tracing_depends_on_finds_nothing(monkeypatch, tmp_path, first, change):
    run = cell(monkeypatch, tmp_path, "other", _copy(first[1], tmp_path), change)
    # Where the layouts are the same, the fast path has been checked.
    assert run.summary["store"]["hits"] <= 1
    assert run.summary["store"]["misses"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "found"),
    [("tracing.point=mlp_out", 1), ("tracing.n_components=3", 2), ("tracing=pls", 2)],
)
def test_what_the_baseline_does_not_depend_on_finds_that(
    monkeypatch, tmp_path, first, change, found
):
    """And the check of the fast path, which is one of the sites."""
    run = cell(monkeypatch, tmp_path, "other", _copy(first[1], tmp_path), change)
    assert run.summary["store"]["hits"] == found
    assert run.summary["store"]["misses"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["baseline", "checks", "components", "coordinates"])
def test_a_damaged_entry_is_computed_again(monkeypatch, tmp_path, first, stage):
    run, store = first[0], _copy(first[1], tmp_path)
    n_entries = len(entries(store))
    damaged = sorted((store / stage).glob("??/*.safetensors"))[0]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1  # in a tensor's last number, where nothing but the digest tells
    damaged.write_bytes(content)
    again = cell(monkeypatch, tmp_path, "again", store)
    log = (again.directory / "mech_arith.log").read_text(encoding="utf-8")
    assert f"a whole entry at {damaged}, got content that differs from its digest" in log
    assert again.summary["store"] == {"hits": n_entries - 1, "misses": 1}
    assert_same(again, run)
    assert cell(monkeypatch, tmp_path, "third", store).summary["store"]["misses"] == 0


@pytest.mark.slow
def test_a_store_that_is_off_changes_no_number(monkeypatch, tmp_path, first):
    run, _ = first
    off = cell(monkeypatch, tmp_path, "off", tmp_path / "nothing", "store.enabled=false")
    assert off.summary["store"] == {"hits": 0, "misses": run.summary["store"]["misses"]}
    assert not (tmp_path / "nothing").exists()
    assert_same(off, run)


@pytest.mark.slow
def test_two_cells_at_once_share_the_work(tmp_path, first):
    """Jobs of a sweep start together: one computes, the other waits, and both have it."""
    run, _ = first
    cells = [_started(tmp_path / name, tmp_path / "store") for name in ("one", "two")]
    for process in cells:
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, output
    summaries = [load_run(tmp_path / name / "run").summary for name in ("one", "two")]
    n_entries = len(entries(tmp_path / "store"))
    for count in ("hits", "misses"):
        assert sum(summary["store"][count] for summary in summaries) == n_entries
    for name in ("one", "two"):
        assert_same(load_run(tmp_path / name / "run"), run)
    assert not list((tmp_path / "store").glob("*/??/.*.tmp"))


def _started(directory: Path, store: Path) -> subprocess.Popen[str]:
    """The entrypoint as a process of its own."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "mech_arith", *CELL, "threads=1"),
            *(f"hydra.run.dir={directory}/run", f"store.path={store}"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def assert_same(run: RunResult, other: RunResult) -> None:
    """The same tables, but for the last bits of what torch adds up in another order."""
    for name in ("correlations", "effects"):
        one, two = (found.tables[name].drop(columns="identity") for found in (run, other))
        pd.testing.assert_frame_equal(one, two, rtol=1e-6, atol=1e-6)


def _copy(store: Path, tmp_path: Path) -> Path:
    """A store that a test may add to."""
    return Path(shutil.copytree(store, tmp_path / "copy"))
