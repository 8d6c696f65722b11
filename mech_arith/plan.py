"""From a config to the plain typed values that the modules to the left work with.

Every name is looked up here, before a model is loaded; what depends on the model's depth or on the
prompt's tokens is resolved once the model is there.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mech_arith.cell import CellPlan
from mech_arith.config import RunConfig, is_count
from mech_arith.controls import Controls
from mech_arith.edits import EDITS, Edit, find_edit
from mech_arith.errors import UserError, unknown
from mech_arith.expressions import Constraint, parse_constraint
from mech_arith.intervention import InterventionPlan
from mech_arith.locality import LocalityPlan
from mech_arith.problems import ProblemSet, draw_splits, find_decorrelated, operand_ranges
from mech_arith.sites import check_point, layer_part, select_layers
from mech_arith.statistics import Resampling
from mech_arith.templates import Template, build_template
from mech_arith.weights import WEIGHTS, check_foldable, check_via

ARITHMETIC, LANGUAGE_MODEL = "arithmetic", "language_model"
"""Kinds of model."""


@dataclass(frozen=True)
class Prepared:
    """A checked config: problems drawn, names found."""

    config: RunConfig
    template: Template
    shots: ProblemSet
    """Few-shot examples, distinct from all other problems; none for solvers that are given none."""
    fit: ProblemSet
    report: ProblemSet
    intervention: InterventionPlan | None
    ranges: dict[str, tuple[int, int]]
    """Of each operand."""

    @property
    def digits(self) -> int:
        """Of the largest operand that may be drawn."""
        return largest_digits(self.ranges)

    def cell(self, n_layers: int) -> CellPlan:
        """The plan for a model of so many layers.

        Raises:
            UserError: the layers are beyond it.
        """
        config = self.config
        locality = config.locality
        return CellPlan(
            layers=select_layers(
                layer_part(config.layers.part),
                n_layers=n_layers,
                start=config.layers.start,
                stop=config.layers.stop,
                step=config.layers.step,
            ),
            point=config.tracing.point,
            positions=config.tracing.positions,
            position_map=config.tracing.position_map,
            untrained_twins=config.tracing.untrained_twins,
            n_components=config.tracing.n_components,
            intervention=self.intervention,
            n_edited=config.intervention.n_problems,
            locality=LocalityPlan(
                n_problems=locality.n_problems,
                coordinate_points=locality.coordinate_points,
                coordinate_span=locality.coordinate_span,
                value_points=locality.value_points,
                ranges=self.ranges,
                digits=self.digits,
            )
            if locality.enabled
            else None,
            tolerance=config.tolerance,
            digits=self.digits,
            batch_size=None if config.batch_size == "auto" else config.batch_size,
            require_baseline=config.require_baseline,
            seed=config.problems.seed,
            how=Resampling(
                level=config.inference.level,
                n_resamples=config.inference.resamples,
                n_permutations=config.inference.permutations,
                seed=config.problems.seed,
            ),
        )


def prepare(config: RunConfig) -> Prepared:
    """Look up every name and draw the problems.

    Raises:
        UserError: an unknown name, or problems that cannot be drawn.
    """
    template = build_template(
        config.template.name, config.template.expression, config.template.wording
    )
    if config.model.kind not in (ARITHMETIC, LANGUAGE_MODEL):
        raise unknown("model.kind", config.model.kind, (ARITHMETIC, LANGUAGE_MODEL))
    if config.tracing.method != "pca":
        raise unknown("tracing method", config.tracing.method, ["pca"])
    check_point(config.tracing.point)
    layer_part(config.layers.part)
    ranges = operand_ranges(config.problems.operands, template.expression.operands)
    constraints = tuple(parse_constraint(text) for text in config.problems.constraints)
    intervention = _intervention(config, template, constraints, largest_digits(ranges))
    decorrelated = find_decorrelated(
        config.problems.design, config.problems.decorrelate, template.expression
    )
    fit, report, shots = draw_splits(
        template,
        n=config.problems.n,
        n_shots=config.prompt.shots if config.model.kind == LANGUAGE_MODEL else 0,
        ranges=ranges,
        constraints=constraints,
        fit_share=config.problems.fit_share,
        seed=config.problems.seed,
        decorrelate=decorrelated,
    )
    return Prepared(config, template, shots, fit, report, intervention, ranges)


def largest_digits(ranges: Mapping[str, tuple[int, int]]) -> int:
    """Of the largest operand within the ranges."""
    return max(len(str(max(abs(low), abs(high)))) for low, high in ranges.values())


def _intervention(
    config: RunConfig, template: Template, constraints: tuple[Constraint, ...], digits: int
) -> InterventionPlan | None:
    """What the intervention edits; None for none."""
    asked = config.intervention
    if asked.edit == "none" and asked.save_model is not None:
        raise UserError(
            "expected an edit with intervention.save_model, got intervention=none; choose "
            "intervention=scale, shift or ablate, or leave save_model out"
        )
    if asked.edit == "none":
        return None
    edit = find_edit(asked.edit)
    values = template.expression.values
    for value in asked.values or []:
        if value not in values:
            raise unknown("value", value, values)
    if not asked.centre and edit is not EDITS["scale"]:
        raise UserError(
            f"expected intervention.centre=true with the edit {edit.name!r}, got false; only scale "
            "has an uncentred variant"
        )
    _check_via(config, edit)
    return InterventionPlan(
        edit=edit,
        strengths=tuple(float(strength) for strength in asked.strengths),
        components=_components(asked.components, config.tracing.n_components),
        values=None if asked.values is None else tuple(asked.values),
        centre=asked.centre,
        controls=Controls(**asdict(asked.controls)),
        n_sources=asked.sources,
        constraints=constraints,
        digits=digits,
        via=asked.via,
        saves_model=asked.save_model is not None,
        seed=config.problems.seed,
    )


def _check_via(config: RunConfig, edit: Edit) -> None:
    """Raise a UserError where weights cannot be edited as asked, or where no one model is meant."""
    asked = config.intervention
    check_via(asked.via)
    if asked.via == WEIGHTS:
        check_foldable(edit, config.tracing.point)
    if asked.save_model is None:
        return
    if asked.via != WEIGHTS:
        raise UserError(
            f"expected intervention.via=weights with intervention.save_model, got {asked.via}: "
            "only edited weights make a model; set intervention.via=weights"
        )
    if len(asked.strengths) != 1:
        raise UserError(
            "expected one strength with intervention.save_model, got "
            f"{list(asked.strengths)}; set intervention.strengths=[...] to the one that is saved"
        )
    n_components = config.tracing.n_components
    components = _components(asked.components, n_components)
    if components != "best" and len(range(n_components) if components == "all" else components) > 1:
        raise UserError(
            f"expected one component with intervention.save_model, got {asked.components}; set "
            "intervention.components=[K], or best and intervention.values=[V]"
        )


def _components(asked: Any, count: int) -> str | tuple[int, ...]:
    if isinstance(asked, str) and asked in ("best", "all"):
        return asked
    listed: list[Any] = list(asked) if isinstance(asked, list | tuple) else [asked]
    if not listed or not all(is_count(c, least=0) and c < count for c in listed):
        raise UserError(
            f"expected intervention.components 'best', 'all' or a list of 0..{count - 1} (see "
            f"tracing.n_components), got {asked!r}"
        )
    return tuple(sorted(set(listed)))
