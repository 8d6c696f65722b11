"""Tracing: coordinates against values. Fitted and chosen on one split, reported on the other."""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mech_arith import activations, directions, sites, solvers, statistics, sums
from mech_arith.activations import capture
from mech_arith.artifacts import Store
from mech_arith.batching import Batching
from mech_arith.digests import tensor_digest
from mech_arith.directions import PCAFitter, PrincipalComponents
from mech_arith.problems import ProblemSet
from mech_arith.progress import progress
from mech_arith.sites import Site
from mech_arith.solvers.base import Solver
from mech_arith.solvers.prompts import Prompts
from mech_arith.statistics import Inference, Resampling, infer, pearson
from mech_arith.sums import Cross, Projection, Sums
from mech_arith.unfinished import Piece, Unfinished
from mech_arith.verdicts import layers_text

CODE = (activations, directions, sites, solvers, statistics, sums, sys.modules[__name__])
"""What an entry of the store depends on."""


@dataclass(frozen=True)
class Trace:
    """One site's components and what they correlate with."""

    site: Site
    components: PrincipalComponents
    values: tuple[str, ...]
    r_fit: Float64[Tensor, "k v"]
    """R on the fit split: for choosing."""
    r: Float64[Tensor, "k v"]
    """R on the report split: for reporting."""
    r_passed: Float64[Tensor, "k v"]
    """R on those of its problems that the solver answers right."""
    explained_variance_fit: Float64[Tensor, " k"]
    explained_variance: Float64[Tensor, " k"]
    coordinates: Float64[Tensor, "n k"]
    """Of the report split's problems."""
    shuffled: Float64[Tensor, "v width"]
    """For each value the unit vector along which the fit split's activations covary most with its
    numbers in a random order: a direction fitted on nothing. NaN where the value is constant."""
    value_mean: Float64[Tensor, " v"]
    """Of the fit split."""
    value_sd: Float64[Tensor, " v"]
    inference: Inference
    """How sure R on the report split is, and how far it is the value's own."""

    @property
    def is_constant(self) -> bool:
        """Nothing varies here, so that there is nothing to correlate."""
        return len(self.components.directions) == 0

    def place_of(
        self, component: int, value: str, wanted: Float64[Tensor, "*rows"]
    ) -> Float64[Tensor, "*rows"]:
        """Where the fit puts the coordinate of problems in which `value` is `wanted`.

        The least-squares line of the coordinate on the value, over the fit split; NaN for a value
        that is constant there.
        """
        index = self.values.index(value)
        slope = self.r_fit[component, index] * self.components.sd[component] / self.value_sd[index]
        return slope * (wanted - self.value_mean[index])

    def r_of_best(self) -> Float64[Tensor, " v"]:
        """R on the report split of each value's best component; NaN where there is none."""
        if self.is_constant:
            return torch.full((len(self.values),), torch.nan, dtype=torch.float64)
        chosen = chosen_components(self.r_fit)
        r = self.r.gather(0, chosen.clamp(min=0)[None])[0]
        return r.where(chosen >= 0, torch.nan)

    def best_component(self, value: str) -> int | None:
        """The component with the largest |R| on the fit split; None if the value never varies."""
        component = int(chosen_components(self.r_fit)[self.values.index(value)])
        return None if component < 0 else component


def chosen_components(r_fit: Float64[Tensor, "k v"]) -> Int64[Tensor, " v"]:
    """For each value the component with the largest |R| on the fit split; -1 where none has any."""
    if not len(r_fit):
        return torch.full(r_fit.shape[1:], -1, dtype=torch.int64)
    found = r_fit.abs().nan_to_num(-1).max(0)
    return torch.where(found.values < 0, -1, found.indices)


def value_table(problems: ProblemSet) -> Float64[Tensor, "n v"]:
    """Every value of every problem, in the order of the expression's values."""
    names = problems.template.expression.values
    return torch.from_numpy(np.stack([problems.values[name] for name in names], axis=1)).double()


