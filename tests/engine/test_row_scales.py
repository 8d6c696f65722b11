"""Gradients in float16 that are too small for it, against those in float64."""

import pytest
import torch

from mech_arith.engine import attribution
from mech_arith.engine.attribution import attribute
from mech_arith.engine.gradients import open_suffixes
from mech_arith.engine.row_scales import RowScales
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.kinds import Metric
from tests.engine.test_attribution import pairs_of
from tests.lms import tiny_lm
from tests.models.test_pretrained import PROBLEMS, model_in

SIZES = torch.tensor([1e-10, 1.0, 0.0, 1e4])
"""Of each row's gradient."""

FAINT = 1e-9
"""Makes any gradient too small for float16."""


def gradients(dtype):
    """Of an activation whose rows are read out by a matrix, as they come, and scaled back."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(8, 5, generator=generator).to(dtype)
    leaf = torch.zeros(len(SIZES), 1, 8, dtype=dtype, requires_grad=True)
    scales, found = RowScales(dtype), []
    activation = leaf * 1
    activation.register_hook(lambda gradient: found.extend([gradient, scales.down(gradient)]))
    read = scales.up((activation @ matrix).to(torch.promote_types(dtype, torch.float32)))
    (read * SIZES[:, None, None]).sum().backward()
    return found


def test_rows_of_any_size_come_back_as_in_float64():
    exact, _ = gradients(torch.float64)
    scaled, found = gradients(torch.float16)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=2e-3, atol=0.0)
    assert bool((found[2] == 0).all())
    assert bool((scaled[0].abs() > 1e-2).any())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_number_formats_are_left_alone(dtype):
    plain, found = gradients(dtype)
    assert torch.equal(plain.float(), found)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    directory = tiny_lm("llama", tmp_path_factory.mktemp("llama"))
    return [model_in(directory, dtype=dtype) for dtype in ("float32", "float16")]


def test_scores_of_a_screen_do_not_vanish(both, monkeypatch):
    own, found = attribution.read_metric, []
    monkeypatch.setattr(attribution, "read_metric", lambda *asked: FAINT * own(*asked))
    for model in both:
        pairs = pairs_of(model, PROBLEMS)
        sites = [Site(1, "z", "last"), Site(2, "mlp_out", "last")]
        found.append(attribute(Session(model), pairs, sites, metric=Metric.LOG_PROB).whole)
    wanted, half = found
    assert float((half - wanted).norm()) < 0.05 * float(wanted.norm())


@pytest.mark.parametrize("point", ["resid_post", "mlp_out"])
def test_gradients_of_an_edit_do_not_vanish(both, point):
    found = []
    for model in both:
        prompts, site = model.encode(PROBLEMS), Site(1, point, "last")
        nothing = torch.empty(len(prompts), 0, dtype=torch.int64)
        one = open_suffixes(Session(model), prompts, nothing, site)[0]
        added = torch.zeros(len(one), model.d_model, requires_grad=True)
        with torch.enable_grad():
            read = one.read_outs(
                torch.arange(len(one)), lambda bases, added=added: bases.float() + added
            )
            (gradient,) = torch.autograd.grad(FAINT * read[..., 5].sum(), added)
        found.append(gradient)
    wanted, half = found
    assert float((half - wanted).norm()) < 0.05 * float(wanted.norm())
