import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import layer_norm, rms_norm

from mech_arith.common import checkpoint as unfinished
from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.store import Store
from mech_arith.common.streaming import Sums
from mech_arith.directions.base import Subspace, find_method
from mech_arith.engine.batching import Batching
from mech_arith.engine.capture import capture
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.off_distribution import departure_columns, spread_columns
from mech_arith.experiment.cell import CellPlan, run_cell
from mech_arith.interventions.controls import Controls
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.off_distribution import (
    Dose,
    dose_left,
    length_ratio,
    off_distribution,
    within_components,
)
from mech_arith.interventions.run import InterventionPlan
from mech_arith.problems import draw, split
from mech_arith.problems.templates import build_template
from mech_arith.statistics import Resampling
from tests.directions.test_tracing import planted, traced
from tests.lms import tiny_lm
from tests.models.test_norms import activations_of
from tests.models.test_pretrained import PROBLEMS, model_in
from tests.tiny import PlantedModel, tiny_decoder, tiny_encoder

EPS = 1e-5
FAR = torch.tensor([-3.0, -0.5, 0.2, 4.0], dtype=torch.float64)


def rows(*entries):
    return torch.tensor(entries, dtype=torch.float64)


def at_site(changes, component=0, of=None):
    """A dose of one source along one direction."""
    taken = torch.arange(changes.shape[-1]) if of is None else of
    return Dose(Site(0, "resid_post", "last"), (component,), changes[None, ..., None], taken)


def spread_of(coordinates, covariance, dose):
    """Of orthonormal directions with a covariance of the coordinates on them."""
    k = len(covariance)
    directions = torch.eye(k, dtype=torch.float64)
    subspace = Subspace(directions[0], directions, covariance, float(covariance.trace()))
    return spread_columns(within_components(coordinates, subspace, dose))


def led(*asked):
    """Where doses lead, a table each."""
    return [pd.DataFrame(departure_columns(found)) for found in off_distribution(*asked)]


def test_coordinates_outside_the_observed_range_by_hand():
    coordinates = rows([-2, 0], [0, 0], [1, 0], [3, 0])
    changes = rows([0, 0, 0, 0], [2, 2, 2, 2], [-1, 0, 0, 1], [-3, -3, -3, 7])
    found = spread_of(coordinates, torch.eye(2).double(), at_site(changes))
    assert found["outside_range"] == [0, 0.25, 0.5, 0.75]


def test_an_end_of_the_observed_range_is_inside_it_whatever_rounding_does():
    coordinates = torch.tensor([[-0.8], [3.9]], dtype=torch.float64)
    interchanged = coordinates[1, 0] - coordinates[:, 0]
    assert (coordinates[:, 0] + interchanged).max() > 3.9  # by the last bit
    found = spread_of(coordinates, rows([1]), at_site(interchanged[None]))
    assert found["outside_range"] == [0]


def test_the_distance_within_the_components_by_hand():
    coordinates = rows([3, 8], [0, 4])  # of sd 1 and 2: distances 5 and 2
    changes = rows([0, 0], [-3, 0], [0, 1.5], [9, 0])  # 5 and 2; 4 and 2; 5 and 2.5; 12.6 and 2
    found = spread_of(coordinates, rows([1, 0], [0, 4]), at_site(changes))
    expected = [1, 6 / 7, 7.5 / 7, (160**0.5 + 2) / 7]
    assert found["mahalanobis"] == pytest.approx(expected)
    assert found["mahalanobis"][0] == 1
    assert found["beyond_99"] == [0.5, 0, 0.5, 0.5]  # the threshold is 2 + .99 * 3
    other = spread_of(coordinates, rows([1, 0], [0, 4]), at_site(rows([-8, -4]), component=1))
    assert other["mahalanobis"] == pytest.approx([3 / 7])


def test_two_directions_by_hand():
    coordinates = rows([3, 8], [0, 4])  # of sd 1 and 2: distances 5 and 2
    changes = rows([[0, 0], [0, 0]], [[-3, 0], [3, 4]], [[0, 1], [0, 0]])[None]
    dose = Dose(Site(0, "resid_post", "last"), (0, 1), changes, torch.arange(2))
    found = spread_of(coordinates, rows([1, 0], [0, 4]), dose)
    assert found["outside_range"] == [0, 0, 0.5]  # any coordinate of a problem
    far = [[5, 2], [4, 5], [(9 + 20.25) ** 0.5, 2]]
    assert found["mahalanobis"] == pytest.approx([sum(of) / 7 for of in far])
    activation = rows([3, 4, 0], [0, 2, 1])
    ratio = length_ratio(activation, torch.eye(3).double()[:2], changes[0])
    edited = [[[3, 4, 0], [0, 2, 1]], [[0, 4, 0], [3, 6, 1]], [[3, 5, 0], [0, 2, 1]]]
    expected = torch.tensor(edited, dtype=torch.float64).norm(dim=2) / activation.norm(dim=1)
    torch.testing.assert_close(ratio, expected)


