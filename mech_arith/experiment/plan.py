"""From a config to the plain typed values that the modules to the left work with.

Every name is looked up here, before a model is loaded; what depends on the model's depth or on the
prompt's tokens is resolved once the model is there.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mech_arith.directions.base import DirectionMethod, find_method
from mech_arith.engine.sites import describe_layers, select_heads, select_layers
from mech_arith.experiment.cell import CellPlan
from mech_arith.experiment.checks import screened_points
from mech_arith.experiment.config import LayersConfig, RunConfig, ScreenMethod
from mech_arith.experiment.names import Drawing, components_of, look_up, ranks_of
from mech_arith.interventions.controls import Controls
from mech_arith.interventions.edits import NO_EDIT, WEIGHTS
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.fold import check_foldable
from mech_arith.interventions.locality import LocalityPlan
from mech_arith.interventions.run import InterventionPlan
from mech_arith.interventions.screening import ScreenPlan
from mech_arith.models.base import Model
from mech_arith.models.kinds import LayerPart, Metric
from mech_arith.models.stand_in import StandIn
from mech_arith.problems import ProblemSet, draw_splits
from mech_arith.problems.expressions import Constraint
from mech_arith.problems.templates import Template
from mech_arith.statistics import Resampling


@dataclass(frozen=True)
class Prepared:
    """A checked config: problems drawn, names found."""

    config: RunConfig
    template: Template
    shots: ProblemSet
    """Few-shot examples, distinct from all other problems; none for models that are given none."""
    fit: ProblemSet
    report: ProblemSet
    method: DirectionMethod
    intervention: InterventionPlan | None
    ranges: dict[str, tuple[int, int]]
    """Of each operand."""
    constraints: tuple[Constraint, ...] = ()
    """Kept by all problems."""

    @property
    def digits(self) -> int:
        """Of the largest operand that may be drawn."""
        return largest_digits(self.ranges)

    def layers_name(self, n_layers: int | None) -> str:
        """The chosen layers of a model of so many, in words; None where it is not loaded yet."""
        layers = self.config.layers
        part = LayerPart(layers.part)
        return describe_layers(part, n_layers=n_layers, **_chosen_layers(layers))

    def cell(self, model: Model | StandIn) -> CellPlan:
        """The plan for a model, once it is loaded, or for what stands in for it.

        Raises:
            UserError: the layers or heads are beyond it.
        """
        config = self.config
        locality = config.locality
        return CellPlan(
            layers=select_layers(
                LayerPart(config.layers.part),
                n_layers=model.n_layers,
                **_chosen_layers(config.layers),
            ),
            point=config.tracing.point,
            heads=select_heads(config.tracing.heads, n_heads=model.n_heads),
            positions=config.tracing.positions,
            position_map=config.tracing.position_map,
            untrained_twins=config.tracing.untrained_twins,
            method=self.method,
            intervention=self.intervention,
            screen=_screen(config),
            n_edited=config.intervention.n_problems,
            locality=LocalityPlan(
                n_problems=locality.n_problems,
                coordinate_points=locality.coordinate_points,
                coordinate_span=locality.coordinate_span,
                value_points=locality.value_points,
                ranges=self.ranges,
                ranks=ranks_of(config),
            )
            if locality.enabled
            else None,
            tolerance=config.tolerance,
            digits=self.digits,
            constraints=self.constraints,
            require_baseline=config.require_baseline,
            seed=config.problems.seed,
            how=Resampling(
                level=config.inference.level,
                n_resamples=config.inference.resamples,
                n_permutations=config.inference.permutations,
                seed=config.problems.seed,
            ),
        )


def prepare(config: RunConfig, *, drawing: Drawing = draw_splits) -> Prepared:
    """Look up every name and draw the problems.

    Args:
        config: the cell's.
        drawing: see `look_up`.

    Raises:
        UserError: an unknown name or option, or problems that cannot be drawn or that the direction
            method refuses.
    """
    asked = look_up(config, drawing=drawing)
    tracing = config.tracing
    ranks = ranks_of(config)
    method = find_method(tracing.method, tracing.n_components, tracing.options, ranks=ranks)
    method.check(asked.fit)
    return Prepared(
        config,
        asked.template,
        asked.shots,
        asked.fit,
        asked.report,
        method,
        _intervention(config, asked.constraints),
        asked.ranges,
        asked.constraints,
    )


def _screen(config: RunConfig) -> ScreenPlan | None:
    """How sites are screened; None for not at all."""
    asked = config.screen
    if asked.method is ScreenMethod.none:
        return None
    points = screened_points(asked)
    return ScreenPlan(
        keep=asked.keep,
        sample=asked.sample,
        metric=Metric(asked.metric.value),
        steps=asked.steps if asked.method is ScreenMethod.integrated else 0,
        points=(config.tracing.point,) if points is None else points,
        seed=config.problems.seed,
    )


def _chosen_layers(layers: LayersConfig) -> dict[str, Any]:
    return {
        "start": layers.start,
        "stop": layers.stop,
        "step": layers.step,
        "numbers": layers.list,
    }


def largest_digits(ranges: Mapping[str, tuple[int, int]]) -> int:
    """Of the largest operand within the ranges."""
    return max(len(str(max(abs(low), abs(high)))) for low, high in ranges.values())


def _intervention(
    config: RunConfig, constraints: tuple[Constraint, ...]
) -> InterventionPlan | None:
    """What the intervention edits; None for none."""
    asked = config.intervention
    if asked.edit == NO_EDIT:
        return None
    edit = find_edit(asked.edit)
    if asked.via == WEIGHTS:
        check_foldable(edit, config.tracing.point, asked.strengths)
    return InterventionPlan(
        edit=edit,
        strengths=tuple(float(strength) for strength in asked.strengths),
        components=components_of(config),
        values=None if asked.values is None else tuple(asked.values),
        ranks=ranks_of(config),
        centre=asked.centre,
        controls=Controls(**asdict(asked.controls)),
        n_sources=asked.sources,
        constraints=constraints,
        via=asked.via,
        saves_model=asked.save_model is not None,
        seed=config.problems.seed,
    )
