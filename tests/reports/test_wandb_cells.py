"""A cell's record says that it was tracked only once its run is whole on disk."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from mech_arith.common.runs.records import read_record
from mech_arith.reports.wandb import Run
from tests.running import SMALL, main
from tests.wandb_runs import exit_code, records

CELL = [*(one for one in SMALL if one != "wandb=disabled"), "layers=early"]


def tracked_as(run: Path) -> str | None:
    record = read_record(run)
    assert record is not None
    return record.tracked


@pytest.mark.slow
def test_a_run_that_is_lost_is_logged_at_the_cells_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, log_images = tmp_path / "run", Run.log_images

    def and_lose_all(self: Run, images: Mapping[str, Path]) -> None:
        log_images(self, images)
        shutil.rmtree(run / "wandb")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log_images", and_lose_all)
        assert main(monkeypatch, tmp_path, *CELL) == 0
    assert "W&B failed, the results are on disk all the same" in (run / "mech_arith.log").read_text(
        encoding="utf-8"
    )
    assert tracked_as(run) is None

    assert main(monkeypatch, tmp_path, *CELL) == 0
    assert tracked_as(run) == "offline"
    (folder,) = (run / "wandb").glob("offline-run-*")
    assert exit_code(records(folder)) == 0
