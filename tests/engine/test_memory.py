"""Memory does not grow with the number of problems."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from mech_arith.engine.batching import Batching
from mech_arith.problems import draw
from mech_arith.engine.sites import Site
from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.problems.templates import build_template
from mech_arith.directions.base import Subspace, find_method
from mech_arith.directions.project import coordinates
from mech_arith.engine.session import Session
from mech_arith.directions.tracing import fit_directions

model = load_arithmetic("arith_decoder")
template = build_template("t", "a-(b-c)")
sites = [Site(layer, "resid_post", "last") for layer in range(model.n_layers)]

def trace(n):
    problems = draw(template, n=n, ranges=dict.fromkeys("abc", (100, 999)), seed=0)
    prompts, session = model.encode(problems), Session(model, Batching(200))
    fitted = fit_directions(session, problems, prompts, sites, find_method(sys.argv[1], 5))
    frames = {site: Subspace.of_tensors(found) for site, found in fitted.items()}
    coordinates(session, prompts, frames)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

print(*(trace(int(n)) for n in sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "few", "many"),
    [
        ("pls", 1000, 21000),
        ("ridge", 1000, 8000),
        ("mean_difference", 1000, 8000),
        ("fourier", 1000, 8000),
    ],
)
def test_tracing_keeps_sums_and_not_activations(method, few, many):
    """Kept, the residual streams alone of 7,000 problems more would take 200 MB."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, method, str(few), str(many)],
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(float, done.stdout.split())
    assert after - before < 100
