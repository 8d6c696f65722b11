"""What a dry run says of cells: counted as the run counts, without weights, and nothing written."""

import json
import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from mech_arith import compose
from mech_arith.common.paths import checkpoints_dir
from mech_arith.engine.passes import Resumed
from mech_arith.experiment.names import model_choice
from mech_arith.experiment.pricing.price import Price, Prices
from mech_arith.experiment.pricing.work import Costs
from mech_arith.models.arithmetic.decoder import ArithmeticDecoder
from mech_arith.models.kinds import find_loader
from mech_arith.models.stand_in import StandIn
from tests.lms import tiny_lm
from tests.running import SMALL, main

GIVEN = 1e10
DRY = "sweep.dry_run=true"
FEW = (
    "problems.n=48",
    "tracing.n_components=3",
    "intervention.n_problems=12",
    "inference.resamples=100",
    "inference.permutations=100",
    "layers=[1]",
    "store.enabled=false",
)
DRAWN = "intervention.controls={random:3,span:0,valueless:0,other:false,shuffled:false}"
TOWARDS = ("intervention=interchange", "intervention.values=[b-c]", "intervention.sources=2")
COUNTED = {
    "scale": ("intervention.components=[0,2]", "tracing.position_map=false", DRAWN),
    "interchange": (*TOWARDS, "tracing=pls", "tracing.position_map=false", DRAWN),
    "screen": (
        "screen=attribution",
        "screen.keep=2",
        "intervention=none",
        "tracing.positions=each",
    ),
}
"""Cells whose edits do not hang on which component is the best one."""


SHARED = Prices(GIVEN)
"""Models and rehearsals are the same in most tests."""


def price_of(*overrides: str, prices: Prices = SHARED) -> Price:
    return prices.of(compose(*overrides).settings, "cell")


