"""Tables of what coordinates correlate with."""

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import torch

from mech_arith.directions.base import DirectionMethod
from mech_arith.directions.readings import Reading, Readings
from mech_arith.directions.tracing import Trace
from mech_arith.engine.sites import Site
from mech_arith.evidence.verdicts import sites_text
from mech_arith.models.prompts import Prompts
from mech_arith.statistics import (
    Resampling,
    binomial_above,
    holm,
    majority_floor,
    n_classes,
    pearson,
    share_interval,
    told_apart,
)


def correlation_table(
    traces: Mapping[Site, Trace], *, prompts: Prompts, n_fit: int
) -> pd.DataFrame:
    """A row per site, component and value. Sites at which nothing varies have none."""
    varying = {site: found for site, found in traces.items() if not found.is_constant}
    if not varying:
        return pd.DataFrame()
    places = pd.DataFrame([place_columns(site, prompts) for site in varying])
    sizes = [found.r.numel() for found in varying.values()]
    columns = pd.concat([pd.DataFrame(_numbers(found)) for found in varying.values()])
    rows = places.loc[np.repeat(places.index, sizes)].reset_index(drop=True)
    table = pd.concat([rows, columns.reset_index(drop=True)], axis=1)
    return table.assign(n_fit=n_fit, n_report=len(prompts))


def subspace_table(
    traces: Mapping[Site, Trace],
    *,
    n_fit: int,
    by_class: Collection[str] = (),
    how: Resampling | None = None,
) -> pd.DataFrame:
    """A row per site, rank and value, for the value's subspace of that rank.

    R is that of what is read from the subspace; of rank 1 that of the component, with its sign.

    Args:
        traces: by site.
        n_fit: problems of the fit split.
        by_class: values that are judged by their classes, if they have few.
        how: the level of the intervals; the usual one by default.
    """
    how = how or Resampling()
    rows = [
        {
            **site.columns(),
            **row,
            **_classes(found, row, by_class, how),
            "n_fit": n_fit,
            "n_report": len(found.coordinates),
        }
        for site, found in traces.items()
        for readings in found.readings
        for row in _subspaces(found, readings)
    ]
    p = torch.tensor([row["class_p"] for row in rows], dtype=torch.float64)
    corrected = zip(rows, holm(p).tolist(), strict=True)
    return pd.DataFrame([{**row, "class_p_holm": p_holm} for row, p_holm in corrected])


def _classes(
    found: Trace, row: Mapping[str, Any], by_class: Collection[str], how: Resampling
) -> dict[str, float | int | None]:
    """How well the class of a row's value is told; nothing for a value that is judged by R."""
    index = found.values.index(row["value"])
    values = found.values_report[:, index].numpy()
    n = n_classes(values) if row["value"] in by_class else 0
    if not n:
        return {"n_classes": None, **dict.fromkeys(OF_CLASSES, float("nan"))}
    at = list(found.fitted.frame(index, row["rank"]))
    right = told_apart(found.coordinates[:, at].numpy(), values)
    ends = share_interval(torch.from_numpy(right), how)
    chance = majority_floor(values.astype(np.int64))
    return {
        "n_classes": n,
        "class_accuracy": float(right.mean()),
        "class_accuracy_low": float(ends.low),
        "class_accuracy_high": float(ends.high),
        "class_chance": chance,
        "class_p": binomial_above(int(right.sum()), len(right), chance),
    }


OF_CLASSES = (
    *("class_accuracy", "class_accuracy_low", "class_accuracy_high"),
    *("class_chance", "class_p"),
)


def _subspaces(found: Trace, readings: Readings) -> list[dict[str, Any]]:
    """Of every value of which there is one, in the order of their first directions."""
    known = [(one.components[0], i, one) for i, one in enumerate(readings.by_value) if one]
    return [
        _subspace(found, readings, index, one)
        for _, index, one in sorted(known, key=lambda one: one[:2])
    ]


def _subspace(found: Trace, readings: Readings, index: int, one: Reading) -> dict[str, Any]:
    """What there is to say of one value's subspace."""
    is_one, of = readings.rank == 1, readings.inference
    row = one.components[0] if is_one else index
    read = one.read[:, None]
    passed, values = found.passed, found.values_report[:, index, None]
    r = float(found.r[row, index] if is_one else pearson(read, values))
    r_passed = found.r_passed[row, index] if is_one else pearson(read[passed], values[passed])
    at = list(one.components)
    given = int(of.least_partial_given[row, index])
    control = readings.control_r2[index]
    return {
        "component": at[0],
        "rank": readings.rank,
        "value": found.values[index],
        "r": r,
        "abs_r": abs(r),
        "r_passed": float(r_passed),
        "r_fit": float(found.r_fit[row, index]) if is_one else one.r_fit,
        "chosen": True,
        **{name: float(getattr(of, name)[row, index]) for name in OF_READINGS},
        "p_site": float(of.p_site[index]) if is_one else float("nan"),
        "p_site_holm": float(of.p_site_holm[index]) if is_one else float("nan"),
        "partial_r_undefined": of.relations[index],
        "least_partial_given": "" if given < 0 else found.values[given],
        "explained_variance": float(found.explained_variance[at].sum()),
        "explained_variance_fit": float(found.explained_variance_fit[at].sum()),
        "decoding_r2": one.r2,
        "control_r2": control,
        "selectivity": max(one.r2, 0.0) - max(control, 0.0) if control == control else control,
        "periods": _periods(found, at),
    }


def _periods(found: Trace, directions: Sequence[int]) -> str:
    """Periods of the circles that directions were found for, as fractions."""
    known = found.subspace.harmonics
    if known is None:
        return ""
    return " ".join(
        str(Fraction(period).limit_denominator(1000)) for period in known.periods_of(directions)
    )


