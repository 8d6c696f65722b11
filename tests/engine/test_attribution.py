"""First-order effects of all sites at once, against plain hooks on whole passes and exact edits."""

from contextlib import ExitStack

import pytest
import torch

from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.errors import UserError
from mech_arith.common.store import Store
from mech_arith.engine.attribution import attribute
from mech_arith.engine.batching import Batching
from mech_arith.engine.gradients import Objective
from mech_arith.engine.pairs import Pairs, metric_of_answers
from mech_arith.engine.reading import force, measure
from mech_arith.engine.run import ReferenceAnswers, SiteVectors, run_baseline, run_edits
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.interventions.interchange import whole_moves
from mech_arith.models.answered import encode_for
from mech_arith.models.kinds import Metric
from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.problems import draw
from mech_arith.problems.sources import draw_sources
from mech_arith.problems.templates import build_template
from tests.lms import tiny_lm
from tests.models.test_pretrained import PROBLEMS, model_in
from tests.tiny import PlantedModel, tiny_decoder, tiny_encoder, tiny_pre_norm_encoder

NESTED = draw(
    build_template("nested", "a-(b-c)"), n=12, ranges=dict.fromkeys("abc", (100, 999)), seed=2
)
SHIPPED = {
    "decoder": tiny_decoder,
    "encoder": tiny_encoder,
    "pre_norm_encoder": tiny_pre_norm_encoder,
}
SITES = [
    *(Site(layer, point, "last") for layer in (0, 2) for point in ("resid_pre", "z", "mlp_out")),
    Site(1, "resid_post", "last"),
    Site(1, "mlp_post", "all"),
    Site(1, "z", "last", 0),
    Site(1, "z", "last", 2),
    Site(2, "resid_post", "last"),
]


def pairs_of(model, problems, *, positions=()):
    sources = draw_sources(problems, problems.hypothesis.answer, m=1, n_shuffles=1, seed=0)
    right, other = (
        torch.from_numpy(some.answers).double() for some in (sources.base, sources.problems[0])
    )
    bound = int(right.abs().max())
    return Pairs(
        encode_for(model, sources.base, positions),
        encode_for(model, sources.problems[0], positions),
        ReferenceAnswers(right, other, bound),
    )


@pytest.fixture(
    scope="module",
    params=[*SHIPPED, "llama", *(pytest.param(x, marks=pytest.mark.slow) for x in ("gpt2",))],
)
def case(request, tmp_path_factory):
    """A model, and pairs that it reads: the language model's in several layouts."""
    if request.param in SHIPPED:
        model = SHIPPED[request.param]()
        return model, pairs_of(model, NESTED)
    model = model_in(tiny_lm(request.param, tmp_path_factory.mktemp(request.param)))
    return model, pairs_of(model, PROBLEMS)


def plain(model, tokens, site, added, *, last):
    """Read-outs and the site's whole activation, by a whole pass of the model's own modules."""
    seen = []

    def tap(activation):
        seen.append(activation.detach())
        return activation + added

    if isinstance(model, PretrainedModel):
        with ExitStack() as stack:
            stack.enter_context(
                model._blocks[site.layer].tapped(
                    lambda point, activation: (
                        tap(activation) if point == site.point else activation
                    ),
                    whole=True,
                )
            )
            read = model.network(tokens, use_cache=False).logits[:, -last:].float()
    else:
        hooks = model._hooks((site.layer, site.point), tap)
        read = model._of_bridge(model.bridge.run_with_hooks(tokens, fwd_hooks=hooks), last)
    return read, seen[0]


