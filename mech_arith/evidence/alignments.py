"""How often answers are as a hypothesis expects while several of its steps are set together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from mech_arith.engine.sites import in_runs
from mech_arith.evidence.hypotheses import N_SHUFFLES, share_fields
from mech_arith.evidence.hypothesis_summary import share_text
from mech_arith.evidence.metrics import exact
from mech_arith.interventions.alignment import Aligned, Place
from mech_arith.statistics import ALPHA, Resampling, holm, rank_p

ANY = 0
"""Number of steps in a row that is of all choices, whatever number of steps they set."""


def alignment_table(
    every: Iterable[Aligned], *, tolerance: float, how: Resampling, seed: int
) -> pd.DataFrame:
    """Rows per hypothesis and rank: of all choices, and of those that set so many steps.

    p of the first is corrected for all hypotheses and ranks (Holm), and they alone are judged.
    """
    rows = [row for one in every for row in _rows(one, tolerance, how, seed)]
    p_holm = torch.full((len(rows),), torch.nan, dtype=torch.float64)
    places = [i for i, row in enumerate(rows) if row["steps_set"] == ANY]
    p_holm[places] = holm(torch.tensor([rows[i]["p"] for i in places], dtype=torch.float64))
    return pd.DataFrame(
        [
            {**row, "p_holm": p, "supported": _is_supported(row, p)}
            for row, p in zip(rows, p_holm.tolist(), strict=True)
        ]
    )


def _is_supported(row: Mapping[str, Any], p_holm: float) -> bool | None:
    """None where it is not known."""
    return None if p_holm != p_holm else p_holm <= ALPHA and row["telling"] > row["floor"]


def _rows(one: Aligned, tolerance: float, how: Resampling, seed: int) -> list[dict[str, Any]]:
    """Of one hypothesis at one rank."""
    sources, n = one.sources, len(one.sources.problems)

    def by_problem(numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers).unflatten(0, (-1, n))

    answers = one.numbers.view(-1, n)
    hits = exact(answers, by_problem(sources.expected()), tolerance=tolerance)
    telling = by_problem(sources.telling(tolerance=tolerance))
    redrawn = sources.redrawn(N_SHUFFLES, tolerance=tolerance, seed=seed).expected()
    others = torch.from_numpy(redrawn).view(N_SHUFFLES, *answers.shape)
    by_chance = exact(answers.expand_as(others), others, tolerance=tolerance)
    n_set = by_problem(sources.chosen.sum(1))
    numbers = [ANY, *n_set[telling].unique().tolist()]
    return [
        {
            "hypothesis": one.hypothesis.name,
            "rank": one.rank,
            "n_steps": len(one.places),
            "places": places_text(one.places),
            "followed": one.followed,
            "steps_set": number,
            "n": n,
            **_shares(hits, by_chance, telling, (n_set == number) | (number == ANY), how),
        }
        for number in numbers
    ]


def _shares(
    hits: Bool[Tensor, "m n"],
    by_chance: Bool[Tensor, "s m n"],
    telling: Bool[Tensor, "m n"],
    counted: Bool[Tensor, "m n"],
    how: Resampling,
) -> dict[str, float | int]:
    """Of some of the choices."""
    apart = telling & counted
    of_problems = hits.double().masked_fill(~apart, torch.nan)
    floor = by_chance[:, apart].double().mean(1)
    return {
        "n_pairs": int(counted.sum()),
        "n_telling": int(apart.sum()),
        "iia": float(hits[counted].double().mean()),
        **share_fields("telling", of_problems, how),
        "floor": float(floor.mean()),
        "p": float(rank_p(hits[apart].double().mean(), floor)),
    }


def places_text(places: Mapping[str, Place]) -> str:
    """Where each step is, as one text: 'b-c: layer 2 at last, components 0, 3'."""
    return "; ".join(
        f"{step}: layer {site.layer}{site.at}, {_components(components)}"
        for step, (site, components) in places.items()
    )


def _components(components: Sequence[int]) -> str:
    plural = "s" if len(components) > 1 else ""
    return f"component{plural} {in_runs(sorted(components))}"


def alignment_summary(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """Per hypothesis, in words how often several of its steps together do what they should; and
    the numbers of one rank: that at which each step by itself does so most often, of the problems
    on which places were chosen.
    """
    table = tables.get("alignments", pd.DataFrame())
    if table.empty:
        return {}
    whole = table.loc[(table["steps_set"] == ANY) & table["telling"].notna()]
    best = whole.loc[whole.groupby("hypothesis", sort=False)["followed"].idxmax()]
    return {row["hypothesis"]: _said(row) for row in best.to_dict(orient="records")}


def _said(row: Mapping[Any, Any]) -> dict[str, Any]:
    verdict = "supported" if row["supported"] else "not beyond chance"
    several = "several of {n_steps} steps together" if row["n_steps"] > 1 else "its step alone"
    columns = ("telling", "telling_low", "telling_high", "floor")
    telling, low, high, floor = (share_text(row[name]) for name in columns)
    return {
        "text": f"{verdict}, {several.format(**row)} (rank {row['rank']}): the answer is as "
        f"expected in {telling} [{low}, {high}] of {row['n_telling']} choices; chance {floor}",
        **{name: row[name] for name in NUMBERS},
    }


NUMBERS = (
    *("rank", "n_steps", "places", "n_telling", "telling", "telling_low", "telling_high"),
    *("floor", "p_holm", "supported"),
)
"""What is said of the rank that is chosen."""