def trace(
    solver: Solver,
    prompts_fit: Prompts,
    prompts_report: Prompts,
    fit: ProblemSet,
    report: ProblemSet,
    sites: Sequence[Site],
    *,
    passed: Bool[Tensor, " n"],
    n_components: int,
    batching: Batching,
    store: Store,
    how: Resampling,
    unfinished: Unfinished | None = None,
) -> dict[Site, Trace]:
    """Fit components on the fit split, in one pass, and correlate on both splits.

    What the store has of other runs, or `unfinished` of earlier attempts at this one, is not
    computed again. `passed` marks the problems of the report split that the solver answers right.
    The p-values are corrected for all these sites.
    """
    kept = unfinished or Unfinished.nothing()
    names = fit.template.expression.values
    values_fit, values_report = value_table(fit), value_table(report)
    fit_key = {"fit": prompts_fit.digest(), "values": tensor_digest(values_fit)}
    keys = {
        site: {
            **solver.fingerprint,
            **fit_key,
            "site": site.key(prompts_fit),
            "method": PCAFitter.method,
            "n_components": n_components,
        }
        for site in sites
    }
    fitted = store.fetch_many(
        "components",
        keys,
        lambda missing: _fit(
            solver,
            prompts_fit,
            values_fit,
            missing,
            n_components=n_components,
            batching=batching,
            piece=kept.piece("fitting", {"sites": [keys[site] for site in missing]}),
        ),
        code=CODE,
    )
    components = {site: PrincipalComponents.of_tensors(found) for site, found in fitted.items()}
    report_key = prompts_report.digest()
    report_keys = {
        site: {
            **key,
            "report": report_key,
            "report_site": site.key(prompts_report),
        }
        for site, key in keys.items()
    }
    projected = store.fetch_many(
        "coordinates",
        report_keys,
        lambda missing: coordinates(
            solver,
            prompts_report,
            {site: components[site] for site in missing},
            batching=batching,
            piece=kept.piece("projecting", {"sites": [report_keys[site] for site in missing]}),
        ),
        code=CODE,
    )
    found = [projected[site]["coordinates"] for site in sites]
    chosen = [chosen_components(fitted[site]["r"]) for site in sites]
    inferred = infer(found, values_report, names, how, chosen=chosen)
    inference = dict(zip(sites, inferred, strict=True))
    return {
        site: Trace(
            site=site,
            components=components[site],
            values=names,
            r_fit=fitted[site]["r"],
            r=pearson(projected[site]["coordinates"], values_report),
            r_passed=pearson(projected[site]["coordinates"][passed], values_report[passed]),
            explained_variance_fit=components[site].variance / components[site].total_variance,
            explained_variance=_explained(projected[site]),
            coordinates=projected[site]["coordinates"],
            shuffled=fitted[site]["shuffled"].double(),
            value_mean=values_fit.mean(0),
            value_sd=values_fit.std(0),
            inference=inference[site],
        )
        for site in sites
    }


def _explained(projected: Mapping[str, Tensor]) -> Float64[Tensor, " k"]:
    """Share of the projected problems' variance along each component."""
    found = projected["coordinates"]
    centred = found - found.mean(0)
    return centred.square().sum(0) / (len(centred) - 1) / projected["total_variance"]


def fit_components(
    solver: Solver,
    prompts: Prompts,
    sites: Sequence[Site],
    *,
    n_components: int,
    batching: Batching,
) -> dict[Site, PrincipalComponents]:
    """Principal components at every site, in one pass over the problems."""
    found = _fit(
        solver,
        prompts,
        torch.zeros(len(prompts), 0, dtype=torch.float64),
        sites,
        n_components=n_components,
        batching=batching,
        piece=Unfinished.nothing().piece("fitting", {}),
    )
    return {site: PrincipalComponents.of_tensors(tensors) for site, tensors in found.items()}


def _fit(
    solver: Solver,
    prompts: Prompts,
    values: Float64[Tensor, "n v"],
    sites: Sequence[Site],
    *,
    n_components: int,
    batching: Batching,
    piece: Piece,
) -> dict[Site, dict[str, Tensor]]:
    """Components of every site, and R of their coordinates with the values on the same problems."""
    fitters = {site: PCAFitter(n_components) for site in sites}
    crosses = {site: Cross(torch.cat([values, _shuffled(values)], dim=1)) for site in sites}
    running = Sums({"pca": list(fitters.values()), "cross": list(crosses.values())}, piece)
    for layout, found in capture(solver, prompts, sites, batching, skip=running.done):
        for site, activation in found.items():
            fitters[site].update(activation)
            crosses[site].update(activation, layout.rows)
        running.advance(len(layout))
    fitted = {}
    for site, fitter in progress(fitters.items(), description="components", unit="sites"):
        components = fitter.fit()
        n_values = values.shape[1]
        r = crosses[site].correlation(components.directions, components.variance)[:, :n_values]
        # A control's direction need not be more exact than the activations.
        shuffled = crosses[site].directions()[n_values:].float()
        fitted[site] = {**components.tensors(), "r": r, "shuffled": shuffled}
    return fitted


