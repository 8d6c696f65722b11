"""The price of one cell: what it computes, how long that takes, and what it needs for it."""

import json
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from mech_arith.common.errors import UserError
from mech_arith.common.plugins import using_plugins
from mech_arith.engine.batching import Batching
from mech_arith.engine.passes import READ_OUT_ELEMENTS
from mech_arith.engine.sites import Site
from mech_arith.evidence.draws import too_few_directions
from mech_arith.evidence.iia import too_few_draws
from mech_arith.evidence.table import no_whole_way
from mech_arith.experiment.cell import CellPlan, check_asked
from mech_arith.experiment.cell_warnings import NO_MAP, before_any_run, constant_values
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.load_model import device_of
from mech_arith.experiment.names import model_choice
from mech_arith.experiment.plan import Prepared, prepare
from mech_arith.experiment.pricing.kept import kept_by
from mech_arith.experiment.pricing.rates import Rate, fit_seconds, measured, source_seconds
from mech_arith.experiment.pricing.work import Asked, Costs, Number, passes_of
from mech_arith.interventions.controls import draw_bounds
from mech_arith.interventions.rehearsal import Rehearsed, rehearse
from mech_arith.interventions.screening import check_screen
from mech_arith.models.answered import encode_for
from mech_arith.models.base import Model
from mech_arith.models.kinds import find_loader
from mech_arith.models.prompts import Prompts
from mech_arith.models.stand_in import N_LAYERS, StandIn
from mech_arith.problems import ProblemSet, draw_splits
from mech_arith.problems.templates import Template

T = TypeVar("T")

START_S = 5.6
"""Seconds in which a process starts and imports what it needs."""

CELL_S = 2.0
"""Seconds of a cell beside its passes: composing, loading, prompts, statistics, tables, figures."""

SITE_S = 0.004
"""Seconds more for every traced site, beside the fitting of its directions."""

TARGET_S = 0.02
"""Seconds more for every edited subspace at every site, with its statistics and rows of tables."""

SOURCES_S = 0.05
"""Seconds more for each of them where problems take values from sources."""

HELD = 3.0
"""Copies of a batch's activations that are held at a time, beside keys and values."""

SHARED = 16
"""Sets of problems, and of prompts, that are held for further cells."""

DOUBLE, SINGLE = 8, 4
"""Bytes of a number."""


@dataclass(frozen=True)
class Price:
    """What one cell costs."""

    name: str
    """Its overrides, or what it is."""
    fit: int = 0
    report: int = 0
    edited: int = 0
    """Problems that are edited."""
    candidates: int = 0
    """Sites that are screened; as many as `sites` where none is."""
    sites: int = 0
    """That are traced and edited."""
    edits: int = 0
    """Of each problem: subspaces x strengths x sources, controls included, at all sites."""
    rows: int = 0
    """Edited passes: edits of all problems that move something, those of bounds included."""
    macs: Number = 0.0
    """Multiply-adds."""
    weights_bytes: Number = 0.0
    activations_bytes: Number = 0.0
    store_bytes: Number = 0.0
    engine_s: Number = 0.0
    """Seconds of passes that the store does not have."""
    engine_macs: Number = 0.0
    """Multiply-adds of these."""
    other_s: Number = 0.0
    """Seconds beside them, without the start of a process."""
    stages: dict[str, Number] = field(default_factory=dict)
    """Seconds of passes by stage."""
    kept: tuple[str, ...] = ()
    """What the store has already, in words."""
    warnings: tuple[str, ...] = ()
    refused: str | None = None
    """Why the cell would be refused."""
    is_done: bool = False
    """Nothing is left to do: the sweep that is gone on with has its result."""

    @property
    def seconds(self) -> Number:
        """Without the start of a process."""
        return self.engine_s + self.other_s

    @property
    def memory_bytes(self) -> Number:
        """Weights and activations at their peak."""
        return self.weights_bytes + self.activations_bytes