def test_the_dose_left_of_two_directions_is_along_the_way_that_each_problem_goes():
    site = Site(1, "resid_post", "b-c")
    session, edited, traces, (dose,) = prepared(tiny_decoder(), ABC, [site])
    both = torch.cat([dose.changes, 0.5 * dose.changes], dim=3)
    (of_plane,) = led(session, edited, traces, [replace(dose, components=(0, 1), changes=both)])
    # All problems go the same way, which is a direction by itself.
    way = torch.tensor([1, 0.5], dtype=torch.float64) / 1.25**0.5
    direction = (way @ traces[site].subspace.directions).view(1, -1, 32).double()
    expected = torch.zeros(3, 12, dtype=torch.float64)
    for layout, captured in capture(session, edited, [site]):
        x = captured[site].double().unflatten(1, (-1, 32))
        far = 1.25**0.5 * dose.changes[0, :, layout.rows, 0]
        along = direction.expand(len(x), -1, -1)
        expected[:, layout.rows] = dose_left(x, along, far, centred=True, eps=1e-5)
    assert of_plane["dose_left"][1:].tolist() == pytest.approx(expected.mean(1)[1:].tolist())


def test_some_problems_towards_several_sources():
    coordinates = rows([-2], [0], [1], [3])
    changes = rows([[4, 1]], [[6, 2]])  # two sources, one strength: to 5 and 2, to 7 and 3
    dose = Dose(Site(0, "z", "last"), (0,), changes[..., None], torch.tensor([2, 1]))
    assert spread_of(coordinates, rows([1]), dose)["outside_range"] == [0.5]


def test_the_length_of_an_edited_activation_by_hand():
    activation = rows([3, 4], [0, 2])
    changes = rows([0, 0], [-3, 0], [2, 2])[..., None]
    ratio = length_ratio(activation, rows([1, 0]), changes)
    torch.testing.assert_close(ratio, rows([1, 1], [0.8, 1], [41**0.5 / 5, 2**0.5]))
    assert (ratio[0] == 1).all()


def normalised(x, *, centred):
    norm = layer_norm if centred else rms_norm
    return norm(x, x.shape[-1:], eps=EPS)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("positions", [1, 3])
def test_the_dose_that_is_left_is_what_torchs_own_norms_leave(centred, positions):
    generator = torch.Generator().manual_seed(positions)
    x = torch.randn(4, positions, 8, generator=generator, dtype=torch.float64) * 2 + 1
    v = torch.randn(positions, 8, generator=generator, dtype=torch.float64)
    v /= v.norm()
    found = dose_left(x, v.expand(4, -1, -1), FAR[:, None].expand(-1, 4), centred=centred, eps=EPS)
    away = x - x.mean(2, keepdim=True) if centred else x
    s = (away.square().mean(2, keepdim=True) + EPS).sqrt()
    for strength, left in zip(FAR, found, strict=True):
        seen = normalised(x + strength * v, centred=centred) - normalised(x, centred=centred)
        torch.testing.assert_close(left, (seen * s * v).sum((1, 2)) / strength)


def left_of(x, v, d, *, centred=False):
    left = dose_left(rows(x)[None], rows(v)[None], rows([d]), centred=centred, eps=1e-12)
    return float(left[0, 0])


def test_what_is_left_of_a_dose_by_hand():
    along = [2, 0, 0, 0]
    assert left_of(along, [1, 0, 0, 0], 2) == pytest.approx(0)  # only the length has changed
    assert left_of(along, [1, 0, 0, 0], -4) == pytest.approx(1)  # turned round
    assert left_of(along, [1, 0, 0, 0], -2) == pytest.approx(1)  # nothing is left of x itself
    assert left_of(along, [0, 1, 0, 0], 1e-6) == pytest.approx(1)  # at right angles, and small
    # The length grows from 2 to sqrt(8): (2 / sqrt(8)) * 2 is left of 2.
    assert left_of(along, [0, 1, 0, 0], 2) == pytest.approx(0.5**0.5)
    # From (2, 2) to (0, 2), which is (0, sqrt(8)) at the length of before: the first axis loses 2.
    assert left_of([2, 2, 0, 0], [1, 0, 0, 0], -2) == pytest.approx(1)
    # From (2, 2) to (1, 2), which is (1, 2) sqrt(8/5) at the length of before.
    assert left_of([2, 2, 0, 0], [1, 0, 0, 0], -1) == pytest.approx(2 - (8 / 5) ** 0.5)