def by_hooks(model, pairs, site):
    """(source - base) . dM/dx of one site for each pair, one whole pass each."""
    objective = Objective.of(model, pairs.asked.right)
    towards = (pairs.asked.counterfactual - pairs.asked.right).sign()
    found = torch.zeros(len(pairs), dtype=torch.float64)
    for row in range(len(pairs)):
        alone = []
        for prompts in (pairs.base, pairs.source):
            (layout,) = [one for one in prompts.layouts if row in one.rows.tolist()]
            part = layout.part((layout.rows == row).nonzero()[:, 0])
            alone.append((prompts, part, list(part.positions(site.position))))
        fed = objective.fed[row][None]
        (prompts, part, ours), (others, other, theirs) = alone
        tokens = torch.cat([prompts.whole(part), fed], dim=1)
        width = site.width(model) * (1 if site.head is None else model.n_heads)
        added = torch.zeros(1, tokens.shape[1], width, requires_grad=True)
        read, base = plain(model, tokens, site, added, last=1 + fed.shape[1])
        value = (
            read[0, 0, 0] * float(towards[row])
            if model.regresses
            else -objective.losses(read, torch.tensor([row]))[0]
        )
        (gradient,) = torch.autograd.grad(value, added)
        with torch.no_grad():
            _, source = plain(model, others.whole(other), site, 0.0, last=1)
        n_prefix, own = len(prompts.prefix), site.entries(site.width(model))
        apart = source[0, [n_prefix + i for i in theirs]] - base[0, [n_prefix + i for i in ours]]
        gradient = gradient[0, [n_prefix + i for i in ours]]
        found[row] = (apart[:, own].double() * gradient[:, own].double()).sum()
    return found


def test_scores_are_those_of_plain_hooks(case):
    model, pairs = case
    sites = [site for site in SITES if not (site.position == "all" and len(pairs.base.layouts) > 1)]
    found = attribute(Session(model, Batching(5)), pairs, sites, metric=Metric.LOG_PROB).whole
    assert found.shape == (len(sites), len(pairs))
    for site, ours in zip(sites, found, strict=True):
        theirs = by_hooks(model, pairs, site)
        assert float((ours - theirs).norm()) <= 1e-5 * max(1.0, float(theirs.norm())), site
        # The last token is the same in every prompt; an encoder's answer is read at the first.
        same = (site.layer, site.point) == (0, "resid_pre")
        assert same or not model.causal or float(theirs.norm()) > 0


def test_batches_and_heads_change_nothing(case):
    """All heads of a point together are the point."""
    model, pairs = case
    heads = [Site(1, "z", "last", head) for head in range(model.n_heads)]
    sites = [Site(1, "z", "last"), *heads]
    found = [
        attribute(Session(model, Batching(rows)), pairs, sites, metric=Metric.LOG_PROB).whole
        for rows in (1, 64)
    ]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1][0], found[1][1:].sum(0), rtol=1e-4, atol=1e-5)
    assert float(found[1][1].norm()) > 0


@pytest.fixture(scope="module")
def planted():
    model = PlantedModel()
    return model, pairs_of(model, NESTED)


EVERYWHERE = [
    Site(layer, point, position)
    for layer in range(3)
    for point in ("resid_pre", "mlp_out", "resid_post")
    for position in ("0", "1", "2", "3", "all", "b-c")
]


def exact(session, pairs, sites, metric):
    """The metric's change where each source's activation is put in place, site by site."""
    model = session.model
    baseline = run_baseline(session, pairs.base, pairs.asked)
    moves = whole_moves(session, pairs.base, pairs.source, sites)
    plan = [SiteVectors(site, moves[site][None]) for site in sites]
    clean = metric_of_answers(model, baseline.answers, pairs.asked, metric)
    found = run_edits(session, baseline, plan, writes=False)
    edited = [metric_of_answers(model, one, pairs.asked, metric)[0] for one in found]
    return torch.stack(edited) - clean


@pytest.mark.parametrize("steps", [0, 3])
def test_in_a_linear_model_the_first_order_is_exact(planted, steps):
    model, pairs = planted
    session = Session(model, Batching(5))
    found = attribute(session, pairs, EVERYWHERE, metric=Metric.NUMBER, steps=steps).whole
    expected = exact(session, pairs, EVERYWHERE, Metric.NUMBER)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-2)
    whole = (pairs.asked.counterfactual - pairs.asked.right).abs()
    at = EVERYWHERE.index(Site(0, "resid_pre", "all"))
    torch.testing.assert_close(found[at], whole, rtol=1e-5, atol=1e-2)