class Prices:
    """Prices of many cells, which share what is the same for several: models, rates, rehearsals."""

    def __init__(self, rate: float | None) -> None:
        """Nothing is measured yet.

        Args:
            rate: multiply-adds per second; None to measure it.
        """
        self._rate = rate
        self._stand_ins: dict[str, StandIn] = {}
        self._rates: dict[str, Rate] = {}
        self._fitting: dict[str, float] = {}
        self._rehearsed: dict[str, Rehearsed] = {}
        self._drawing: dict[str, float] = {}
        self._problems: dict[Hashable, tuple[ProblemSet, ProblemSet, ProblemSet]] = {}
        self._prompts: dict[Hashable, tuple[Prompts, Prompts]] = {}

    def of(self, settings: RunConfig, name: str) -> Price:
        """The price of a checked config. What would refuse it is part of the price."""
        try:
            with using_plugins(settings.plugins):
                return self._of(settings, name)
        except UserError as error:
            return Price(name, refused=str(error))

    def _of(self, settings: RunConfig, name: str) -> Price:
        prepared = prepare(settings, drawing=self._drawn)
        stand_in = self._stand_in(settings, prepared)
        plan = prepared.cell(stand_in)
        asked = self._asked(stand_in, plan, prepared)
        rate = self._rate_of(settings, asked)
        passes = passes_of(asked)
        kept = kept_by(settings, asked)
        made = [some for some in passes if some.stage not in kept.stages]
        stages: dict[str, Number] = {}
        for some in made:
            stages[some.stage] = stages.get(some.stage, 0.0) + rate.seconds(some)
        return Price(
            name,
            fit=len(asked.fit),
            report=len(asked.report),
            edited=asked.n_edited,
            candidates=len(asked.sites),
            sites=asked.n_sites,
            edits=round(asked.edits),
            rows=round(sum(some.rows for some in passes if some.is_edited)),
            macs=sum(rate.costs.macs(some) for some in passes),
            weights_bytes=stand_in.weights_bytes,
            activations_bytes=_activations(settings, asked),
            store_bytes=_store(asked),
            engine_s=sum(stages.values()),
            engine_macs=sum(rate.costs.macs(some) for some in made),
            other_s=self._other(settings, asked),
            stages=stages,
            kept=kept.said,
            warnings=tuple(_warnings(asked, kept.is_known)),
        )

    def _drawn(self, template: Template, **how: Any) -> tuple[ProblemSet, ProblemSet, ProblemSet]:
        """Problems, drawn once for the cells that ask the same."""
        return _shared(self._problems, repr([template, how]), lambda: draw_splits(template, **how))

    def _encoded(self, model: Model, plan: CellPlan, prepared: Prepared) -> tuple[Prompts, Prompts]:
        """Prompts of both splits, encoded once for the cells that ask the same problems alike."""
        splits = prepared.fit, prepared.report
        key = (model, *splits, plan.positions, plan.digits)

        def encode() -> tuple[Prompts, Prompts]:
            fit, report = (
                encode_for(model, split, [plan.positions], digits=plan.digits) for split in splits
            )
            return fit, report

        return _shared(self._prompts, key, encode)

    def _stand_in(self, settings: RunConfig, prepared: Prepared) -> StandIn:
        """Made once for all cells that ask the same model in the same way."""
        choice, device = model_choice(settings), device_of(settings)
        shots = prepared.shots
        examples = [shots.template, *map(str, shots.operands.values())] if len(shots) else []
        key = repr([choice, device, settings.engine, settings.plugins, examples])
        if key not in self._stand_ins:
            found = find_loader(choice.kind).stand_in(choice, device=device, shots=shots)
            if found is None:
                raise UserError(
                    "expected a model whose price can be told without its weights, got model.kind="
                    f"{choice.kind}, whose loader has no stand_in for it (a GGUF file has one once "
                    "a run has converted it); leave sweep.dry_run out"
                )
            if isinstance(found, Model):  # it has no weights to load
                found = StandIn(found, found.n_layers, n_weights=0, is_known=True)
            if settings.engine.value == "full":
                found.model.replays = False
            self._stand_ins[key] = found
        return self._stand_ins[key]

    def _asked(self, stand_in: StandIn, plan: CellPlan, prepared: Prepared) -> Asked:
        """The cell by its prompts, checked as far as it can be without weights."""
        model = stand_in.model
        prompts_fit, prompts = self._encoded(model, plan, prepared)
        sites, mapped = plan.sites(prompts_fit.joined(prompts), model.points)
        for site in sites:
            if site.point not in model.points:
                raise UserError(
                    f"expected a point of {model.name} ({', '.join(model.points)}), got "
                    f"{site.point}; change tracing.point"
                )
            _lowered(site).width(model)
        if plan.screen is not None:
            check_screen(plan.screen, sites)
        check_asked(model, plan, prepared.report, prompts, list(map(_lowered, sites)))
        rehearsed = self._rehearse(plan, prepared, plan.n_traced(sites))
        return Asked(
            stand_in,
            plan,
            prepared.fit,
            prepared.report,
            prompts_fit,
            prompts,
            sites,
            mapped,
            rehearsed,
        )

    def _rehearse(self, plan: CellPlan, prepared: Prepared, n_sites: int) -> Rehearsed:
        """By all that it depends on but the draw of the problems."""
        config = prepared.config
        key = json.dumps(
            [
                asdict(config.template),
                asdict(config.hypothesis),
                _beside_seed(config),
                plan.method.key,
                asdict(config.intervention),
                asdict(config.locality),
                min(n_sites, 3),
            ],
            default=str,
        )
        if key not in self._rehearsed:
            self._rehearsed[key] = rehearse(
                prepared.fit,
                prepared.report,
                plan.method,
                plan.intervention,
                n_sites=n_sites,
                locality_plan=plan.locality,
                constraints=plan.constraints,
            )
        return self._rehearsed[key]

    def _drawing_s(self, settings: RunConfig, asked: Asked) -> float:
        """Seconds in which sources are drawn: by the same, and by how many problems there are."""
        plan = asked.plan.intervention
        if plan is None:
            return 0.0
        edited = asked.plan.edited(asked.report)
        shuffles = asked.plan.how.n_permutations
        asked_for = [asdict(settings.template), asdict(settings.hypothesis), _beside_seed(settings)]
        key = json.dumps(
            [asked_for, plan.values, plan.n_sources, len(edited), shuffles], default=str
        )
        if key not in self._drawing:
            self._drawing[key] = source_seconds(edited, plan, n_shuffles=shuffles)
        return self._drawing[key]

    def _rate_of(self, settings: RunConfig, asked: Asked) -> Rate:
        """Measured once for each model and length of prompt."""
        model = asked.stand_in.model
        shape = asked.shape
        key = json.dumps(
            [model.fingerprint, round(shape.tokens), shape.fed, shape.prefix, settings.batch_size],
            default=str,
        )
        if key not in self._rates:
            costs = Costs.of(model)
            size = None if settings.batch_size == "auto" else int(settings.batch_size)
            given = self._rate
            self._rates[key] = measured(asked, costs, size) if given is None else Rate(costs, given)
        return self._rates[key]

    def _other(self, settings: RunConfig, asked: Asked) -> float:
        """Seconds beside the passes."""
        targets = asked.rehearsed.targets * asked.n_sites
        plan = asked.plan.intervention
        towards = plan is not None and plan.edit.target is not None
        each = TARGET_S + (SOURCES_S if towards else 0.0)
        sites = SITE_S * (asked.n_sites + len(asked.mapped))
        drawing, fitting = self._drawing_s(settings, asked), self._fitting_s(asked)
        return CELL_S + drawing + fitting + sites + each * targets

    def _fitting_s(self, asked: Asked) -> float:
        """Seconds in which directions are fitted: timed once for each method and width."""
        method, n = asked.plan.method, len(asked.fit)
        found = 0.0
        for width, count in asked.widths.items():
            key = f"{method.key} {len(asked.fit.hypothesis.values)} {n} {width}"
            if key not in self._fitting:
                self._fitting[key] = fit_seconds(method, asked.fit, width)
            found += count * self._fitting[key] * (1 + asked.plan.untrained_twins)
        return found


