"""Tracing: coordinates against values. Fitted and chosen on one split, reported on the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mech_arith.activations import capture
from mech_arith.directions import PCAFitter, PrincipalComponents
from mech_arith.problems import ProblemSet
from mech_arith.progress import progress
from mech_arith.sites import Site
from mech_arith.solvers.base import Prompts, Solver
from mech_arith.statistics import pearson


@dataclass(frozen=True)
class Projected:
    """Coordinates of problems on a site's components."""

    coordinates: Float[Tensor, "n k"]
    total_variance: float
    """Of the same problems' activations, over all dimensions."""

    def explained_variance(self) -> Float[Tensor, " k"]:
        """Share of these problems' variance along each component."""
        centred = self.coordinates - self.coordinates.mean(0)
        return centred.square().sum(0) / (len(centred) - 1) / self.total_variance


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
    explained_variance_fit: Float64[Tensor, " k"]
    explained_variance: Float64[Tensor, " k"]
    coordinates: Float64[Tensor, "n k"]
    """Of the report split's problems."""

    @property
    def is_constant(self) -> bool:
        """Nothing varies here, so that there is nothing to correlate."""
        return len(self.components.directions) == 0

    def best_component(self, value: str) -> int | None:
        """The component with the largest |R| on the fit split; None if the value never varies."""
        on_fit = self.r_fit[:, self.values.index(value)].abs()
        return None if bool(on_fit.isnan().all()) else int(on_fit.nan_to_num(-1).argmax())


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
    n_components: int,
    batch_size: int,
) -> dict[Site, Trace]:
    """Fit components on the fit split and correlate their coordinates on both."""
    components = fit_components(
        solver, prompts_fit.tokens, sites, n_components=n_components, batch_size=batch_size
    )
    on_fit = coordinates(solver, prompts_fit.tokens, components, batch_size=batch_size)
    on_report = coordinates(solver, prompts_report.tokens, components, batch_size=batch_size)
    values_fit, values_report = value_table(fit), value_table(report)
    names = fit.template.expression.values
    return {
        site: _traced(
            site, components[site], names, on_fit[site], on_report[site], values_fit, values_report
        )
        for site in sites
    }


def _traced(
    site: Site,
    components: PrincipalComponents,
    names: tuple[str, ...],
    on_fit: Projected,
    on_report: Projected,
    values_fit: Float[Tensor, "fit v"],
    values_report: Float[Tensor, "report v"],
) -> Trace:
    return Trace(
        site=site,
        components=components,
        values=names,
        r_fit=pearson(on_fit.coordinates, values_fit),
        r=pearson(on_report.coordinates, values_report),
        explained_variance_fit=on_fit.explained_variance(),
        explained_variance=on_report.explained_variance(),
        coordinates=on_report.coordinates,
    )


def fit_components(
    solver: Solver,
    tokens: Int64[Tensor, "n pos"],
    sites: Sequence[Site],
    *,
    n_components: int,
    batch_size: int,
) -> dict[Site, PrincipalComponents]:
    """Principal components at every site, in one pass over the problems."""
    fitters = {site: PCAFitter(n_components) for site in sites}
    for found in capture(solver, tokens, sites, batch_size=batch_size):
        for site, activation in found.items():
            fitters[site].update(activation)
    return {
        site: fitter.fit()
        for site, fitter in progress(fitters.items(), description="components", unit="sites")
    }


def coordinates(
    solver: Solver,
    tokens: Int64[Tensor, "n pos"],
    components: Mapping[Site, PrincipalComponents],
    *,
    batch_size: int,
) -> dict[Site, Projected]:
    """Coordinates of every problem on the components of every site, in one pass."""
    parts: dict[Site, list[Tensor]] = {site: [] for site in components}
    moments = {site: _Moments() for site in components}
    for found in capture(solver, tokens, list(components), batch_size=batch_size):
        for site, activation in found.items():
            parts[site].append(components[site].project(activation))
            moments[site].update(activation.double() - components[site].mean)
    return {
        site: Projected(torch.cat(part), moments[site].total_variance())
        for site, part in parts.items()
    }


class _Moments:
    """Running sums from which the total variance of vectors follows."""

    def __init__(self) -> None:
        self._n = 0
        self._sum: Tensor | float = 0.0
        self._squares = 0.0

    def update(self, vectors: Float[Tensor, "n d"]) -> None:
        """Fold one batch in. Vectors should be near zero mean, to lose no digits."""
        self._n += len(vectors)
        self._sum = self._sum + vectors.sum(0)
        self._squares += float(vectors.square().sum())

    def total_variance(self) -> float:
        """Variance summed over all dimensions."""
        mean = torch.as_tensor(self._sum) / self._n
        return (self._squares - self._n * float(mean.square().sum())) / max(1, self._n - 1)


def correlation_table(
    traces: Mapping[Site, Trace], *, labels: Sequence[str], n_fit: int, n_report: int
) -> pd.DataFrame:
    """A row per site, component and value. Sites at which nothing varies have none."""
    rows = []
    for site, found in traces.items():
        single = site.indices[0] if len(site.indices) == 1 else -1
        for component, value_index in np.ndindex(*found.r.shape):
            r = float(found.r[component, value_index])
            rows.append(
                {
                    "layer": site.layer,
                    "point": site.point,
                    "position": site.position,
                    "position_index": single,
                    "token": labels[single] if single >= 0 else "",
                    "component": component,
                    "value": found.values[value_index],
                    "r": r,
                    "abs_r": abs(r),
                    "r_fit": float(found.r_fit[component, value_index]),
                    "explained_variance": float(found.explained_variance[component]),
                    "explained_variance_fit": float(found.explained_variance_fit[component]),
                    "n_fit": n_fit,
                    "n_report": n_report,
                }
            )
    return pd.DataFrame(rows)


def best_rows(correlations: pd.DataFrame) -> pd.DataFrame:
    """For each value the row that is best on the fit split; its `r` is the report split's."""
    known = correlations.dropna(subset=["r_fit"])
    best = known.groupby("value", sort=False)["r_fit"].agg(lambda r: r.abs().idxmax())
    return known.loc[best]
