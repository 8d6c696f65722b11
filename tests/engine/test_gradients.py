"""Losses and gradients through the layers above a site, against plain hooks on whole passes."""

from contextlib import ExitStack

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mech_arith.common.errors import UserError
from mech_arith.engine.batching import Batching
from mech_arith.engine.gradients import Objective, open_suffixes
from mech_arith.engine.run import ReferenceAnswers, SiteVectors, edited_answers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.lms import ARCHITECTURES, tiny_lm
from tests.models.test_pretrained import COMMON, PROBLEMS, model_in
from tests.tiny import tiny_decoder, tiny_encoder, tiny_pre_norm_encoder

NESTED = draw(
    build_template("nested", "a-(b-c)"), n=12, ranges=dict.fromkeys("abc", (100, 999)), seed=2
)
SHIPPED = {
    "decoder": tiny_decoder,
    "encoder": tiny_encoder,
    "pre_norm_encoder": tiny_pre_norm_encoder,
}


@pytest.fixture(
    scope="module",
    params=[
        *SHIPPED,
        *(
            pytest.param(name, marks=() if name in COMMON[:1] else pytest.mark.slow)
            for name in ARCHITECTURES
        ),
    ],
)
def case(request, tmp_path_factory):
    """A model and problems that it reads."""
    if request.param in SHIPPED:
        return SHIPPED[request.param](), NESTED
    return model_in(tiny_lm(request.param, tmp_path_factory.mktemp(request.param))), PROBLEMS


def wanted_of(problems):
    """Answers that are not the right ones, of one or two digits more or less."""
    numbers = torch.from_numpy(problems.answers).double()
    return numbers.roll(1) if bool((numbers.roll(1) >= 0).any()) else numbers.abs()


def plain(model, tokens, site, added, *, n_prefix, positions, last):
    """Read-outs by a whole pass of the model's own modules, with gradients."""

    def tap(activation):
        edited = activation.clone()
        at = [n_prefix + index for index in positions]
        edited[:, at] = edited[:, at] + added.unflatten(1, (len(at), -1))
        return edited

    if isinstance(model, PretrainedModel):
        with ExitStack() as stack:
            changes = {site.point: tap}
            stack.enter_context(
                model._blocks[site.layer].tapped(
                    lambda point, activation: changes.get(point, lambda x: x)(activation),
                    whole=True,
                )
            )
            return model.network(tokens, use_cache=False).logits[:, -last:].float()
    hooks = model._hooks((site.layer, site.point), tap)
    return model._of_bridge(model.bridge.run_with_hooks(tokens, fwd_hooks=hooks), last)


SITES = [
    Site(0, "resid_post", "last"),
    Site(1, "z", "last"),
    Site(1, "mlp_out", "last"),
    Site(2, "resid_pre", "last"),
    Site(2, "resid_post", "last"),
]


def test_losses_and_gradients_are_those_of_hooks_on_whole_passes(case):
    model, problems = case
    prompts = model.encode(problems)
    objective = Objective.of(model, wanted_of(problems))
    asked = ReferenceAnswers(objective.numbers, torch.full_like(objective.numbers, torch.nan), 999)
    session = Session(model, Batching(3))
    baseline = run_baseline(session, prompts, asked)
    a_last = "a.last" if isinstance(model, PretrainedModel) else "a"
    for site in (*SITES, Site(1, "resid_post", a_last)):
        width = site.width(model) * len(prompts.positions(site.position)[0])
        random = torch.Generator().manual_seed(site.layer)
        added = torch.randn(len(problems), width, generator=random)
        seen = torch.zeros(len(problems))
        for suffix in open_suffixes(session, prompts, objective.fed, site):
            rows = suffix.rows
            ours = added[rows].requires_grad_()
            read = suffix.read_outs(torch.arange(len(rows)), lambda x, v=ours: x + v)
            losses = objective.losses(read, rows)
            (gradient,) = torch.autograd.grad(losses.sum(), ours)
            seen[rows] = losses.detach()

            (layout,) = [one for one in prompts.layouts if torch.equal(one.rows, rows)]
            theirs = added[rows].requires_grad_()
            tokens = torch.cat([prompts.whole(layout), objective.fed[rows]], dim=1)
            hooked = plain(
                model,
                tokens,
                site,
                theirs,
                n_prefix=len(prompts.prefix),
                positions=layout.positions(site.position),
                last=1 + objective.fed.shape[1],
            )
            expected = objective.losses(hooked, rows)
            (of_hooks,) = torch.autograd.grad(expected.sum(), theirs)
            torch.testing.assert_close(losses, expected, atol=1e-4, rtol=1e-4)
            assert float((gradient - of_hooks).norm()) <= 1e-3 * float(of_hooks.norm())
            is_read = model.causal or (site.layer, site.point) != (2, "resid_post")
            if site in SITES:  # an earlier position may lie outside an attention window
                assert (float(of_hooks.norm()) > 0) == is_read
        if model.regresses:
            continue
        found = edited_answers(session, baseline, SiteVectors(site, added[None]))
        torch.testing.assert_close(-seen.double(), found.log_prob[0], atol=1e-3, rtol=1e-4)


def test_the_squared_error_of_a_regressing_model_is_in_standard_deviations():
    model = tiny_encoder()
    objective = Objective.of(model, torch.tensor([100.0, 300.0, 500.0]).double())
    assert objective.scale == pytest.approx(200)
    read = torch.tensor([140.0, 300.0, 100.0])[:, None, None]
    found = objective.losses(read, torch.arange(3))
    torch.testing.assert_close(found, torch.tensor([0.04, 0.0, 4.0]))


def test_the_loss_of_a_written_answer_by_hand(tmp_path):
    """The answer 1 is not 12: what would make it longer counts against it."""
    model = model_in(tiny_lm("llama", tmp_path))
    objective = Objective.of(model, torch.tensor([7.0, 12.0]).double())
    digits = [model.reader.tokens(digit)[0] for digit in range(10)]
    read = torch.randn(2, 3, model.width_out, generator=torch.Generator().manual_seed(0))
    p = read.double().softmax(-1)
    ends = 1 - p[..., model.reader.longer].sum(-1)
    seven = p[0, 0, digits[7]] * ends[0, 1]
    twelve = p[1, 0, digits[1]] * p[1, 1, digits[2]] * ends[1, 2]
    expected = -torch.stack([seven, twelve]).log().float()
    found = objective.losses(read, torch.arange(2))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("trainable", [False, True])
def test_no_gradient_of_a_weight_is_computed(tmp_path, trainable):
    model = model_in(tiny_lm("llama", tmp_path))
    model.network.requires_grad_(trainable)
    prompts, objective = model.encode(PROBLEMS), Objective.of(model, wanted_of(PROBLEMS))
    site = Site(0, "resid_post", "last")
    suffix = open_suffixes(Session(model), prompts, objective.fed, site)[0]
    added = torch.zeros(len(suffix), model.d_model, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        read = suffix.read_outs(torch.arange(len(suffix)), lambda x: x + added)
        loss = objective.losses(read, suffix.rows).sum()
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(loss, added)
    # Products with a weight cost as much backward as forward; with its gradient it would be twice.
    assert 0 < backward.get_total_flops() < 1.3 * forward.get_total_flops()
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_a_model_that_is_not_replayed_is_refused():
    model = tiny_decoder()
    model.replays = False
    nothing = torch.empty(len(NESTED), 0, dtype=torch.int64)
    with pytest.raises(UserError, match="expected a model whose blocks can be run one by one"):
        open_suffixes(Session(model), model.encode(NESTED), nothing, SITES[0])