def _shared(known: dict[Hashable, T], key: Hashable, make: Callable[[], T]) -> T:
    """What is known by a key, made first where it is not; the oldest of many goes."""
    if key not in known:
        while len(known) >= SHARED:
            known.pop(next(iter(known)))
        known[key] = make()
    return known[key]


def _beside_seed(config: RunConfig) -> dict[str, Any]:
    """Of which problems are drawn all but the draw."""
    return {name: one for name, one in asdict(config.problems).items() if name != "seed"}


def _lowered(site: Site) -> Site:
    """The same in a network of two layers."""
    return replace(site, layer=min(site.layer, N_LAYERS - 1))


def _warnings(asked: Asked, weights_are_known: bool) -> list[str]:
    """What the cell would say, and what can be known of it before."""
    plan, model = asked.plan, asked.stand_in.model
    found = before_any_run(model, asked.fit, asked.report)
    n_layouts = len(asked.prompts_fit.joined(asked.prompts).layouts)
    if n_layouts > 1:
        found.append(f"prompts of {n_layouts} layouts: each is run by itself, in smaller batches")
    if plan.screen is None and plan.position_map and not asked.mapped:
        found.append(NO_MAP)
    found += constant_values(asked.fit)
    edit = plan.intervention
    if edit is not None:
        n_targets = round(asked.rehearsed.targets * asked.n_sites)
        for arm, n in asked.rehearsed.drawn.items():
            found += too_few_directions(arm, n, edit.controls, n_targets=n_targets)
        if edit.controls.most:
            few, most = draw_bounds(edit.controls)
            found.append(
                f"control directions are drawn until p is decided: {few} to {most} beside each "
                f"target, priced as {few}; up to {(1 + most) / (1 + few):.2g} times the edits"
            )
        found += no_whole_way(edit.edit, edit.strengths)
        if edit.edit.target is not None:
            found += too_few_draws(n_targets, plan.how.n_permutations)
    if not weights_are_known:
        found.append("the weights are not here, or were never read: what the store has is not told")
    return found


