"""Tracing: coordinates against values. Fitted and chosen on one split, reported on the other."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import Any

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
from mech_arith.directions import base, covariance, moments, project, readings
from mech_arith.directions.base import (
    UNCONSTRAINED,
    DirectionMethod,
    Drawing,
    FitTask,
    Subspace,
)
from mech_arith.directions.covariance import Cross
from mech_arith.directions.project import coordinates
from mech_arith.directions.readings import Fitted, Readings, control_values
from mech_arith.engine import capture as activations
from mech_arith.engine import sites
from mech_arith.engine.capture import capture
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.base import Model
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet
from mech_arith.statistics import Inference, Resampling, infer, pearson

CODE = (
    *(activations, base, covariance, moments, project, readings),
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
    values_report: Float64[Tensor, "n v"]
    """Of the report split's problems."""
    passed: Bool[Tensor, " n"]
    """Marks those that the model answers right."""
    value_mean: Float64[Tensor, " v"]
    """Of the fit split."""
    value_sd: Float64[Tensor, " v"]
    inference: Inference
    """How sure R on the report split is, and how far it is the value's own."""
    control: Fitted | None = None
    """The same method fitted to values that are not there; None for one that uses no values."""
    readings: tuple[Readings, ...] = ()
    """What is read from each value's subspace, for every rank that is asked for."""
    learning: dict[str, Float64[Tensor, "points 7"]] = field(default_factory=dict)
    """Of a method that is trained, what its trainings went through (see `base.LEARNING`): "" for
    the values themselves, `CONTROL` for the control task."""

    @property
    def is_constant(self) -> bool:
        """Nothing varies here: there is nothing to correlate."""
        return len(self.subspace.directions) == 0

    def predicted_coordinate(
        self, component: int, value: str, wanted: Float64[Tensor, "*rows"]
    ) -> Float64[Tensor, "*rows"]:
        """Where the fit puts the coordinate of problems in which `value` is `wanted`.

        The method's own function of the value, if it has one, otherwise the least-squares line of
        the coordinate on the value, over the fit split; NaN for a value that is constant there.
        """
        index, known = self.values.index(value), self.subspace.harmonics
        if known is not None and self.subspace.of(index)[component]:
            return known.at(component, wanted)
        offset = self.subspace.mean_coordinates[component]
        return offset + self.slope([component], value)[0] * (wanted - self.value_mean[index])

    def slope(self, components: Sequence[int], value: str) -> Float64[Tensor, " k"]:
        """How far coordinates go per unit of a value, by least squares over the fit split."""
        return self.fitted.slope(components, self.values.index(value))

    def frame(self, value: str, rank: int) -> tuple[int, ...]:
        """The directions of a value's subspace of a rank; none if there are too few.

        Of rank 1 it is the value's best component.
        """
        return self.fitted.frame(self.values.index(value), rank)

    def r_of_best(self) -> Float64[Tensor, " v"]:
        """R on the report split of each value's best component; NaN where there is none."""
        if self.is_constant:
            return torch.full((len(self.values),), torch.nan, dtype=torch.float64)
        chosen = self.chosen
        r = self.r.gather(0, chosen.clamp(min=0)[None])[0]
        return r.where(chosen >= 0, torch.nan)

    @cached_property
    def fitted(self) -> Fitted:
        """The fit, without what is said of it."""
        at, values = self.coordinates, self.values_report
        return Fitted(self.subspace, self.r_fit, at, values, self.value_mean, self.value_sd)

    @property
    def r_for_choice(self) -> Float64[Tensor, "k v"]:
        """R on the fit split; NaN where a direction was found for another value."""
        return self.fitted.r_for_choice

    @property
    def chosen(self) -> Int64[Tensor, " v"]:
        """The component that the fit split chooses for each value; -1 for none."""
        return self.fitted.chosen

    def best_component(self, value: str) -> int | None:
        """The component with the largest |R| on the fit split; None if the value never varies."""
        component = int(self.chosen[self.values.index(value)])
        return None if component < 0 else component


CONTROL = "control_"
"""Before the names of what is kept of the control task."""


def with_readings(
    traces: Mapping[Site, Trace],
    values: Float64[Tensor, "n v"],
    ranks: Sequence[int],
    how: Resampling,
) -> dict[Site, Trace]:
    """The traces with what is read from each value's subspace of every rank.

    The p-values of one rank are corrected for all sites.
    """
    by_rank = [_readings(traces, values, rank, how) for rank in ranks]
    return {
        site: replace(found, readings=tuple(of_rank[site] for of_rank in by_rank))
        for site, found in traces.items()
    }