def rows_run(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    """Edited rows that a real run puts through the model."""
    rows, made = [], Resumed.__init__

    def counting(self, clean, change, *, n_edits=1):
        if change is not None:
            rows.append(len(clean.layout) * n_edits)
        made(self, clean, change, n_edits=n_edits)

    cell = compose(*overrides)
    assert cell.session.model  # the guard's rows are counted too: they are few
    with monkeypatch.context() as patched:
        patched.setattr(Resumed, "__init__", counting)
        cell.run()
    return sum(rows)


GUARD = 2 * 3 * 2
"""Rows of the check of the fast path, at most: problems x sites x edits."""


@pytest.mark.parametrize("kind", COUNTED)
def test_as_many_rows_are_priced_as_are_run(monkeypatch, kind):
    priced = price_of(*FEW, *COUNTED[kind])
    assert priced.refused is None
    assert priced.rows == pytest.approx(rows_run(monkeypatch, *FEW, *COUNTED[kind]), abs=GUARD)


def test_cells_of_other_operands_are_counted_anew():
    """Where b is always the same, nothing is edited towards it."""
    asked = (*FEW, DRAWN, "intervention=interchange", "intervention.sources=1")
    whole, fixed = price_of(*asked), price_of(*asked, "+problems.operands.b={min:5,max:5}")
    assert fixed.edits < whole.edits


def test_draws_that_go_on_are_priced_at_their_fewest_and_the_most_are_said():
    sequential = ("intervention.controls.random=99", "intervention.controls.stop_after=10")
    priced = price_of(*FEW, *sequential)
    assert priced.edits == price_of(*FEW, "intervention.controls.random=20").edits
    (said,) = [text for text in priced.warnings if "until p is decided" in text]
    assert "60 to 139 beside each target, priced as 60; up to 2.3 times the edits" in said


def test_edits_are_subspaces_times_strengths():
    priced = price_of(*FEW, *COUNTED["scale"])
    # One layer, two components with three controls each, five strengths of which one does nothing.
    assert priced.edits == 2 * (1 + 3) * 5
    assert priced.rows == 2 * (1 + 3) * 4 * 12
    assert (priced.fit, priced.report, priced.edited, priced.sites) == (24, 24, 12, 1)


def test_a_block_is_counted_in_multiply_adds():
    stand_in = _stand_in("model=arith_decoder")
    assert isinstance(stand_in.model, ArithmeticDecoder)
    shape = stand_in.model.shape
    costs = Costs.of(stand_in.model)
    assert costs.block == 4 * shape.d_model**2 + 2 * shape.d_model * shape.d_mlp
    assert costs.read_out == shape.d_model * shape.d_vocab
    assert (stand_in.model.n_layers, stand_in.n_layers) == (2, 4)


def test_time_is_multiply_adds_by_the_rate_and_what_stands_beside():
    cell = (*FEW, *COUNTED["scale"])
    slow, fast = price_of(*cell, prices=Prices(1e9)), price_of(*cell)
    assert slow.engine_s == pytest.approx(slow.macs / 1e9)
    assert slow.engine_s == pytest.approx(10 * fast.engine_s)
    assert slow.other_s == pytest.approx(fast.other_s, abs=1.0)


def test_a_rate_is_measured_where_none_is_given():
    priced = price_of(*FEW, *COUNTED["scale"], prices=Prices(None))
    assert 0 < priced.engine_s < 600


@cache
def _asked_beside(*own: str) -> Price:
    return price_of(*FEW, DRAWN, *ONE_COMPONENT, *own)


ONE_COMPONENT = ("intervention.components=[0]",)


@pytest.mark.parametrize(
    ("more", "fewer"),
    [
        (("locality.enabled=true",), ()),
        (("tracing.untrained_twins=2",), ()),
        (("screen=integrated", "screen.keep=1"), ("screen=attribution", "screen.keep=1")),
        (("tracing=das", *TOWARDS), ("tracing=pls", *TOWARDS)),
        (
            (*TOWARDS[:1], "hypothesis.rivals=[left_to_right]"),
            TOWARDS[:1],
        ),
        (("tracing.point=z", "tracing.heads=each"), ("tracing.point=z",)),
        (("engine=full",), ()),
        (
            (
                "intervention=ablate",
                "tracing.point=mlp_out",
                "tracing.positions=last",
                "layers=[0]",
            ),
            ("intervention=none", "tracing.point=mlp_out", "tracing.positions=last", "layers=[0]"),
        ),
    ],
)
def test_what_is_asked_for_beside_costs_more(more, fewer):
    dear, cheap = (_asked_beside(*own) for own in (more, fewer))
    assert dear.refused is cheap.refused is None
    assert dear.macs > cheap.macs


def test_edits_of_weights_are_models_that_answer_every_problem():
    at = ("tracing.point=mlp_out", "tracing.positions=last", DRAWN, "intervention=ablate")
    by_weights, plainly = (
        price_of(*FEW, *at, f"intervention.via={via}") for via in ("weights", "activations")
    )
    assert by_weights.refused is None
    assert by_weights.edits == plainly.edits
    assert by_weights.macs > plainly.macs


def _stand_in(*overrides: str) -> StandIn:
    cell = compose(*overrides)
    choice = model_choice(cell.settings)
    loader = find_loader(choice.kind)
    found = loader.stand_in(choice, device="cpu", shots=cell.prepared.shots)
    assert isinstance(found, StandIn)
    return found


@pytest.mark.parametrize("model", ["arith_decoder", "arith_encoder"])
def test_a_stand_in_has_the_fingerprint_of_the_model_and_no_weights(tmp_path, model):
    whole = compose(f"model={model}").session.model
    shutil.copy(checkpoints_dir() / model / "card.json", tmp_path)
    alone = _stand_in("model=trained", f"model.path={tmp_path}")
    assert alone.model.fingerprint == whole.fingerprint
    assert alone.n_layers == whole.n_layers


def test_a_language_model_is_priced_by_config_and_tokenizer(tmp_path):
    directory = tiny_lm("llama", tmp_path / "lm")
    settings = ("model=hf", f"model.path={directory}", *FEW, "problems.operands.max=9", DRAWN)
    settings = (*settings, "problems.operands.min=0", "template=sum_of_three", "tracing=pca_last")
    settings = (*settings, "layers=all", "store.enabled=true", f"store.path={tmp_path}/store")
    whole = compose(*settings).session.model
    known = _stand_in(*settings).model.fingerprint
    assert known == whole.fingerprint
    before = price_of(*settings)
    # In half precision a few problems are run in batches and alone.
    assert price_of(*settings, "dtype=bfloat16").macs > before.macs
    for path in Path(directory).glob("*.safetensors*"):
        path.unlink()
    after = price_of(*settings, prices=Prices(GIVEN))
    assert before.refused is after.refused is None
    assert (before.rows, before.macs) == (after.rows, after.macs)
    assert any("the weights are not here" in text for text in after.warnings)


def test_nothing_is_written_and_cells_that_would_be_refused_are_listed(
    monkeypatch, tmp_path, capsys
):
    cells = ("layers=[0],[99]", "tracing.positions=last,all", "intervention=none")
    assert main(monkeypatch, tmp_path, *SMALL, *cells, DRY, "sweep.rate=1e9", sweep=True) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "refused (cells 2-3): expected layers.list of distinct layers from 0 to 3" in said
    assert "Rate: 1G multiply-adds per second, as sweep.rate says." in said
    assert not list(tmp_path.iterdir())


def test_a_single_cell_is_priced_for_programs_and_leaves_nothing(monkeypatch, tmp_path, capsys):
    asked = (*SMALL, "layers=[2]", "sweep.dry_run=json", "sweep.rate=1e9")
    assert main(monkeypatch, tmp_path, *asked) == 0
    found = json.loads(capsys.readouterr().out)
    (cell,) = found["cells"]
    assert cell["sites"] == 1
    assert found["total"]["seconds"] > cell["seconds"] > cell["macs"] / 1e9
    assert not list(tmp_path.iterdir())


def test_a_launcher_starts_no_job(monkeypatch, tmp_path, capsys):
    asked = ("hydra/launcher=local", "layers=[1],[2]", "sweep.pack=2", "sweep.workers=2")
    asked = (*asked, "sweep.rate=1e9")
    assert main(monkeypatch, tmp_path, *SMALL, *asked, "sweep.dry_run=json", sweep=True) == 0
    assert json.loads(capsys.readouterr().out)["total"]["starts"] == 1
    assert not list(tmp_path.iterdir())


def test_what_the_store_has_is_told_and_left_out(tmp_path):
    own = (*FEW[:-1], f"store.path={tmp_path}", "intervention=none", "tracing.position_map=false")
    before = price_of(*own)
    compose(*own).run()
    after = price_of(*own)
    assert before.kept == ()
    assert after.kept == ("baseline", "1 of 1 traced sites")
    assert set(before.stages) - set(after.stages) == {"baseline", "tracing"}


def test_a_finished_sweep_costs_nothing_more(monkeypatch, tmp_path, capsys):
    cell = ("layers=[1]", "intervention=none", "tracing.position_map=false")
    assert main(monkeypatch, tmp_path, *SMALL, *cell, sweep=True) == 0
    capsys.readouterr()
    resumed = (f"sweep.resume={tmp_path / 'run'}", "sweep.dry_run=json", "sweep.rate=1e9")
    assert main(monkeypatch, tmp_path, *resumed, sweep=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert [cell["is_done"] for cell in found["cells"]] == [True]
    assert found["total"]["seconds"] == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("sweep.rate=0", "expected sweep.rate as multiply-adds per second above 0, got 0"),
        ("sweep.rate=-2", "expected sweep.rate as multiply-adds per second above 0, got -2"),
        ("sweep.rate=fast", "expected sweep.rate as multiply-adds per second above 0, got 'fast'"),
        ("sweep.dry_run=maybe", "expected sweep.dry_run=true, false or json, got 'maybe'"),
        ("sweep.dry_run=0", "expected sweep.dry_run=true, false or json, got 0"),
        ("sweep.dry_run=null", "expected sweep.dry_run=true, false or json, got None"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, tmp_path, capsys, asked, said):
    assert main(monkeypatch, tmp_path, *SMALL, DRY, asked, sweep=True) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_several_choices_need_a_sweep(monkeypatch, tmp_path, capsys):
    assert main(monkeypatch, tmp_path, *SMALL, "layers=early,late", DRY) == 1
    assert "add -m to run a sweep of all" in capsys.readouterr().err


def test_too_few_draws_are_told_before_the_run():
    priced = _asked_beside()
    assert any(
        "of a drop beyond 3 random directions is 0.25 at least" in w for w in priced.warnings
    )


def test_a_model_that_has_no_stand_in_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(
        "mech_arith.experiment.pricing.price.find_loader",
        lambda _: SimpleNamespace(stand_in=lambda *_, **__: None),
    )
    assert "whose loader has no stand_in" in (price_of(*FEW, prices=Prices(GIVEN)).refused or "")