def test_layer_norm_takes_away_what_moves_all_entries_alike():
    all_alike, x = [0.5, 0.5, 0.5, 0.5], [1.0, -1.0, 2.0, -2.0]
    assert left_of(x, all_alike, 3, centred=True) == pytest.approx(0)
    assert left_of(x, all_alike, 1e-6) == pytest.approx(1)


numbers = st.lists(st.floats(-10, 10), min_size=6, max_size=6)


@given(x=numbers, v=numbers, d=st.floats(-20, 20), centred=st.booleans())
def test_a_dose_is_never_turned_round(x, v, d, centred):
    size = rows(v).norm()
    if size > 1e-3:
        assert left_of(x, (rows(v) / size)[0].tolist(), d, centred=centred) >= -1e-9


def prepared(model, problems, sites, *, n=12, batch=50):
    """What `off_distribution` is given: three strengths of component 1 at each of the sites."""
    fit, report = split(problems, fit_share=0.5, seed=0)
    traces = traced(model, fit, report, sites, n_components=2, batch_size=50)
    changes = rows([0.0], [2.0], [-5.0]) * torch.linspace(0.5, 1, n, dtype=torch.float64)
    doses = [replace(at_site(changes, component=1), site=site) for site in sites]
    return Session(model, Batching(batch)), model.encode(report).take(n), traces, doses


NESTED = build_template("nested", "a-(b-c)")
ABC = draw(NESTED, n=40, ranges=dict.fromkeys("abc", (100, 999)), seed=0)


def test_no_change_is_where_the_problems_were():
    (table,) = led(*prepared(tiny_decoder(), ABC, [Site(1, "resid_post", "last")]))
    still = table.loc[0, ["norm_ratio", "norm_ratio_median", "norm_ratio_p95", "mahalanobis"]]
    assert still.tolist() == [1] * 4
    assert table["outside_range"][0] == 0
    assert math.isnan(table["dose_left"][0])
    assert table["reason"].tolist() == ["no problem is moved", "", ""]
    assert table["dose_left"][1:].between(0, 2).all()
    assert (table["norm_ratio"][1:] != 1).all()