def _shuffled(values: Float64[Tensor, "n v"]) -> Float64[Tensor, "n v"]:
    """Each value's numbers in an order of its own, drawn at random but always the same."""
    generator = torch.Generator().manual_seed(int(tensor_digest(values)[:12], 16))
    orders = [torch.randperm(len(values), generator=generator) for _ in values.mT]
    columns = [column[order] for column, order in zip(values.mT, orders, strict=True)]
    return torch.stack(columns, dim=1) if columns else values


def read_coordinates(
    solver: Solver, prompts: Prompts, traces: Mapping[Site, Trace], *, batching: Batching
) -> dict[str, Tensor]:
    """Of other prompts on the components of every trace: 'site 0' and so on, each `[n, k]`."""
    component_of = {site: found.components for site, found in traces.items()}
    at = coordinates(solver, prompts, component_of, batching=batching)
    return {f"site {i}": at[site]["coordinates"] for i, site in enumerate(traces)}


def coordinates(
    solver: Solver,
    prompts: Prompts,
    components: Mapping[Site, PrincipalComponents],
    *,
    batching: Batching,
    piece: Piece | None = None,
) -> dict[Site, dict[str, Tensor]]:
    """Of every problem on the components of every site, in one pass.

    What `piece` holds of the pass is not done again.

    Returns:
        Per site `coordinates` [n, k], and `total_variance` of the activations over all dimensions.
    """
    projections = {site: Projection(fitted, n=len(prompts)) for site, fitted in components.items()}
    kept = piece or Unfinished.nothing().piece("projecting", {})
    running = Sums({"projection": list(projections.values())}, kept)
    for layout, captured in capture(solver, prompts, list(components), batching, skip=running.done):
        for site, activation in captured.items():
            projections[site].update(activation, layout.rows)
        running.advance(len(layout))
    return {
        site: {"coordinates": found.coordinates, "total_variance": found.total_variance()}
        for site, found in projections.items()
    }


def correlation_table(
    traces: Mapping[Site, Trace], *, prompts: Prompts, n_fit: int
) -> pd.DataFrame:
    """A row per site, component and value. Sites at which nothing varies have none."""
    varying = {site: found for site, found in traces.items() if not found.is_constant}
    if not varying:
        return pd.DataFrame()
    places = pd.DataFrame([_place(site, prompts) for site in varying])
    sizes = [found.r.numel() for found in varying.values()]
    columns = pd.concat([pd.DataFrame(_numbers(found)) for found in varying.values()])
    rows = places.loc[np.repeat(places.index, sizes)].reset_index(drop=True)
    table = pd.concat([rows, columns.reset_index(drop=True)], axis=1)
    return table.assign(n_fit=n_fit, n_report=len(prompts))


def _place(site: Site, prompts: Prompts) -> dict[str, Any]:
    """Where a site is."""
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
    by_component = {"component": torch.arange(k)}
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
        "r_fit": found.r_fit,
        "chosen": torch.arange(k)[:, None] == chosen_components(found.r_fit),
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
    found: dict[str, dict[int, float]] = {}
    for site, trace_of in traces.items():
        share = float(trace_of.explained_variance_fit.max())
        if share >= MASSIVE:
            found.setdefault(site.position, {})[site.layer] = share
    return [
        f"in {layers_text(shares)} one component holds {_percent(shares.values())} of the "
        f"activations' variance at position {position}: it may be that of a massive activation; "
        "all other components are small beside it, and so is what edits of them change"
        for position, shares in found.items()
    ]


def _percent(shares: Collection[float]) -> str:
    """Of one share or several: `97.0%`, `95.1% to 99.8%`."""
    ends = (f"{min(shares):.1%}", f"{max(shares):.1%}")
    return " to ".join(dict.fromkeys(ends))
