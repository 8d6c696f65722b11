"""Passes over problems that are stopped and taken up again, at any batch, to the last bit."""

from itertools import product

import pytest
import torch

from mech_arith.common import checkpoint as unfinished
from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.store import Store
from mech_arith.directions import project, tracing
from mech_arith.directions.base import find_method
from mech_arith.directions.tracing import Splits
from mech_arith.engine import capture as activations
from mech_arith.engine.batching import Batching
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.problems import draw, split
from mech_arith.problems.templates import build_template
from mech_arith.statistics import Resampling
from tests.thinned import thinned
from tests.tiny import PlantedModel

SITES = [Site(layer, "resid_post", "last") for layer in range(2)]
N_FIT, ROWS = 60, 7


BATCHES = (1, 2, 8, 9, 10, 14, 17)
"""While it fits up to 9, of which the last is a short one; behind, while it projects."""


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def _keep_after_every_batch(monkeypatch):
    monkeypatch.setattr(unfinished, "STATE_EVERY_S", 0.0)


def traced(directory, method):
    """The traces, going on from what `directory` holds."""
    template = build_template("nested", "a-(b-c)")
    problems = draw(template, n=2 * N_FIT, ranges=dict.fromkeys("abc", (100, 999)), seed=0)
    fit, report = split(problems, fit_share=0.5, seed=0)
    model = PlantedModel()
    kept = Checkpoint(Store(directory), cell="this cell")
    prompts = [model.encode(problems, digits=3) for problems in (fit, report)]
    return tracing.trace(
        Session(model, Batching(ROWS), checkpoint=kept),
        Splits(fit, report, *prompts, passed=torch.ones(N_FIT, dtype=torch.bool)),
        SITES,
        find_method(method, 2),
        Resampling(n_resamples=50, n_permutations=50),
    )


@pytest.mark.parametrize(
    ("batch", "method"),
    [
        *thinned(product(BATCHES, ["pca", "pls"]), [(2, "pls"), (14, "pca")]),
        *thinned(product([2, 14], ["ridge", "mean_difference", "fourier"]), [(14, "ridge")]),
    ],
)
def test_a_pass_killed_at_any_batch_goes_on_to_the_same_bits(tmp_path, monkeypatch, batch, method):
    expected = traced(tmp_path / "undisturbed", method)
    real, seen = activations.capture, []

    def killed(*args, **options):
        for found in real(*args, **options):
            if len(seen) == batch:
                raise KilledError
            seen.append(len(found[0]))
            yield found

    for reader in (tracing, project):
        monkeypatch.setattr(reader, "capture", killed)
    with pytest.raises(KilledError):
        traced(tmp_path / "killed", method)

    skipped = []

    def counted(*args, **options):
        skipped.append(options["skip"])
        yield from real(*args, **options)

    for reader in (tracing, project):
        monkeypatch.setattr(reader, "capture", counted)
    again = traced(tmp_path / "killed", method)
    # What was fitted, or projected, before the kill is not read again.
    done = sum(seen)
    assert skipped == [min(done, N_FIT), max(0, done - N_FIT)]
    for site in SITES:
        one, two = again[site], expected[site]
        for name in ("r", "r_fit", "coordinates", "explained_variance", "shuffled"):
            assert torch.equal(getattr(one, name), getattr(two, name)), name
        assert torch.equal(one.subspace.directions, two.subspace.directions)
