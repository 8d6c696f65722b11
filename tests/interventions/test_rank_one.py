"""Rank 1 is what single directions were: numbers saved before subspaces had ranks."""

from pathlib import Path

import pandas as pd
import pytest

from tests.running import main

SAVED = Path(__file__).parent / "rank_one.csv"
SMALL = (
    "problems.n=160",
    "intervention.n_problems=24",
    "intervention.controls={random:3,span:3,valueless:3}",
    "threads=1",
    "wandb=disabled",
)
CELLS = {
    "encoder_scale": ("model=arith_encoder", "layers=[1,2]", "intervention.centre=false"),
    "encoder_decorrelated": (
        "model=arith_encoder",
        "intervention=interchange",
        "problems.design=decorrelated",
        "problems.decorrelate=b-c",
        "layers=[3]",
    ),
    "decoder_interchange": ("intervention=interchange", "layers=[1,3]"),
}
KEY = ["layer", "value", "component"]


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_numbers_of_rank_one_are_as_they_were(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cell: str
) -> None:
    """But for what depends on directions without a value, whose draws turn with the last bit."""
    assert main(monkeypatch, tmp_path, *SMALL, *CELLS[cell]) == 0
    now = pd.read_parquet(tmp_path / "run" / "evidence.parquet")
    saved = pd.read_csv(SAVED)
    saved = saved.loc[saved["cell"] == cell].drop(columns="cell").set_index(KEY)
    assert set(now["rank"]) == {1}
    now = now.astype({"layer": int, "component": int, "value": str})
    now = now.set_index(KEY)[[*saved.columns]].astype(float)
    pd.testing.assert_frame_equal(
        now.sort_index(),
        saved.sort_index().astype(float),
        atol=2e-4,
        rtol=0,
        check_index_type=False,
    )