def _readings(
    traces: Mapping[Site, Trace], values: Float64[Tensor, "n v"], rank: int, how: Resampling
) -> dict[Site, Readings]:
    """Of every value at every site, from its subspace of one rank."""
    read = {site: found.fitted.readings(rank) for site, found in traces.items()}
    if rank == 1:
        inferred = [found.inference for found in traces.values()]
    else:
        nothing = torch.full_like(values[:, 0], torch.nan)
        columns = [
            torch.stack([nothing if one is None else one.read for one in of_site], dim=1)
            for of_site in read.values()
        ]
        names = next(iter(traces.values())).values if traces else ()
        own = [torch.arange(len(names))] * len(columns)
        inferred = infer(columns, values, names, how, chosen=own)
    return {
        site: Readings(rank, read[site], _control_r2(traces[site], rank), inference)
        for site, inference in zip(traces, inferred, strict=True)
    }


def _control_r2(found: Trace, rank: int) -> tuple[float, ...]:
    """R squared of the control task of every value, read from its subspace of the same rank."""
    if found.control is None:
        return (float("nan"),) * len(found.values)
    read = found.control.readings(rank)
    return tuple(float("nan") if one is None else one.r2 for one in read)


def value_table(problems: ProblemSet) -> Float64[Tensor, "n v"]:
    """Every value of every problem, in the order of the expression's values."""
    names = problems.hypothesis.values
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
    drawing: Drawing = UNCONSTRAINED


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
    names = splits.fit.hypothesis.values
    values_fit, values_report = value_table(splits.fit), value_table(splits.report)
    stored, projected = _fitted_and_projected(session, splits, sites, method)
    found = {
        site: _fitted(stored[site], projected[site]["coordinates"], values_fit, values_report)
        for site in sites
    }
    controls = _controls(splits, method, stored, projected)
    at = [found[site].coordinates for site in sites]
    chosen = [one.chosen for one in found.values()]
    inferred = infer(at, values_report, names, how, chosen=chosen)
    traces = {}
    for site, inference in zip(sites, inferred, strict=True):
        one = found[site]
        traces[site] = Trace(
            site=site,
            subspace=one.subspace,
            values=names,
            r_fit=one.r_fit,
            r=pearson(one.coordinates, values_report),
            r_passed=pearson(one.coordinates[splits.passed], values_report[splits.passed]),
            explained_variance_fit=one.subspace.variance / one.subspace.total_variance,
            explained_variance=_explained(one.coordinates, projected[site]["total_variance"]),
            coordinates=one.coordinates,
            shuffled=stored[site]["shuffled"].double(),
            values_report=values_report,
            passed=splits.passed,
            value_mean=one.value_mean,
            value_sd=one.value_sd,
            inference=inference,
            control=controls.get(site),
            learning={
                task: stored[site][f"{task}learning"]
                for task in ("", CONTROL)
                if f"{task}learning" in stored[site]
            },
        )
    return with_readings(traces, values_report, method.ranks or (1,), how)


def _fitted(
    stored: Mapping[str, Tensor],
    coordinates: Float64[Tensor, "n k"],
    values_fit: Float64[Tensor, "m v"],
    values_report: Float64[Tensor, "n v"],
) -> Fitted:
    """What is kept of a fit, with its coordinates on the report split."""
    subspace, spread = Subspace.of_tensors(stored), (values_fit.mean(0), values_fit.std(0))
    return Fitted(subspace, stored["r"], coordinates, values_report, *spread)


def _controls(
    splits: Splits,
    method: DirectionMethod,
    stored: Mapping[Site, Mapping[str, Tensor]],
    projected: Mapping[Site, Mapping[str, Tensor]],
) -> dict[Site, Fitted]:
    """The same for values that are not there; none for a method that uses no values."""
    if not method.is_supervised:
        return {}
    values = [control_values(splits.fit, split) for split in (splits.fit, splits.report)]
    return {
        site: _fitted(without_prefix(CONTROL, of_site), _of_control(projected[site]), *values)
        for site, of_site in stored.items()
    }


def _fitted_and_projected(
    session: Session, splits: Splits, sites: Sequence[Site], method: DirectionMethod
) -> tuple[dict[Site, dict[str, Tensor]], dict[Site, dict[str, Tensor]]]:
    """By site what `fit_directions` and `coordinates` say of the two splits, from the store where
    it has it.
    """
    kept, prompts, report = session.checkpoint, splits.prompts_fit, splits.prompts_report
    keys, report_keys = stored_under(session.model, splits, sites, method)
    code = code_of(method)
    fitted = session.store.fetch_many(
        "components",
        keys,
        lambda missing: fit_directions(
            session,
            splits.fit,
            prompts,
            missing,
            method,
            drawing=splits.drawing,
            piece=kept.piece("fitting", {"sites": [keys[site] for site in missing]}),
        ),
        code=code,
    )

    def project(missing: list[Site]) -> dict[Site, dict[str, Tensor]]:
        frames = {site: _both_frames(fitted[site]) for site in missing}
        piece = kept.piece("projecting", {"sites": [report_keys[site] for site in missing]})
        found = coordinates(session, report, frames, piece=piece)
        return {site: _parted(at, len(fitted[site]["directions"])) for site, at in found.items()}

    projected = session.store.fetch_many(
        "coordinates",
        report_keys,
        project,
        code=code,
    )
    return fitted, projected


Keys = dict[Site, dict[str, Any]]
"""By site all that determines an entry of the store, apart from code."""