@pytest.mark.parametrize(
    ("kind", "point", "position", "places"),
    [
        ("decoder", "resid_post", "b-c", [(1, "resid_post")]),
        ("decoder", "attn_out", "last", [(1, "resid_mid")]),
        ("encoder", "attn_out", "all", [(1, "resid_pre"), (1, "attn_out")]),
        ("encoder", "resid_post", "last", [(1, "resid_post"), (2, "attn_out")]),
        ("llama", "mlp_out", "last", [(1, "resid_post")]),
    ],
)
def test_the_share_left_is_that_of_the_models_own_stream(kind, point, position, places, tmp_path):
    """By activations read apart from the module, and by what torch's norms make of them."""
    if kind == "llama":
        model, problems = model_in(tiny_lm("llama", tmp_path)), PROBLEMS
    else:
        model, problems = (tiny_decoder if kind == "decoder" else tiny_encoder)(), ABC
    site = Site(1, point, position)
    n = min(12, len(problems) // 2)
    session, edited, traces, doses = prepared(model, problems, [site], n=n, batch=5)
    (table,) = led(session, edited, traces, doses)
    eps = {"decoder": 1e-5, "encoder": 1e-12, "llama": 1e-6}[kind]

    left = []
    for layout in edited.layouts:
        found = activations_of(model, edited.whole(layout))
        first, at = len(edited.prefix), list(layout.positions(position))
        x = torch.stack([found[place][:, first:][:, at] for place in places]).sum(0).double()
        v = traces[site].subspace.directions[1].double().unflatten(0, (len(at), -1))
        for row, d in zip(x, doses[0].changes[0, 2, layout.rows, 0], strict=True):
            away = row if kind == "llama" else row - row.mean(1, keepdim=True)
            s = (away.square().mean(1, keepdim=True) + eps).sqrt()
            norm = rms_norm if kind == "llama" else layer_norm
            clean, moved = (norm(y, y.shape[-1:], eps=eps) for y in (row, row + d * v))
            left.append(float(((moved - clean) * s * v).sum() / d))
    assert table["dose_left"][2] == pytest.approx(sum(left) / len(left), rel=1e-4)
    assert table["reason"][2] == ""


def test_where_nothing_normalises_there_is_a_reason_and_no_number():
    tables = led(*prepared(tiny_decoder(), ABC, [Site(1, "z", "last")])) + led(
        *prepared(PlantedModel(), ABC, [Site(0, "resid_post", "last")])
    )
    for table, point in zip(tables, ("z", "resid_post"), strict=True):
        assert set(table["reason"]) == {f"nothing normalises the stream that {point} moves"}
        assert table["dose_left"].isna().all()
        assert table["norm_ratio"].notna().all()


@pytest.mark.parametrize("make", [tiny_decoder, tiny_encoder])
def test_numbers_do_not_depend_on_batches(make):
    sites = [Site(0, "attn_out", "all"), Site(1, "resid_pre", "b-c"), Site(1, "z", "last")]
    session, *asked = prepared(make(), ABC, sites, batch=50)
    of_few = led(replace(session, batching=Batching(5)), *asked)
    for whole, small in zip(led(session, *asked), of_few, strict=True):
        pd.testing.assert_frame_equal(whole, small, rtol=1e-4)


def test_problems_without_a_dose_are_left_out():
    site = Site(0, "mlp_out", "all")
    session, prompts, traces, (dose,) = prepared(tiny_decoder(), ABC, [site], batch=5)
    some = torch.tensor([7, 2, 3])
    few = replace(dose, changes=dose.changes[:, :, some], rows=some)
    still = torch.ones(12, dtype=torch.bool)
    still[some] = False
    masked = replace(dose, changes=dose.changes.masked_fill(still[:, None], 0.0))
    of_few, of_all = led(session, prompts, traces, [few, masked])
    assert of_few["dose_left"][2] == pytest.approx(of_all["dose_left"][2])
    moved = (of_few["norm_ratio"][2] * 3 + 9) / 12
    assert of_all["norm_ratio"][2] == pytest.approx(moved)


def test_a_pass_that_was_killed_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "STATE_EVERY_S", 0.0)
    session, *asked = prepared(tiny_decoder(), ABC, [Site(0, "mlp_out", "last")], batch=5)
    whole = led(session, *asked)
    advance = Sums.advance

    def killed(self, n):
        advance(self, n)
        raise KeyboardInterrupt

    first = Checkpoint(Store(tmp_path), cell="x")
    monkeypatch.setattr(Sums, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        led(replace(session, checkpoint=first), *asked)
    monkeypatch.setattr(Sums, "advance", advance)
    kept = Checkpoint(Store(tmp_path), cell="x")
    again = led(replace(session, checkpoint=kept), *asked)
    assert kept.found == 1
    pd.testing.assert_frame_equal(again[0], whole[0])


@pytest.mark.parametrize(
    ("edit", "strengths"), [("shift", (0.0, 2.0)), ("interchange", (0.5, 1.0))]
)
def test_a_cell_has_a_row_for_every_target_and_strength(edit, strengths):
    fit, report = split(
        draw(NESTED, n=80, ranges=dict.fromkeys("abc", (100, 999)), seed=0), fit_share=0.5, seed=0
    )
    plan = CellPlan(
        layers=range(2),
        point="resid_post",
        positions="last",
        position_map=False,
        method=find_method("pca", 2),
        intervention=InterventionPlan(
            find_edit(edit),
            strengths,
            values=("b-c", "a"),
            controls=Controls(2, 1),
            n_sources=2,
        ),
        n_edited=20,
        locality=None,
        tolerance=None,
        digits=3,
        how=Resampling(n_resamples=20, n_permutations=20),
    )
    tables = run_cell(Session(PlantedModel(), Batching(50)), fit, report, plan).tables
    effects, found = tables["effects"], tables["off_distribution"]
    key = [
        "layer",
        "point",
        "position",
        "component",
        "rank",
        "chosen_for",
        "target_value",
        "edit",
        "strength",
    ]
    key += ["strength_unit", "n"]
    targets = effects.loc[effects["arm"] == "target", key].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[key], targets)
    if edit == "interchange":  # every coordinate is put where that of a real problem is
        assert (found["outside_range"] < 0.2).all()
        assert (found["reason"] == "nothing normalises the stream that resid_post moves").all()
    else:
        assert found.groupby("strength")["norm_ratio"].mean().tolist()[0] == 1


def test_distances_do_not_depend_on_where_coordinates_are_measured_from():
    model, _, report, sites, traces = planted()
    found, away = traces[sites[1]], torch.tensor([7.0, -300.0], dtype=torch.float64)
    elsewhere = found.subspace.mean - away @ found.subspace.directions
    moved = replace(
        found,
        subspace=replace(found.subspace, mean=elsewhere, offset=away),
        coordinates=found.coordinates + away,
    )
    edited = report.take(torch.arange(20).numpy())
    dose = Dose(sites[1], (0,), 40 * torch.ones(1, 2, 20, 1).double(), torch.arange(20))
    here, there = (
        off_distribution(Session(model), model.encode(edited), {sites[1]: each}, [dose])[0].spread
        for each in (found, moved)
    )
    for part in ("outside", "distance", "clean_distance", "far"):
        torch.testing.assert_close(getattr(there, part), getattr(here, part), atol=1e-6, rtol=1e-6)
