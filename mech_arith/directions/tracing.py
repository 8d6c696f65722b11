"""Tracing: coordinates against values. Fitted and chosen on one split, reported on the other."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mech_arith import models, statistics
from mech_arith.common import streaming
from mech_arith.common.checkpoint import Checkpoint, Piece
from mech_arith.common.digests import tensor_digest
from mech_arith.common.progress import progress
from mech_arith.common.streaming import Sums
from mech_arith.directions import base, covariance, moments, project
from mech_arith.directions.base import DirectionMethod, FitTask, Subspace
from mech_arith.directions.covariance import Cross
from mech_arith.directions.project import coordinates
from mech_arith.engine import capture as activations
from mech_arith.engine import sites
from mech_arith.engine.capture import capture
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet
from mech_arith.statistics import Inference, Resampling, infer, pearson

CODE = (
    *(activations, base, covariance, moments, project),
    *(sites, models, statistics, streaming, sys.modules[__name__]),
)
"""What an entry of the store depends on, beside the method's own module."""


@dataclass(frozen=True)
class Trace:
    """One site's directions and what the coordinates along them correlate with."""

    site: Site
    subspace: Subspace
    values: tuple[str, ...]
    r_fit: Float64[Tensor, "k v"]
    """R on the fit split: for choosing."""
    r: Float64[Tensor, "k v"]
    """R on the report split: for reporting."""
    r_passed: Float64[Tensor, "k v"]
    """R on those of its problems that the model answers right."""
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
        """Nothing varies here: there is nothing to correlate."""
        return len(self.subspace.directions) == 0

    def predicted_coordinate(
        self, component: int, value: str, wanted: Float64[Tensor, "*rows"]
    ) -> Float64[Tensor, "*rows"]:
        """Where the fit puts the coordinate of problems in which `value` is `wanted`.

        The least-squares line of the coordinate on the value, over the fit split; NaN for a value
        that is constant there.
        """
        index = self.values.index(value)
        slope = self.r_fit[component, index] * self.subspace.sd[component] / self.value_sd[index]
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


@dataclass(frozen=True)
class Splits:
    """Problems to fit and choose on, and problems to report on."""

    fit: ProblemSet
    report: ProblemSet
    prompts_fit: Prompts
    prompts_report: Prompts
    passed: Bool[Tensor, " n"]
    """Marks the problems of the report split that the model answers right."""


def trace(
    session: Session,
    splits: Splits,
    sites: Sequence[Site],
    method: DirectionMethod,
    how: Resampling,
) -> dict[Site, Trace]:
    """Fit directions on the fit split, in one pass, and correlate on both splits.

    What the store has of other runs, or the session's checkpoint of earlier attempts at this one,
    is not computed again. The p-values are corrected for all these sites.
    """
    names = splits.fit.template.expression.values
    values_fit, values_report = value_table(splits.fit), value_table(splits.report)
    fitted, projected = _fitted_and_projected(session, splits, sites, method)
    found = [projected[site]["coordinates"] for site in sites]
    chosen = [chosen_components(fitted[site]["r"]) for site in sites]
    inferred = infer(found, values_report, names, how, chosen=chosen)
    traces = {}
    for site, inference in zip(sites, inferred, strict=True):
        components = Subspace.of_tensors(fitted[site])
        at = projected[site]["coordinates"]
        traces[site] = Trace(
            site=site,
            subspace=components,
            values=names,
            r_fit=fitted[site]["r"],
            r=pearson(at, values_report),
            r_passed=pearson(at[splits.passed], values_report[splits.passed]),
            explained_variance_fit=components.variance / components.total_variance,
            explained_variance=_explained(projected[site]),
            coordinates=at,
            shuffled=fitted[site]["shuffled"].double(),
            value_mean=values_fit.mean(0),
            value_sd=values_fit.std(0),
            inference=inference,
        )
    return traces


def _fitted_and_projected(
    session: Session, splits: Splits, sites: Sequence[Site], method: DirectionMethod
) -> tuple[dict[Site, dict[str, Tensor]], dict[Site, dict[str, Tensor]]]:
    """By site what `fit_directions` and `coordinates` say of the two splits, from the store where
    it has it.
    """
    kept, prompts = session.checkpoint, splits.prompts_fit
    of_fit = {"fit": prompts.digest(), "values": tensor_digest(value_table(splits.fit))}
    keys = {
        site: {
            **session.model.fingerprint,
            **of_fit,
            "site": site.key(prompts),
            **method.key,
        }
        for site in sites
    }
    code = (*CODE, *method.code)
    fitted = session.store.fetch_many(
        "components",
        keys,
        lambda missing: fit_directions(
            session,
            splits.fit,
            prompts,
            missing,
            method,
            piece=kept.piece("fitting", {"sites": [keys[site] for site in missing]}),
        ),
        code=code,
    )
    report = splits.prompts_report
    of_report = {"report": report.digest()}
    report_keys = {
        site: {**key, **of_report, "report_site": site.key(report)} for site, key in keys.items()
    }
    projected = session.store.fetch_many(
        "coordinates",
        report_keys,
        lambda missing: coordinates(
            session,
            report,
            {site: Subspace.of_tensors(fitted[site]) for site in missing},
            piece=kept.piece("projecting", {"sites": [report_keys[site] for site in missing]}),
        ),
        code=code,
    )
    return fitted, projected


def _explained(projected: Mapping[str, Tensor]) -> Float64[Tensor, " k"]:
    """Share of the projected problems' variance along each component."""
    found = projected["coordinates"]
    centred = found - found.mean(0)
    return centred.square().sum(0) / (len(centred) - 1) / projected["total_variance"]


def fit_directions(
    session: Session,
    problems: ProblemSet,
    prompts: Prompts,
    sites: Sequence[Site],
    method: DirectionMethod,
    *,
    piece: Piece | None = None,
) -> dict[Site, dict[str, Tensor]]:
    """Directions of every site, in one pass over the problems of the fit split.

    Returns:
        Per site the `tensors` of its frame; `r` [k, v], R of the coordinates with the values on the
        same problems; and `shuffled` [v, d], see `Trace`.
    """
    values = value_table(problems)
    task = {site: FitTask(session, problems, prompts, site) for site in sites}
    fitters = {site: method.fitter(task[site]) for site in sites}
    crosses = {site: Cross(torch.cat([values, _shuffled(values)], dim=1)) for site in sites}
    kept = piece or Checkpoint.nothing().piece("fitting", {})
    running = Sums({"fitter": list(fitters.values()), "cross": list(crosses.values())}, kept)
    for layout, found in capture(session, prompts, sites, skip=running.done):
        for site, activation in found.items():
            fitters[site].update(activation, values[layout.rows])
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
    session: Session, prompts: Prompts, traces: Mapping[Site, Trace]
) -> dict[str, Tensor]:
    """Of other prompts on the directions of every trace: 'site 0' and so on, each `[n, k]`."""
    subspaces = {site: found.subspace for site, found in traces.items()}
    at = coordinates(session, prompts, subspaces)
    return {f"site {i}": at[site]["coordinates"] for i, site in enumerate(traces)}