def code_of(method: DirectionMethod) -> tuple[ModuleType, ...]:
    """What entries of the store depend on."""
    return (*CODE, *method.code)


def stored_under(
    model: Model, splits: Splits, sites: Sequence[Site], method: DirectionMethod
) -> tuple[Keys, Keys]:
    """The keys of stage `components`, what is fitted, and of `coordinates`, what is projected."""
    prompts, report = splits.prompts_fit, splits.prompts_report
    of_fit: dict[str, Any] = {
        "fit": prompts.digest(),
        "values": tensor_digest(value_table(splits.fit)),
    }
    if method.is_trained:
        of_fit["constraints"] = [str(each) for each in splits.drawing.constraints]
        of_fit["hypothesis"] = splits.fit.hypothesis.texts
    fitted = {
        site: {**model.fingerprint, **of_fit, "site": site.key(prompts), **method.key}
        for site in sites
    }
    of_report = {"report": report.digest()}
    projected = {
        site: {**key, **of_report, "report_site": site.key(report)} for site, key in fitted.items()
    }
    return fitted, projected


def _both_frames(fitted: Mapping[str, Tensor]) -> Subspace:
    """The directions that were found, and behind them those of the control task."""
    own = Subspace.of_tensors(fitted)
    if f"{CONTROL}directions" not in fitted:
        return own
    # Only the mean and the directions are asked for; both fits are of the same activations.
    every = torch.cat([own.directions, fitted[f"{CONTROL}directions"]])
    return Subspace(own.mean, every, every.new_zeros(len(every), len(every)), own.total_variance)


def _parted(at: Mapping[str, Tensor], n_own: int) -> dict[str, Tensor]:
    """Coordinates on the directions found, and apart those on the control task's."""
    own, of_control = at["coordinates"][:, :n_own], at["coordinates"][:, n_own:]
    apart = {"of_control": of_control.contiguous()} if of_control.shape[1] else {}
    return {**at, "coordinates": own.contiguous(), **apart}


def _of_control(projected: Mapping[str, Tensor]) -> Float64[Tensor, "n k"]:
    """Coordinates on the control task's directions; no columns where it found none."""
    return projected.get("of_control", projected["coordinates"][:, :0])


def without_prefix(prefix: str, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parts whose names begin so, by the rest of their names."""
    return {
        name.removeprefix(prefix): part
        for name, part in parts.items()
        if name != name.removeprefix(prefix)
    }


def _explained(
    found: Float64[Tensor, "n k"], total_variance: Float64[Tensor, ""]
) -> Float64[Tensor, " k"]:
    """Share of the projected problems' variance along each component."""
    centred = found - found.mean(0)
    return centred.square().sum(0) / (len(centred) - 1) / total_variance


def fit_directions(
    session: Session,
    problems: ProblemSet,
    prompts: Prompts,
    sites: Sequence[Site],
    method: DirectionMethod,
    *,
    drawing: Drawing = UNCONSTRAINED,
    piece: Piece | None = None,
) -> dict[Site, dict[str, Tensor]]:
    """Directions of every site, in one pass over the problems of the fit split.

    Returns:
        Per site the `tensors` of its frame; `r` [k, v], R of the coordinates with the values on the
        same problems; and `shuffled` [v, d], see `Trace`.
    """
    values = value_table(problems)
    n_values = values.shape[1]
    tasks, compared = {"": values}, {"": torch.cat([values, _shuffled(values)], dim=1)}
    if method.is_supervised:
        tasks[CONTROL] = compared[CONTROL] = control_values(problems, problems)
    crosses = {(site, name): Cross(of) for site in sites for name, of in compared.items()}
    fitters = {
        (site, name): method.fitter(
            FitTask(
                session,
                problems,
                prompts,
                site,
                of_task,
                method.ranks,
                is_control=name == CONTROL,
                drawing=drawing,
            )
        )
        for site in sites
        for name, of_task in tasks.items()
    }
    kept = piece or Checkpoint.nothing().piece("fitting", {})
    running = Sums({"fitter": list(fitters.values()), "cross": list(crosses.values())}, kept)
    for layout, found in capture(session, prompts, sites, skip=running.done):
        for site, activation in found.items():
            for name, of_task in tasks.items():
                fitters[site, name].update(activation, of_task[layout.rows])
                crosses[site, name].update(activation, layout.rows)
        running.advance(len(layout))
    # A control's direction need not be more exact than the activations.
    fitted = {
        site: {"shuffled": crosses[site, ""].directions()[n_values:].float()} for site in sites
    }
    for (site, name), fitter in progress(fitters.items(), description="components", unit="sites"):
        subspace = fitter.fit()
        r = crosses[site, name].correlation(subspace.directions, subspace.variance)
        parts = {**subspace.tensors(), "r": r[:, :n_values]}
        if method.is_trained:
            parts["learning"] = fitter.learning()  # pyright: ignore[reportAttributeAccessIssue]
        fitted[site] |= {f"{name}{part}": tensor for part, tensor in parts.items()}
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
