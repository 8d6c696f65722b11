import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mech_arith.common.errors import UserError
from mech_arith.engine.answers import Answers
from mech_arith.engine.batching import AUTO_ELEMENTS, Batching, batches
from mech_arith.engine.guard import check_fast_path
from mech_arith.engine.passes import Change, Hooked, Resumed, ResumedTails, run_clean
from mech_arith.engine.reading import _log_prob_of_end, force, read_written
from mech_arith.engine.run import (
    ReferenceAnswers,
    SiteEdits,
    edited_answers,
    run_baseline,
    run_edits,
)
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.engine.writing import Writing, likeliest
from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.models.attention import NOTHING, NotReplayableError
from mech_arith.models.base import POINTS, read_prefix, run_blocks
from mech_arith.models.prompts import Prompts
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.tiny import (
    PlantedModel,
    random_edits,
    tiny_decoder,
    tiny_encoder,
    tiny_pre_norm_encoder,
)

MODELS = {
    "decoder": tiny_decoder(),
    "encoder": tiny_encoder(),
    "pre_norm_encoder": tiny_pre_norm_encoder(),
}
PROBLEMS = draw(
    build_template("nested", "a-(b-c)"), n=12, ranges=dict.fromkeys("abc", (100, 999)), seed=0
)
ASKED = ReferenceAnswers.of_problems(PROBLEMS)
POSITIONS = ("all", "operands", "last")
FIELDS = ("numbers", "log_prob", "logit_difference")


def edits(model, site, *, size, n_edits=2, problems=PROBLEMS):
    """Random directions, and random distances along them."""
    return random_edits(model, model.encode(problems), site, size=size, n_edits=n_edits, seed=1)


def change_of(edits, edit, indices):
    vectors = (edits.changes[edit] @ edits.frames[edit]).float()
    return Change(edits.site, indices, vectors.unflatten(1, (len(indices), -1)))


def baseline_of(model, **options):
    return run_baseline(Session(model, Batching(**options)), model.encode(PROBLEMS), ASKED)


def hooked_answers(model, baseline, edits):
    """The same answers by full hooked passes, one for every token that is written."""
    model.replays = False
    try:
        return edited_answers(Session(model), baseline, edits)
    finally:
        model.replays = True


def assert_same(ours, theirs, *, atol):
    for field in FIELDS:
        torch.testing.assert_close(
            getattr(ours, field), getattr(theirs, field), atol=atol, rtol=1e-4, equal_nan=True
        )


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", MODELS)
def test_resumed_passes_equal_full_hooked_ones(kind, point, position):
    model = MODELS[kind]
    prompts = model.encode(PROBLEMS)
    (layout,) = prompts.layouts
    indices = layout.positions(position)
    fed = torch.zeros(12, 0 if model.regresses else 2, dtype=torch.int64)
    clean = run_clean(model, prompts, read_prefix(model, prompts.prefix), layout, fed)
    (unedited,) = [read for _, read in Resumed(clean, None).read_outs()]
    for layer in range(model.n_layers):
        asked = edits(model, Site(layer, point, position), size=3.0)
        change = change_of(asked, 0, indices)
        ((_, ours),) = Resumed(clean, change).read_outs()
        ((_, theirs),) = Hooked(model, prompts, layout, fed, change).read_outs()
        torch.testing.assert_close(ours, theirs, atol=1e-3 if model.regresses else 1e-5, rtol=1e-5)
        reaches_the_answer = layer < model.n_layers - 1 or position == "all"
        assert not reaches_the_answer or (ours - unedited).abs().max() > 1e-4


