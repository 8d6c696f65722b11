"""Trained rotations where the answer is written: losses by plain hooks, and what they find."""

from dataclasses import replace

import pytest
import torch

from mech_arith.directions.base import FitTask, find_method
from mech_arith.directions.pairs import draw_pairs, open_pairs
from mech_arith.directions.readings import control_values
from mech_arith.directions.rotation import Schedule, train_rotation
from mech_arith.directions.tracing import value_table
from mech_arith.engine.batching import Batching
from mech_arith.engine.capture import capture
from mech_arith.engine.edits import SiteEdits
from mech_arith.engine.run import ReferenceAnswers, edited_answers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.answered import encode_for
from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.problems import draw, draw_with_shots, split
from mech_arith.problems.expressions import parse_constraint
from mech_arith.problems.sources import draw_sources
from mech_arith.problems.templates import build_template
from tests.lms import tiny_lm
from tests.models.test_pretrained import model_in
from tests.tiny import tiny_decoder

NESTED = build_template("nested", "a-(b-c)")
LAYER, RANK = 1, 3
POSITIONS = ("answer.0", "answer.1", "answer.3", "answer", "all+answer")


def task_of(model, fit, position, layer=LAYER, **more):
    prompts = encode_for(model, fit, [position])
    site = Site(layer, "resid_post", position)
    return FitTask(Session(model, Batching(7)), fit, prompts, site, value_table(fit), **more)


def hidden(model, tokens, change=lambda found: found):
    """A whole pass of the model's own modules, with a hook on one block: what the block gives, and
    what is read, at each of the tokens.
    """
    seen = []

    def hook(_module, _given, out):
        is_alone = isinstance(out, torch.Tensor)
        seen.append(change((out if is_alone else out[0])[0]))
        return seen[0][None] if is_alone else (seen[0][None], *out[1:])

    is_ours = not isinstance(model, PretrainedModel)
    network = model.bridge if is_ours else model.network
    block = (network.blocks if is_ours else network.model.layers)[LAYER]
    handle = block.register_forward_hook(hook)
    try:
        read = network(torch.tensor([tokens]))
    finally:
        handle.remove()
    return seen[0], (read if is_ours else read.logits)[0].float()


def projected(part, vector):
    """A vector within the span of independent rows."""
    return vector @ part.mT @ torch.linalg.inv(part @ part.mT) @ part


def loss_by_hand(model, pair, at, frame):
    """Of one pair, as the documentation says.

    Args:
        model: with random weights.
        pair: whole prompts of base and source; tokens of their right answers, and the wanted one's.
        at: the site's positions, counted from the prompt's last one.
        frame: [all, k], over all positions of the site.
    """
    prompt, of_source, right, right_of_source, wanted = pair
    last = len(prompt) - 1
    ahead = max(0, at[0])
    places = [last + one for one in at]
    with torch.no_grad():
        source = hidden(model, of_source + right_of_source)[0][places]
        base = hidden(model, prompt + right)[0][places]
    moved = (((source - base).flatten() @ frame) @ frame.mT).view(len(at), -1)
    parts = frame.view(len(at), -1, frame.shape[1])

    def change(found):
        edited = found.clone()
        for column, place in enumerate(places):
            other = found[place] - base[column]
            edited[place] = found[place] + moved[column] - projected(parts[column].mT, other)
        return edited

    _, read = hidden(model, prompt + right[:ahead] + wanted[ahead:], change)
    log_probs = read.log_softmax(-1)
    total = sum(log_probs[last + t, wanted[t]] for t in range(ahead, len(wanted)))
    if model.reader.longer is not None:
        behind = log_probs[last + len(wanted)].exp()
        total = total + torch.log1p(-behind[model.reader.longer].sum())
    return -total


def digits_of_two():
    """Sums and wanted answers of two digits each, after examples."""
    template = build_template("sum", "a+b")
    rules = [parse_constraint("a >= 10"), parse_constraint("a+b <= 99")]
    return draw_with_shots(
        template, n=14, n_shots=2, ranges={"a": (10, 80), "b": (1, 9)}, constraints=rules, seed=0
    )


