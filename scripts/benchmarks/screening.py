"""How much faster is a screen than the exact sweep of the same sites, and does it order them alike?

    python scripts/benchmarks/screening.py            # SmolLM2; an hour or more
    python scripts/benchmarks/screening.py --exact 400 --pairs 8          # the same, minutes
    python scripts/benchmarks/screening.py --model arith_decoder --pairs 50

Both run in one process, on the same pairs of problem and source, one after the other; the exact
sweep is the engine's own, which runs only the layers above each edit and writes no answers. The
rank correlation is over all sites. With `--exact N` the sweep is made on N sites that are drawn at
random; its time is put in proportion to all of them. The ratio of the times is held to a bar: 30.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pandas as pd
import torch
from arguments import count, new_file

from mech_arith import compose
from mech_arith.common.store import Store
from mech_arith.engine.attribution import attribute
from mech_arith.engine.pairs import Pairs, metric_of
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site, name_positions
from mech_arith.evidence.screen import agreement
from mech_arith.interventions.screening import draw_pairs, exact_effects
from mech_arith.models.kinds import Metric
from mech_arith.statistics import Resampling

T = TypeVar("T")

BAR = 30.0
CELLS = {
    "smollm2_135m": ("+experiment=smollm2_addition",),
    "arith_decoder": (),
    "arith_encoder": ("model=arith_encoder",),
}
KEPT = (10, 50)


@dataclass(frozen=True)
class Measured:
    """A screen beside the exact sweep."""

    screen: str
    steps: int
    seconds: float
    exact_seconds: float
    spearman: float
    overlaps: dict[int, float]
    """Of the k largest effects the share among the k largest scores, by k."""

    @property
    def ratio(self) -> float:
        """How many times as long the exact sweep takes."""
        return self.exact_seconds / self.seconds


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and what came out."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def sites_of(session: Session, pairs: Pairs) -> list[Site]:
    """Every single position at every point of every layer."""
    model = session.model
    names = name_positions("each", pairs.base.joined(pairs.source))
    return [
        Site(layer, point, name)
        for layer in range(model.n_layers)
        for point in model.points
        for name in names
    ]


def compare(
    session: Session,
    pairs: Pairs,
    sites: Sequence[Site],
    metric: Metric,
    *,
    n_exact: int,
    steps: Sequence[int],
) -> list[Measured]:
    """Screens of so many steps, 0 for first order, beside one exact sweep of some of the sites."""
    metric = metric_of(session.model, metric)
    drawn = torch.randperm(len(sites), generator=torch.Generator().manual_seed(0))[:n_exact]
    some = [sites[index] for index in drawn.sort().values.tolist()]

    def screened(n: int) -> torch.Tensor:
        return attribute(session, pairs, sites, metric=metric, steps=n).whole.nanmean(1)

    screened(0)  # the first pass of a process is slower
    exact_seconds, effects = timed(lambda: exact_effects(session, pairs, some, metric).nanmean(1))
    exact_seconds *= len(sites) / len(some)
    found = []
    for n in steps:
        seconds, score = timed(lambda n=n: screened(n))
        own = score[drawn.sort().values]
        table = pd.DataFrame({"score": own.tolist(), "effect": effects.tolist()})
        kept = {k: agreement(table, keep=k, how=Resampling(n_resamples=100)) for k in KEPT}
        overlaps = {k: one["overlap"] for k, one in kept.items()}
        name = "integrated" if n else "attribution"
        spearman = kept[KEPT[0]]["spearman"]
        found.append(Measured(name, n, seconds, exact_seconds, spearman, overlaps))
    return found


def markdown(rows: Sequence[Measured]) -> str:
    """A row per screen."""
    lines = [
        "| screen | steps | seconds | exact sweep | times faster | Spearman | top 10 | top 50 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.screen} | {row.steps} | {row.seconds:.1f} | {row.exact_seconds:.0f} | "
        f"{row.ratio:.0f} | {row.spearman:.2f} | {row.overlaps[10]:.2f} | {row.overlaps[50]:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and fail where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=CELLS, default="smollm2_135m")
    parser.add_argument("--pairs", type=count, default=16, help="of problem and source (16)")
    parser.add_argument(
        "--metric", choices=["log_prob", "logit_difference"], default="logit_difference"
    )
    parser.add_argument("--steps", type=count, default=8, help="of integrated gradients (8)")
    parser.add_argument("--exact", type=count, help="sites of the exact sweep (all)")
    parser.add_argument("--json", type=new_file, help="a file for the numbers")
    asked = parser.parse_args()
    cell = compose(*CELLS[asked.model], "intervention=none", "wandb=disabled")
    session = replace(cell.session, store=Store(None))  # what is stored would not be timed
    problems = cell.problems("fit").take(torch.arange(asked.pairs).numpy())
    digits = cell.prepared.digits
    pairs = draw_pairs(
        session.model, problems, lambda some: session.model.encode(some, digits=digits), seed=0
    )
    sites = sites_of(session, pairs)
    n_exact = min(asked.exact or len(sites), len(sites))
    print(f"{asked.model}: {len(sites)} sites, {n_exact} swept, {len(pairs)} pairs, {asked.metric}")
    steps = (0, asked.steps)
    rows = compare(session, pairs, sites, Metric(asked.metric), n_exact=n_exact, steps=steps)
    print(markdown(rows))
    if asked.json is not None:
        written: list[dict[str, Any]] = [vars(row) | {"ratio": row.ratio} for row in rows]
        asked.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    if rows[0].ratio < BAR:
        parser.exit(1, f"expected {BAR:g} times faster, got {rows[0].ratio:.1f}\n")


if __name__ == "__main__":
    main()