@pytest.mark.parametrize("layer", [0, pytest.param(-1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["arith_decoder", "arith_encoder"])
def test_answers_of_the_shipped_models_are_those_of_full_passes(name, layer):
    model = load_arithmetic(name)
    baseline = baseline_of(model)
    assert baseline.answers.numbers.isfinite().all()  # so that equal answers say something
    for point in ("resid_post", "attn_out"):
        site = Site(layer % model.n_layers, point, "all")
        asked = edits(model, site, size=30.0 if model.regresses else 300.0)
        ours = edited_answers(Session(model, Batching(7)), baseline, asked)
        theirs = hooked_answers(model, baseline, asked)
        assert_same(ours, theirs, atol=0.05 if model.regresses else 1e-4)
        if point == "resid_post" and layer == 0:
            assert (ours.numbers != baseline.answers.numbers).double().mean() > 0.3


def test_what_rows_write_of_their_own_is_what_full_passes_write():
    """Random weights write anything: the rows part from the right answer at every length."""
    model = tiny_decoder(seed=3)
    baseline = baseline_of(model)
    for layer, position in ((0, "all"), (1, "last"), (2, "b")):
        asked = edits(model, Site(layer, "resid_post", position), size=4.0, n_edits=5)
        ours = edited_answers(Session(model, Batching(25)), baseline, asked)
        assert_same(ours, hooked_answers(model, baseline, asked), atol=1e-4)


def test_rows_of_many_batches_write_on_together(monkeypatch):
    """Six batches of one edit each: a layer is called once for every token, not six times."""
    model = tiny_decoder(seed=3)
    prompts = model.encode(PROBLEMS)
    (layout,) = prompts.layouts
    forced = force(model, ASKED)
    clean = run_clean(model, prompts, read_prefix(model, prompts.prefix), layout, forced.fed)
    asked = edits(model, Site(1, "resid_post", "last"), size=4.0, n_edits=6)
    batches_of_rows = [
        Resumed(clean, change_of(asked, edit, layout.positions("last"))) for edit in range(6)
    ]
    calls = []
    run_block = model.run_block

    def counted(layer, resid, **options):
        calls.append(layer)
        return run_block(layer, resid, **options)

    monkeypatch.setattr(model, "run_block", counted)

    def numbers(at_once):
        calls.clear()
        writing = Writing(model.reader, bound=ASKED.bound, at_once=at_once)
        found = [read_written(model, r, forced, writing, n_edits=1)[0] for r in batches_of_rows]
        writing.finish()
        written_on = calls.count(model.n_layers - 1)
        return torch.cat([answers.numbers for answers in found]), written_on

    together, n_together = numbers(1000)
    apart, n_apart = numbers(1)
    torch.testing.assert_close(together, apart, atol=0, rtol=0, equal_nan=True)
    assert n_together < model.reader.length
    assert n_apart > 6 * n_together
    whole = edited_answers(Session(model, Batching(12)), baseline_of(model), asked)
    torch.testing.assert_close(together, whole.numbers, atol=0, rtol=0, equal_nan=True)


def test_numbers_are_what_is_written_greedily():
    """Against the plainest loop: the likeliest token, token by token, by full passes."""
    model = tiny_decoder(seed=3)
    (layout,) = model.encode(PROBLEMS).layouts
    written = layout.tokens
    for _ in range(model.reader.length):
        written = torch.cat([written, model.full_pass(written, {})[:, -1].argmax(-1)[:, None]], 1)
    answers = written[:, layout.tokens.shape[1] :]
    read = [model.reader.read(tokens)[0] for tokens in answers.tolist()]
    numbers = [torch.nan if number is None else number for number in read]
    expected = torch.tensor(numbers, dtype=torch.float64)
    for rows in (1, 5, 100):
        found = baseline_of(model, rows=rows).answers.numbers
        assert torch.equal(found.nan_to_num(-1), expected.nan_to_num(-1))
    # so that the numbers say something: they part from the right ones at more than one token
    right = model.reader.encode(torch.from_numpy(PROBLEMS.answers))
    assert len((answers != right).long().argmax(1).unique()) > 1


@pytest.mark.parametrize("kind", MODELS)
def test_clean_activations_are_the_bridges(kind):
    model = MODELS[kind]
    tokens = model.encode(PROBLEMS).layouts[0].tokens
    seen = {}

    def tap_of(layer):
        def tap(point, activation):
            seen[layer, point] = activation
            return activation

        return tap

    resid = model.embed(tokens)
    resids, _ = run_blocks(model, resid, start=0, pasts=[NOTHING] * model.n_layers, tap=tap_of)
    with torch.inference_mode():
        _, cache = model.bridge.run_with_cache(tokens)
    for layer in range(model.n_layers):
        assert torch.equal(resids[layer + 1], seen[layer, "resid_post"])
        for point in POINTS:
            theirs = cache[model.hook_name(layer, point)].reshape(seen[layer, point].shape)
            assert (seen[layer, point] - theirs).abs().max() <= 1e-5


@settings(max_examples=4)
@given(size=st.integers(1, 40))
def test_batching_does_not_matter(size):
    model = MODELS["decoder"]
    asked = edits(model, Site(1, "resid_post", "all"), size=2.0)
    whole, parted = (
        edited_answers(Session(model, Batching(rows)), baseline_of(model, rows=rows), asked)
        for rows in (100, size)
    )
    assert_same(whole, parted, atol=1e-4)


@pytest.mark.parametrize("kind", MODELS)
def test_no_change_leaves_answers_bit_for_bit(kind):
    model = MODELS[kind]
    baseline = baseline_of(model)
    asked = edits(model, Site(0, "resid_post", "all"), size=0.0)
    answers = edited_answers(Session(model, Batching(5)), baseline, asked)
    for field in FIELDS:
        same = getattr(baseline.answers, field).expand(2, -1)
        assert torch.equal(getattr(answers, field).nan_to_num(-1), same.nan_to_num(-1))


@pytest.mark.parametrize("kind", MODELS)
def test_an_edit_of_nothing_would_not_differ_from_the_clean_pass(kind):
    model = MODELS[kind]
    prompts = model.encode(PROBLEMS)
    (layout,) = prompts.layouts
    fed = torch.empty(12, 0, dtype=torch.int64)
    clean = run_clean(model, prompts, read_prefix(model, prompts.prefix), layout, fed)
    nothing = edits(model, Site(0, "resid_post", "all"), size=0.0)
    change = change_of(nothing, 0, layout.positions("all"))
    ((_, ours),), ((_, theirs),) = (Resumed(clean, c).read_outs() for c in (change, None))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-6)


def test_problems_that_do_not_move_keep_their_answers():
    model = tiny_encoder()
    baseline = baseline_of(model)
    asked = edits(model, Site(0, "resid_post", "all"), size=0.0, n_edits=3)
    asked.changes[1, 4:7] = 3.0
    answers = edited_answers(Session(model, Batching(100)), baseline, asked)
    moved = (answers.numbers != baseline.answers.numbers).nonzero().tolist()
    assert moved == [[1, 4], [1, 5], [1, 6]]


def test_problems_of_several_layouts_are_put_back_in_order():
    """The same problems in two shuffled layouts, with a prefix, give the answers of one."""
    model = tiny_decoder()
    whole = model.encode(PROBLEMS)
    (layout,) = whole.layouts
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    parts = tuple(layout.part(rows) for rows in order.split(5))
    parted = Prompts(whole.prefix, parts)
    asked = edits(model, Site(1, "resid_post", "last"), size=3.0)
    answers = [
        edited_answers(
            Session(model, Batching(9)),
            run_baseline(Session(model, Batching(4)), prompts, ASKED),
            asked,
        )
        for prompts in (whole, parted)
    ]
    assert_same(*answers, atol=1e-5)
    some = run_baseline(Session(model, Batching(4)), parted, ASKED).take(7)
    few = SiteEdits(asked.site, asked.frames, asked.changes[:, :7])
    first = edited_answers(Session(model, Batching(9)), some, few)
    assert_same(first, Answers(*(getattr(answers[0], f)[:, :7] for f in FIELDS)), atol=1e-5)


def test_a_prefix_read_once_is_as_good_as_in_every_prompt():
    model, blanks = tiny_decoder(), 6
    template = build_template("difference", "a-b")
    problems = draw(template, n=12, ranges=dict.fromkeys("ab", (100, 999)), seed=0)
    whole = model.encode(problems)
    (layout,) = whole.layouts
    shared = Prompts.uniform(
        layout.tokens[:, blanks:],
        layout.labels[blanks:],
        {value: tuple(i - blanks for i in span) for value, span in layout.spans.items()},
    )
    shared = Prompts(layout.tokens[0, :blanks], shared.layouts)
    assert (layout.tokens[:, :blanks] == layout.tokens[0, :blanks]).all()
    for position in ("operands", "last"):
        asked = edits(model, Site(0, "resid_post", position), size=3.0, problems=problems)
        answers = [
            edited_answers(
                Session(model),
                run_baseline(Session(model), prompts, ReferenceAnswers.of_problems(problems)),
                asked,
            )
            for prompts in (whole, shared)
        ]
        assert_same(*answers, atol=1e-4)


def test_probability_and_logit_difference_by_hand():
    model = tiny_decoder(seed=5)
    baseline = baseline_of(model)
    (layout,) = model.encode(PROBLEMS).layouts
    for row in range(4):
        right = model.reader.tokens(int(PROBLEMS.answers[row]))
        other = model.reader.tokens(int(ASKED.counterfactual[row]))
        written = torch.cat([layout.tokens[row], torch.tensor(right)])[None]
        logits = model.full_pass(written, {}, last=len(right) + 1)[0, :-1].double()
        expected = sum(float(logits[i].log_softmax(-1)[token]) for i, token in enumerate(right))
        assert float(baseline.answers.log_prob[row]) == pytest.approx(expected, rel=1e-4)
        at = next(i for i, (a, b) in enumerate(zip(right, other, strict=True)) if a != b)
        difference = float(logits[at, right[at]] - logits[at, other[at]])
        assert float(baseline.answers.logit_difference[row]) == pytest.approx(difference, abs=1e-3)


@pytest.mark.parametrize("highest", [30.0, 0.0, -60.0])
def test_the_probability_that_an_answer_ends_is_exact_at_both_ends(highest):
    """Where a further digit is nearly sure (30 nats above the rest), as where it is nearly none."""
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    longer = torch.tensor([2, 5])
    logits[:, longer] += highest
    others = logits.double().index_fill(1, longer, -torch.inf).logsumexp(-1)
    expected = others - logits.double().logsumexp(-1)
    found = _log_prob_of_end(logits.log_softmax(-1), longer)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_the_likeliest_token_is_the_one_with_the_largest_logit():
    read = torch.randn(3, 2, 1001, generator=torch.Generator().manual_seed(0))
    assert torch.equal(likeliest(read), read.argmax(-1))


def test_a_regressed_answer_has_no_probability():
    answers = baseline_of(MODELS["encoder"]).answers
    assert answers.numbers.isfinite().all()
    assert answers.log_prob.isnan().all()
    assert answers.logit_difference.isnan().all()


def test_out_of_memory_halves_the_batch(monkeypatch, caplog):
    model = tiny_encoder()
    baseline = baseline_of(model)
    asked = edits(model, Site(0, "resid_post", "all"), size=2.0)
    expected = edited_answers(Session(model, Batching(8)), baseline, asked)
    run_block = model.run_block

    def small_memory(layer, resid, **options):
        if len(resid) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return run_block(layer, resid, **options)

    monkeypatch.setattr(model, "run_block", small_memory)
    batching = Batching(8)
    assert_same(edited_answers(Session(model, batching), baseline, asked), expected, atol=1e-3)
    assert [record.args for record in caplog.records] == [(8,), (4,)]
    assert "out of memory with 8 rows at a time: going on with half as many" in caplog.text
    monkeypatch.setattr(model, "run_block", lambda *_, **__: small_memory(0, range(3)))
    with pytest.raises(torch.OutOfMemoryError):
        edited_answers(Session(model, Batching(2)), baseline, asked)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def broken(_):
        raise RuntimeError("shapes do not fit")

    model = MODELS["encoder"]
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(batches(model, model.encode(PROBLEMS), Batching(), broken))


def test_the_automatic_batch_follows_the_width_of_the_rows():
    model = MODELS["decoder"]
    assert Batching().rows(model, 14) == AUTO_ELEMENTS["cpu"] // (14 * 32)
    assert Batching(100).rows(model, 14) == 100
    assert Batching().rows(model, 2**30) == 1


@pytest.mark.parametrize("model", [*MODELS.values(), PlantedModel()])
def test_the_check_passes_where_the_paths_agree(model):
    sites = [Site(layer, "resid_post", "all") for layer in range(model.n_layers)]
    assert check_fast_path(model, model.encode(PROBLEMS), sites) < 1e-4


def test_the_check_names_the_layer_that_disagrees(monkeypatch):
    model = tiny_decoder()
    run_block = model.run_block

    def wrong(layer, resid, **options):
        after, seen = run_block(layer, resid, **options)
        return after * (1.01 if layer == 1 else 1), seen

    monkeypatch.setattr(model, "run_block", wrong)
    sites = [Site(0, "resid_post", "all")]
    with pytest.raises(UserError, match=r"relative difference of 0.01 behind layer 1; set engine"):
        check_fast_path(model, model.encode(PROBLEMS), sites)


def test_blocks_that_cannot_be_replayed_leave_full_passes(monkeypatch, caplog):
    model = tiny_decoder()
    prompts = model.encode(PROBLEMS)
    asked = edits(model, Site(0, "resid_post", "last"), size=3.0)
    expected = edited_answers(Session(model), baseline_of(model), asked)

    def refuse(*_, **__):
        raise NotReplayableError("its attention takes a mask of its own")

    monkeypatch.setattr(model, "run_block", refuse)
    assert check_fast_path(model, prompts, [asked.site]) is None
    assert (
        "cannot be replayed block by block (NotReplayableError: its attention takes" in caplog.text
    )
    assert_same(edited_answers(Session(model), baseline_of(model), asked), expected, atol=1e-4)


def test_hooks_are_gone_after_an_error():
    model = MODELS["encoder"]
    baseline = baseline_of(model)
    asked = edits(model, Site(0, "z", "all"), size=1.0)
    broken = SiteEdits(asked.site, asked.frames[..., :-1], asked.changes)
    for replays in (True, False):
        model.replays = replays
        with pytest.raises(RuntimeError):
            run_edits(Session(model), baseline, [broken])
    model.replays = True
    assert np.array_equal(baseline_of(model).answers.numbers, baseline.answers.numbers)


_run, _next = Resumed._run, ResumedTails.next_read_outs


def resumed_with(vectors_of):
    """Passes whose change is another than the one asked for."""

    def run(self, change):
        other = change and Change(change.site, change.indices, vectors_of(change.vectors))
        return _run(self, other)

    return {"_run": run}


BREAKS = {
    "an edit that is not made": resumed_with(lambda vectors: 0 * vectors),
    "rows in another order": resumed_with(lambda vectors: vectors.roll(1, 0)),
    "what is written next": {
        "next_read_outs": lambda self, rows, written: (1.05 * r for r in _next(self, rows, written))
    },
}


@pytest.mark.parametrize("what", BREAKS)
def test_the_check_sees(monkeypatch, what):
    model = tiny_decoder()
    prompts = model.encode(PROBLEMS)
    sites = [Site(0, "resid_post", "last")]
    assert check_fast_path(model, prompts, sites) < 1e-4
    for name, broken in BREAKS[what].items():
        monkeypatch.setattr(ResumedTails if name == "next_read_outs" else Resumed, name, broken)
    with pytest.raises(UserError, match=r"relative difference of .* behind an edit at layer 0"):
        check_fast_path(model, prompts, sites)


def test_the_check_sees_the_last_layout(monkeypatch):
    model = tiny_decoder()
    (layout,) = model.encode(PROBLEMS).layouts
    first, last = layout.part(slice(6)), layout.part(slice(6, None))
    prompts = Prompts(torch.empty(0, dtype=torch.int64), (first, last))
    embed, broken = model.embed, last.tokens[0]

    def wrong(tokens, *, start=0):
        resid = embed(tokens, start=start)
        return 1.1 * resid if torch.equal(tokens[0, : len(broken)], broken) else resid

    monkeypatch.setattr(model, "embed", wrong)
    with pytest.raises(UserError, match="behind layer 0"):
        check_fast_path(model, prompts, [Site(0, "resid_post", "last")])