@pytest.fixture(scope="module", params=["decoder", "llama"])
def case(request, tmp_path_factory):
    if request.param == "decoder":
        fit = draw(NESTED, n=14, ranges=dict.fromkeys("abc", (100, 999)), seed=2)
        return tiny_decoder(seed=3), fit, "b-c", POSITIONS
    problems, shots = digits_of_two()
    model = model_in(tiny_lm("llama", tmp_path_factory.mktemp("llama")), shots=shots)
    return model, problems, "a", ("answer.0", "answer.1", "answer")


def whole_prompts(model, problems):
    """Of each problem, as a list of tokens; and how many of them all share."""
    prompts = model.encode(problems)
    rows = [[] for _ in range(len(prompts))]
    for layout in prompts.layouts:
        for row, tokens in zip(layout.rows.tolist(), prompts.whole(layout).tolist(), strict=True):
            rows[row] = tokens
    return rows, len(prompts.prefix)


@pytest.mark.parametrize("index", range(5))
def test_losses_and_gradients_are_those_of_hooks_on_whole_passes(case, index):
    model, fit, value, positions = case
    if index >= len(positions):
        return
    position = positions[index]
    task = task_of(model, fit, position)
    drawn = draw_pairs(task, fit.template.expression.values.index(value), n=6)
    pairs = open_pairs(task, drawn, holdout=0.2)
    random = torch.Generator().manual_seed(1)
    frame = torch.linalg.qr(torch.randn(pairs.width, RANK, generator=random)).Q
    turned = frame.clone().requires_grad_()
    (bases, n_prefix), (sources, _) = (
        whole_prompts(model, some) for some in (drawn.bases, drawn.sources)
    )
    answers = [
        [list(model.reader.tokens(int(number))) for number in numbers]
        for numbers in (drawn.bases.answers, drawn.sources.answers, drawn.wanted)
    ]
    total = torch.tensor(0.0)
    for pair in zip(bases, sources, *answers, strict=True):
        n_prompt, n_right = len(pair[0]) - n_prefix, len(pair[2])
        at = {"answer": range(n_right), "all+answer": range(1 - n_prompt, n_right)}.get(position)
        total = total + loss_by_hand(model, pair, at or [int(position[7:])], turned)
    mean = total / len(bases)
    (expected,) = torch.autograd.grad(mean, turned)
    loss, gradient = pairs.loss_and_gradient(torch.arange(len(bases)), frame)
    assert loss == pytest.approx(float(mean.detach()), rel=1e-5)
    assert pairs.loss(torch.arange(len(bases)), frame) == pytest.approx(loss, rel=1e-6)
    assert float((gradient - expected).norm()) <= 1e-5 * float(expected.norm())
    assert float(expected.norm()) > 0


def trained(task, value, *, rank, steps):
    """A frame's columns as rows, of a value."""
    index = task.problems.template.expression.values.index(value)
    pairs = open_pairs(task, draw_pairs(task, index, n=200), holdout=0.2)
    return train_rotation(pairs, rank=rank, schedule=Schedule(steps, 300, 0.1, 5), seed=0)


def followed(model, problems, site, frame, value):
    """By token of the answer, of those that have to change: how often it is the wanted one where
    sources' coordinates take the place of the base's.
    """
    session = Session(model, Batching(200))
    sources = draw_sources(problems, value, m=1, n_shuffles=1, seed=7)
    every = [
        encode_for(model, some, [site.position]) for some in (sources.base, sources.problems[0])
    ]
    base, theirs = torch.zeros(2, len(sources.base), len(frame), dtype=torch.float64)
    for prompts, at in zip(every, (base, theirs), strict=True):
        for layout, found in capture(session, prompts, [site]):
            at[layout.rows] = found[site].double() @ frame.mT
    baseline = run_baseline(session, every[0], ReferenceAnswers.of_problems(sources.base))
    slopes = torch.zeros(1, dtype=torch.float64)
    edits = SiteEdits(site, frame[None], (theirs - base)[None], slopes)
    written = edited_answers(session, baseline, edits).tokens[0]
    wanted, right = (
        torch.tensor([model.reader.tokens(int(number)) for number in numbers])
        for numbers in (sources.expected[0], sources.base.answers)
    )
    changed = wanted != right
    return [float((written == wanted)[:, t][changed[:, t]].double().mean()) for t in range(5)]