def _activations(settings: RunConfig, asked: Asked) -> Number:
    """Bytes that one batch takes at most: the clean pass of all layers, and one of edited rows."""
    model, shape = asked.stand_in.model, asked.shape
    batching = Batching(None if settings.batch_size == "auto" else int(settings.batch_size))
    itemsize = model.dtype.itemsize
    rows = min(batching.rows(model, max(1, round(shape.whole))), len(asked.report))
    stream = rows * shape.whole * model.d_model * itemsize
    clean = stream * (1 + 3 * asked.stand_in.n_layers)  # the stream, keys and values
    widest = max(asked.stand_in.width_at(0, point) for point in model.points)
    edited = HELD * stream * max(1.0, widest / model.d_model)
    read = HELD * SINGLE * min(READ_OUT_ELEMENTS, rows * (1 + shape.fed) * model.width_out)
    return clean + edited + read


def _store(asked: Asked) -> float:
    """Bytes that a cell adds to the store: subspaces and coordinates by site, and answers."""
    method, n_values = asked.plan.method, len(asked.fit.hypothesis.values)
    tasks = 2 if method.is_supervised else 1
    found = 0.0
    for site in [*asked.sites[: asked.n_sites], *asked.mapped]:
        layout = asked.prompts.layouts[0]
        width = len(layout.positions(site.position)) * asked.stand_in.width_at(
            site.layer, site.point
        )
        k = method.n_components
        found += width * (DOUBLE * (1 + k) * tasks + SINGLE * n_values)
        found += DOUBLE * k * tasks * (len(asked.report) + n_values + k)
    return found + DOUBLE * len(asked.report) * (3 + asked.n_fed)