OF_READINGS = (
    *("r_low", "r_high", "p", "p_holm", "p_bh"),
    *("partial_r", "least_partial_r", "shapley"),
)
"""Numbers of the inference for each component and value."""


def place_columns(site: Site, prompts: Prompts) -> dict[str, Any]:
    """Where a site is, as entries of a row: its single position, and what stands there."""
    single, token = prompts.single(site.position)
    reason = ""
    if single < 0:
        several = len(set(prompts.positions(site.position))) > 1
        reason = (
            "it is another position in some prompts: they have several layouts"
            if several
            else "it is several positions"
        )
    return {
        **site.columns(),
        "position_index": single if single >= 0 else None,
        "token": token,
        "position_reason": reason,
    }


def _numbers(found: Trace) -> dict[str, np.ndarray]:
    """A site's columns, component by component and in each value by value."""
    k, v = found.r.shape
    inference, values = found.inference, np.array(found.values, dtype=object)
    by_component = {"component": torch.arange(k), "rank": torch.ones(k, dtype=torch.int64)}
    explained = {
        "explained_variance": found.explained_variance,
        "explained_variance_fit": found.explained_variance_fit,
    }
    by_value = {"p_site": inference.p_site, "p_site_holm": inference.p_site_holm}
    by_both = {
        "r": found.r,
        "abs_r": found.r.abs(),
        "r_low": inference.r_low,
        "r_high": inference.r_high,
        "r_passed": found.r_passed,
        "r_fit": found.r_for_choice,
        "chosen": torch.arange(k)[:, None] == found.chosen,
        "p": inference.p,
        "p_holm": inference.p_holm,
        "p_bh": inference.p_bh,
        "partial_r": inference.partial_r,
        "least_partial_r": inference.least_partial_r,
        "shapley": inference.shapley,
    }
    given = np.append(values, "")[inference.least_partial_given.numpy()]  # "" for -1
    return {
        **{name: np.repeat(column.numpy(), v) for name, column in by_component.items()},
        "value": np.tile(values, k),
        **{name: column.flatten().numpy() for name, column in by_both.items()},
        "partial_r_undefined": _undefined(found),
        "least_partial_given": given.flatten(),
        **{name: np.tile(column.numpy(), k) for name, column in by_value.items()},
        **{name: np.repeat(column.numpy(), v) for name, column in explained.items()},
    }


def _undefined(found: Trace) -> np.ndarray:
    """Why there is no partial R, where there is none; '' elsewhere."""
    k, _ = found.r.shape
    said = np.tile(np.array(found.inference.relations, dtype=object), k)
    missing = found.inference.partial_r.isnan().flatten().numpy()
    said[missing & (said == "")] = "the other values make up the coordinate"
    return said


MASSIVE = 0.95
"""Share of a site's variance from which one component is all that there is of it."""


def massive_components(traces: Mapping[Site, Trace]) -> list[str]:
    """Where one component holds nearly all variance, as that of a massive activation does.

    One line for all layers at the same positions.

    Source: Sun et al. (2024), "Massive activations in large language models".
    """
    found: dict[str, dict[Site, float]] = {}
    for site, trace_of in traces.items():
        share = float(trace_of.explained_variance_fit.max())
        if share >= MASSIVE:
            found.setdefault(site.position, {})[site] = share
    return [
        f"in {'; '.join(sites_text(shares))} one component holds {_percent(shares.values())} of "
        f"the activations' variance at position {position}: it may be that of a massive "
        "activation; all other components are small beside it, and so is what edits of them change"
        for position, shares in found.items()
    ]


def exhausted(traces: Mapping[Site, Trace], method: DirectionMethod) -> list[str]:
    """Where a method finds fewer directions than it is asked for; one line per number of them.

    Of a method with frames for each value, one line per value and the ranks that it has no frame
    of: these ranks have no row in any table.
    """
    if method.ranks:
        return _without_frames(traces, method)
    found: dict[tuple[str, int], list[Site]] = {}
    for site, trace_of in traces.items():
        n_found = len(trace_of.subspace.directions)
        if n_found < method.n_components:
            found.setdefault((site.position, n_found), []).append(site)
    return [
        f"in {'; '.join(sites_text(sites))} {method.name} finds {n_found} of {method.n_components} "
        f"directions at position {position}: nothing beyond rounding is left for others"
        for (position, n_found), sites in found.items()
    ]


def _without_frames(traces: Mapping[Site, Trace], method: DirectionMethod) -> list[str]:
    found: dict[tuple[tuple[str, ...], tuple[int, ...]], list[Site]] = {}
    for site, trace_of in traces.items():
        by_ranks: dict[tuple[int, ...], list[str]] = {}
        for value in trace_of.values:
            frames = {rank: trace_of.frame(value, rank) for rank in method.ranks}
            if lacking := tuple(rank for rank, frame in frames.items() if not frame):
                by_ranks.setdefault(lacking, []).append(value)
        for ranks, values in by_ranks.items():
            found.setdefault((tuple(values), ranks), []).append(site)
    return [
        f"in {'; '.join(sites_text(sites))} {method.name} finds no subspace of rank "
        f"{', '.join(map(str, ranks))} for {', '.join(values)}: nothing beyond rounding is left "
        "for so many directions"
        for (values, ranks), sites in found.items()
    ]


def _percent(shares: Collection[float]) -> str:
    """Of one share or several: `97.0%`, `95.1% to 99.8%`."""
    ends = (f"{min(shares):.1%}", f"{max(shares):.1%}")
    return " to ".join(dict.fromkeys(ends))