@pytest.fixture(scope="module")
def shipped():
    drawn = draw(NESTED, n=400, ranges=dict.fromkeys("abc", (100, 999)), seed=0)
    return load_arithmetic("arith_decoder"), *split(drawn, fit_share=0.5, seed=0)


def test_the_units_follow_a_rotation_where_they_are_read(shipped):
    """At answer.1 of the last layer; the other tokens are read elsewhere."""
    model, fit, report = shipped
    task = task_of(model, fit, "answer.1", layer=3)
    frame, curve = trained(task, "b-c", rank=8, steps=30)
    tokens = followed(model, report, task.site, frame, "b-c")
    assert tokens[1] >= 0.99
    assert max(tokens[0], *tokens[2:]) < 0.1
    # The tokens behind the units have a loss of dozens of nats that nothing here can lower.
    assert float(curve[:, 2].min()) > 20


def test_training_goes_on_while_what_can_be_gained_is_gained(shipped):
    """Beside a loss that stays, of which 1% is more than all that there is to gain."""
    model, fit, _ = shipped
    task = task_of(model, fit, "answer.1", layer=3)
    _, curve = trained(task, "b-c", rank=2, steps=70)
    held_out = curve[:, 2]
    assert float(held_out[0] - held_out.min()) < 0.05 * float(held_out[0])
    assert curve[-1, 0] > 50


def test_answers_that_lack_the_positions_are_left_out(tmp_path):
    """Sources whose own answers end before, or, of all positions, have another length; and wanted
    answers that have ended before the first edited position.
    """
    problems, shots = digits_of_two()
    model = model_in(tiny_lm("llama", tmp_path), shots=shots)
    two = draw(problems.template, n=60, ranges={"a": (1, 99), "b": (1, 9)}, seed=0)
    rows = two.answers >= 10
    fit = two.take(rows.nonzero()[0][two.answers[rows] <= 99])
    index = fit.template.expression.values.index("a")
    for position, fits in (
        ("answer.1", lambda length: length >= 2),
        ("answer", lambda length: length == 2),
        ("answer.0", lambda length: True),
    ):
        drawn = draw_pairs(task_of(model, fit, position), index, n=60)
        lengths = [len(model.reader.tokens(int(x))) for x in drawn.sources.answers]
        assert all(map(fits, lengths)), position
        wanted = [len(model.reader.tokens(int(x))) for x in drawn.wanted]
        assert position != "answer.1" or min(wanted) >= 2
        assert open_pairs(task_of(model, fit, position), drawn, holdout=0.2) is not None
    assert min(lengths) == 1, "expected some to be left out"


def test_the_control_task_is_trained_there_too(case):
    model, fit, value, _ = case
    task = task_of(model, fit, "answer.1", ranks=(2,))
    values = control_values(fit, fit)
    control = replace(task, values=values, is_control=True)
    method = find_method("das", 1, {"steps": 3, "pairs": 10}, ranks=(2,))
    index = fit.template.expression.values.index(value)
    own, other = (one.frames(index)[2] for one in map(method.fitter, (task, control)))
    assert own.shape == other.shape
    assert not torch.allclose(own, other)


def test_a_position_by_its_index_is_the_one_of_the_answer(case):
    model, fit, value, _ = case
    index = fit.template.expression.values.index(value)
    task = task_of(model, fit, "answer.1", ranks=(2,))
    (layout,) = task.prompts.layouts
    named = replace(task, site=replace(task.site, position=str(layout.tokens.shape[1])))
    method = find_method("das", 1, {"steps": 3, "pairs": 10}, ranks=(2,))
    own, other = (one.frames(index)[2] for one in map(method.fitter, (task, named)))
    assert torch.equal(own, other)
