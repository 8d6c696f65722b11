"""Real weights of the larger models, where they were fetched: tokens, answers, the fast path."""

import pytest

from mech_arith.engine.batching import Batching
from mech_arith.engine.guard import check_fast_path
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.language.loading import load_pretrained
from mech_arith.models.language.packaged import PackagedModel
from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.models.language.prompting import Prompting
from mech_arith.problems import draw_with_shots
from mech_arith.problems.templates import build_template
from tests.lms import larger_lm

__all__ = ["larger_lm"]  # a fixture

# In one process, and once for each model: they are large.
pytestmark = pytest.mark.slow

STYLES = {"qwen2_5_coder_0_5b": "chat", "gemma3_270m": "spaced"}
PROBLEMS, SHOTS = draw_with_shots(
    build_template("sum", "a+b"), n=12, n_shots=4, ranges=dict.fromkeys("ab", (0, 9)), seed=0
)


@pytest.fixture(scope="module")
def model(larger_lm: PackagedModel) -> PretrainedModel:
    loaded = load_pretrained(  # compares the digest of the weights with the one that is pinned
        larger_lm.name,
        path=None,
        hub=None,
        revision=None,
        dtype="float32",
        device="cpu",
        device_map=None,
    )
    return PretrainedModel(loaded, Prompting(STYLES[larger_lm.name], SHOTS, None))


def test_a_token_for_each_digit(model: PretrainedModel) -> None:
    words = model.tokenizer.tokenize("x = 120 + 3")
    assert [word for word in words if word.isdigit()] == ["1", "2", "0", "3"]
    assert [len(model.reader.tokens(number)) for number in (7, 12, 345)] == [1, 2, 3]


def test_it_adds(model: PretrainedModel) -> None:
    """Of 60: Qwen all, Gemma .78."""
    baseline = run_baseline(
        Session(model, Batching(4)), model.encode(PROBLEMS), ReferenceAnswers.of_problems(PROBLEMS)
    )
    right = (baseline.answers.numbers.numpy() == PROBLEMS.answers).mean()
    print(f"\n{model.name}: {right:.2f} of {len(PROBLEMS)}")
    assert right >= 0.6


def test_the_fast_path_is_the_full_pass(model: PretrainedModel) -> None:
    """Sliding windows and two rotary bases (Gemma), biases (Qwen), norms of queries and keys."""
    last = model.n_layers - 1
    sites = [
        Site(2, "attn_out", "a.last"),
        Site(last // 2, "z", "last"),
        Site(last, "mlp_out", "last"),
    ]
    difference = check_fast_path(model, model.encode(PROBLEMS).take(2), sites)
    assert model.replays
    assert difference is not None
    assert difference < 1e-3
