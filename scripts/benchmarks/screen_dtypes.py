"""Are the scores of a screen in half precision those in float32?

    python scripts/benchmarks/screen_dtypes.py      # SmolLM2; five minutes

All layers and single positions of three points, 8 pairs of problem and source. A row compares the
scores of one number format with those in float32: over all sites and pairs the size of the
difference over that of the scores, and of the pair that differs most; over the means by site the
rank correlation of sizes and how many of the ten largest are among as many.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace

import torch
from scipy.stats import spearmanr
from torch import Tensor

from mech_arith import compose
from mech_arith.common.store import Store
from mech_arith.engine.attribution import attribute
from mech_arith.engine.sites import Site, name_positions
from mech_arith.interventions.screening import draw_pairs
from mech_arith.models.kinds import Metric

PAIRS = 8
POINTS = ("z", "mlp_out", "resid_post")
HEAD = ("dtype", "metric", "off by", "worst pair off by", "Spearman", "top 10", "zeros")
TOP = 10


def scores(dtype: str) -> Iterator[tuple[Metric, Tensor]]:
    """By metric, [sites, pairs]."""
    cell = compose(
        "+experiment=smollm2_addition", "intervention=none", "wandb=disabled", f"dtype={dtype}"
    )
    session = replace(cell.session, store=Store(None))
    model, digits = session.model, cell.prepared.digits
    problems = cell.problems("fit").take(torch.arange(PAIRS).numpy())
    pairs = draw_pairs(model, problems, lambda some: model.encode(some, digits=digits), seed=0)
    names = name_positions("each", pairs.base.joined(pairs.source))
    layers = range(model.n_layers)
    sites = [Site(layer, point, name) for layer in layers for point in POINTS for name in names]
    for metric in (Metric.LOGIT_DIFFERENCE, Metric.LOG_PROB):
        yield metric, attribute(session, pairs, sites, metric=metric).whole


def row(dtype: str, metric: Metric, found: Tensor, exact: Tensor) -> str:
    """One line of the table."""
    apart = found - exact
    off = float(apart.norm() / exact.norm())
    worst = float((apart.norm(dim=0) / exact.norm(dim=0)).max())
    ours, theirs = found.mean(1).abs(), exact.mean(1).abs()
    rank = spearmanr(ours, theirs).statistic
    ours, theirs = (set(size.topk(TOP).indices.tolist()) for size in (ours, theirs))
    sizes = [f"{100 * off:.1f}%", f"{100 * worst:.1f}%", f"{rank:.3f}", str(len(ours & theirs))]
    zeros = f"{100 * float((found == 0).double().mean()):.1f}%"
    return f"| {' | '.join([f'`{dtype}`', f'`{metric.value}`', *sizes, zeros])} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dtypes", nargs="+", choices=("bfloat16", "float16"), default=["bfloat16", "float16"]
    )
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    exact = dict(scores("float32"))
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for metric, found in exact.items():
        print(row("float32", metric, found, found), flush=True)
    for dtype in asked.dtypes:
        for metric, found in scores(dtype):
            print(row(dtype, metric, found, exact[metric]), flush=True)


if __name__ == "__main__":
    main()
