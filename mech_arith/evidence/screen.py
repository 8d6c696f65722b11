"""What a screen says of each site, and whether it can be believed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.engine.sites import Site
from mech_arith.evidence.correlations import place_columns
from mech_arith.interventions.screening import Screened, ScreenedDirections
from mech_arith.models.prompts import Prompts
from mech_arith.statistics import Resampling, correlation_interval, mean_interval, pearson, ranked

TRUSTED = 0.5
"""Below this Spearman correlation the screen's order is not that of the exact effects."""


def screen_table(screened: Screened, prompts: Prompts, how: Resampling) -> pd.DataFrame:
    """A row per candidate."""
    kept, sampled = set(screened.kept), set(screened.sampled)
    rows = [
        {
            **_where(site, prompts),
            "kept": index in kept,
            "sampled": index in sampled,
            **_effect(screened.effects.get(index), how),
        }
        for index, site in enumerate(screened.sites)
    ]
    return _with_scores(pd.DataFrame(rows), screened.score, screened)


def direction_table(
    found: Mapping[Site, ScreenedDirections], screened: Screened, how: Resampling
) -> pd.DataFrame:
    """A row per kept site and direction."""
    rows = [
        {**site.columns(), "component": component, **_effect(effect, how)}
        for site, of_site in found.items()
        for component, effect in enumerate(of_site.effects)
    ]
    score = torch.cat([of_site.score for of_site in found.values()])
    return _with_scores(pd.DataFrame(rows), score, screened)


def _with_scores(
    table: pd.DataFrame, score: Float64[Tensor, " rows"], screened: Screened
) -> pd.DataFrame:
    order = score.abs().argsort(descending=True, stable=True)
    return table.assign(
        score=score.numpy(),
        place=1 + order.argsort().numpy(),
        metric=screened.metric.value,
        steps=screened.steps,
        n_fit=screened.n_fit,
    )


def _where(site: Site, prompts: Prompts) -> dict[str, Any]:
    found = place_columns(site, prompts)
    return {name: found[name] for name in found if name != "position_reason"}


def _effect(effects: Float64[Tensor, " n"] | None, how: Resampling) -> dict[str, Any]:
    """The mean over pairs that have the metric."""
    if effects is None or effects.isnan().all():
        return {**dict.fromkeys(("effect", "effect_low", "effect_high"), np.nan), "n_report": None}
    ends = mean_interval(effects, how)
    return {
        "effect": float(effects.nanmean()),
        "effect_low": float(ends.low),
        "effect_high": float(ends.high),
        "n_report": int((~effects.isnan()).sum()),
    }


def agreement(table: pd.DataFrame, *, keep: int, how: Resampling) -> dict[str, Any]:
    """How sizes of scores and of exact effects go together, over rows that have both.

    `spearman` with its interval (bootstrap over rows; the ranks stay), and of the `top_k` largest
    effects the share that is among as many largest scores. `top_k` is `keep`, but half of the rows
    at most: of all rows the overlap would be 1.
    """
    both = table.loc[table["effect"].notna()]
    score, effect = (
        torch.tensor(both[name].abs().tolist(), dtype=torch.float64) for name in ("score", "effect")
    )
    n, top_k = len(both), min(keep, len(both) // 2)
    x, y = ranked(score)[:, None], ranked(effect)[:, None]
    ends = correlation_interval(x, y, how)
    first = [
        set(one.argsort(descending=True, stable=True)[:top_k].tolist()) for one in (score, effect)
    ]
    return {
        "n": n,
        "spearman": float(pearson(x, y)),
        "spearman_low": float(ends.low),
        "spearman_high": float(ends.high),
        "top_k": top_k,
        "overlap": len(first[0] & first[1]) / top_k if top_k else float("nan"),
        "overlap_by_chance": top_k / n if n else float("nan"),
    }


def screen_summary(
    table: pd.DataFrame, directions: pd.DataFrame, *, keep: int, how: Resampling
) -> dict[str, Any]:
    """How many sites were screened, and how far the scores go with the exact effects.

    `missed` counts the sampled sites that are not kept and have a larger effect than half of those
    that are.
    """
    kept, drawn = table["kept"].astype(bool), table["sampled"].astype(bool)
    left_out = table.loc[drawn & ~kept, "effect"].abs()
    half = float(np.nanmedian(table.loc[kept, "effect"].abs().to_numpy(dtype=float)))
    return {
        "metric": table["metric"].iloc[0],
        "steps": table["steps"].tolist()[0],
        "n_candidates": len(table),
        "n_kept": len(table.loc[kept]),
        "points": table.loc[kept, "point"].unique().tolist(),
        **agreement(table.loc[drawn], keep=keep, how=how),
        "missed": int((left_out > half).sum()),
        "n_left_out": len(left_out),
        "directions": agreement(directions, keep=keep, how=how) if len(directions) else None,
    }


def screen_warnings(found: Mapping[str, Any]) -> list[str]:
    """Whether the screen is not to be trusted here; nothing where there is none."""
    if not found:
        return []
    screen, said = found["screen"], []
    instead = "screen=integrated" if screen["steps"] == 0 else "more screen.steps"
    advice = f"raise screen.keep, try {instead} or another screen.metric"
    if not screen["spearman"] >= TRUSTED:
        said.append(
            f"the screen does not order sites as their exact effects do: Spearman "
            f"{screen['spearman']:.2f} on {screen['n']} sites that were drawn at random; {advice}"
        )
    if screen["missed"]:
        said.append(
            f"{screen['missed']} of {screen['n_left_out']} sites that were drawn at random and "
            f"that the screen left out have a larger effect than half of those kept; {advice}"
        )
    return said


def screen_lines(summary: Mapping[str, Any]) -> list[str]:
    """What a run's summary says of its screen, for people; nothing where there was none."""
    screen = summary.get("screen")
    if screen is None:
        return []
    ends = _ends(screen)
    return [
        f"Screened: {screen['n_kept']} of {screen['n_candidates']} sites are traced and edited. "
        f"Scores go with exact effects ({screen['metric']}) as Spearman "
        f"{_two(screen['spearman'])}{ends} on {screen['n']} sites drawn at random; of the "
        f"{screen['top_k']} largest effects {_two(screen['overlap'])} are among as many largest "
        f"scores (by chance {_two(screen['overlap_by_chance'])}); {screen['missed']} of the "
        f"{screen['n_left_out']} left out have a larger effect than half of those kept."
    ]


def _ends(screen: Mapping[str, Any]) -> str:
    low, high = screen["spearman_low"], screen["spearman_high"]
    return "" if low is None or high is None else f" [{_two(low)}, {_two(high)}]"


def _two(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"