def test_directions_take_the_share_of_the_activation_along_them(planted):
    """An orthonormal basis takes all of it; the planted direction all there is at the last."""
    model, pairs = planted
    site, random = Site(0, "resid_post", "3"), torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=random)).Q
    frames = {site: torch.cat([basis, model.used[None], model.unused[None]])}
    session = Session(model, Batching(5))
    found = attribute(session, pairs, [site], metric=Metric.NUMBER, frames=frames)
    along = found.along[site]
    # In a linear model the cross terms of a basis are part of the whole.
    gradient = -(pairs.asked.counterfactual - pairs.asked.right).sign()
    moves = exact_coordinates(session, pairs, site, frames[site])
    torch.testing.assert_close(along[16], moves[16] * gradient, rtol=1e-5, atol=1e-2)
    assert float(along[17].abs().max()) < 1e-2
    torch.testing.assert_close(found.whole[0], along[16], rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(along[:16].sum(0), found.whole[0], rtol=1e-4, atol=5e-2)


def exact_coordinates(session, pairs, site, frame):
    moves = whole_moves(session, pairs.base, pairs.source, [site])[site]
    return frame.double() @ moves.double().mT


def test_integrated_gradients_add_up_to_what_the_whole_input_does():
    """Completeness (Sundararajan et al. 2017): at layer 0 all positions together make the change
    that the source's prompt makes.
    """
    model = tiny_decoder()
    pairs = pairs_of(model, NESTED)
    session = Session(model, Batching(5))
    sites = [Site(0, "resid_pre", "all")]
    wanted = exact(session, pairs, sites, Metric.LOG_PROB)
    errors = [
        float(
            (
                attribute(session, pairs, sites, metric=Metric.LOG_PROB, steps=steps).whole - wanted
            ).norm()
            / wanted.norm()
        )
        for steps in (0, 4, 64)
    ]
    assert errors[2] < 0.02 < errors[0]
    assert errors[2] < errors[1]


def test_where_the_answer_is_written_the_source_is_behind_its_own():
    model = tiny_decoder()
    pairs = pairs_of(model, NESTED, positions=["answer.1"])
    site = Site(2, "resid_post", "answer.1")
    small = [Site(2, "resid_post", "last"), site]
    session = Session(model, Batching(5))
    found = attribute(session, pairs, small, metric=Metric.LOG_PROB).whole
    wanted = exact(session, pairs, small, Metric.LOG_PROB)
    for ours, theirs in zip(found, wanted, strict=True):
        assert float(torch.corrcoef(torch.stack([ours, theirs]))[0, 1]) > 0.5
        assert float(theirs.abs().max()) > 0


def test_logit_differences_are_between_both_answers(case):
    model, pairs = case
    if model.regresses:
        return
    session = Session(model, Batching(5))
    sites = [Site(2, "resid_post", "last")]
    found = attribute(session, pairs, sites, metric=Metric.LOGIT_DIFFERENCE).whole
    # The last residual stream is only normalised behind that: to first order nearly all.
    forced = force(model, pairs.asked)
    first = forced.differs_at == 0
    baseline = run_baseline(session, pairs.base, pairs.asked).answers.logit_difference
    assert torch.equal(found[0].isnan(), baseline.isnan())
    assert bool((found[0][first].abs() > 0).all())
    known = ~baseline.isnan()
    other = attribute(session, pairs, sites, metric=Metric.LOG_PROB).whole
    assert not torch.allclose(found[0][known], other[0][known])


def test_what_is_stored_or_was_done_is_not_computed_again(planted, tmp_path):
    model, pairs = planted
    sites = EVERYWHERE[:4]

    def session(**where):
        return Session(model, Batching(5), **where)

    store = Store(tmp_path / "store")
    first = attribute(session(store=store), pairs, sites, metric=Metric.NUMBER).whole
    assert torch.equal(
        attribute(session(store=store), pairs, sites, metric=Metric.NUMBER).whole, first
    )
    assert store.hits == 1
    attribute(session(store=store), pairs, sites, metric=Metric.NUMBER, steps=2)
    assert store.misses == 2
    own = Store(tmp_path / "own")
    attempt = Checkpoint(own, cell="x", every_s=0.0)
    attribute(session(checkpoint=attempt), pairs, sites, metric=Metric.NUMBER)
    again = Checkpoint(own, cell="x")
    found = attribute(session(checkpoint=again), pairs, sites, metric=Metric.NUMBER).whole
    assert torch.equal(found, first)
    assert again.found == 3  # batches of 5, 5 and 2


def test_a_model_of_whole_passes_is_refused(planted):
    model = PlantedModel()
    model.replays = False
    with pytest.raises(UserError, match=r"one by one.*set screen=none, or leave out engine=full"):
        attribute(Session(model), planted[1], EVERYWHERE, metric=Metric.NUMBER)


def test_prompts_of_several_lengths_have_no_way_between_them(tmp_path):
    model = model_in(tiny_lm("llama", tmp_path))
    pairs = pairs_of(model, PROBLEMS)
    assert any(
        one.tokens.shape[1] != pairs.sources_of(one).tokens.shape[1] for one in pairs.alike.layouts
    )
    with pytest.raises(UserError, match=r"one length.*or screen=attribution"):
        attribute(Session(model), pairs, SITES[:1], metric=Metric.LOG_PROB, steps=2)


def test_gradients_that_are_not_finite_are_said_in_one_line(planted):
    _, pairs = planted

    class Steep(PlantedModel):
        def read_out(self, resid):
            return super().read_out(resid) + (0 * super().read_out(resid)).abs().sqrt()

    with pytest.raises(UserError, match=r"finite gradients of planted.*set dtype=float32"):
        attribute(Session(Steep()), pairs, EVERYWHERE, metric=Metric.NUMBER)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradients_are_in_the_models_own_numbers(dtype, tmp_path):
    """Scores in half precision are those in float32 but for rounding."""
    directory, sites = (
        tiny_lm("llama", tmp_path),
        [Site(1, "z", "last"), Site(2, "mlp_out", "last")],
    )
    found = []
    for one in ("float32", dtype):
        model = model_in(directory, dtype=one)
        pairs = pairs_of(model, PROBLEMS)
        found.append(attribute(Session(model), pairs, sites, metric=Metric.LOG_PROB).whole)
    error = (found[1] - found[0]).norm() / found[0].norm()
    assert 0 < float(error) < 0.2


def test_one_step_at_the_middle_is_exact_where_the_answer_is_quadratic():
    class Squared(PlantedModel):
        def read_out(self, resid):
            return super().read_out(resid).square() / 1000

    model, sites = Squared(), [Site(0, "resid_pre", "all")]
    pairs, session = pairs_of(model, NESTED), Session(model)
    wanted = exact(session, pairs, sites, Metric.NUMBER)
    found = attribute(session, pairs, sites, metric=Metric.NUMBER, steps=1).whole
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-2)
    at_the_base = attribute(session, pairs, sites, metric=Metric.NUMBER).whole
    assert float((at_the_base - wanted).norm()) > 0.1 * float(wanted.norm())


def test_an_answer_that_surely_goes_on_has_a_finite_gradient(tmp_path):
    """The probability of another digit is 1 in float32."""
    model = model_in(tiny_lm("llama", tmp_path))
    forced = force(
        model, ReferenceAnswers(torch.tensor([7.0]).double(), torch.tensor([8.0]).double(), 9)
    )
    read = torch.zeros(1, 2, model.width_out)
    read[0, 1, model.reader.longer[0]] = 200.0
    read.requires_grad_()
    log_prob, _ = measure(read, forced, torch.arange(1), model.reader.longer)
    (gradient,) = torch.autograd.grad(log_prob.sum(), read)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient[0, 1, model.reader.longer[0]]) == pytest.approx(-1, abs=1e-3)
