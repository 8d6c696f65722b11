"""What a config asks for, looked up by name: all that can be refused without a model.

Nothing heavy is imported here, so that a mistyped name is said at once.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mech_arith.config import RunConfig, is_count
from mech_arith.errors import UserError, unknown
from mech_arith.expressions import Constraint, parse_constraint
from mech_arith.problems import ProblemSet, draw_splits, find_decorrelated, operand_ranges
from mech_arith.registry import Registry
from mech_arith.templates import Template, build_template

ARITHMETIC, LANGUAGE_MODEL = KINDS = ("arithmetic", "language_model")
"""Kinds of model."""

METHODS: Registry[Any] = Registry("tracing method", "mech_arith.directions.methods")
"""How activations are turned into coordinates."""

POINTS = ("resid_pre", "z", "attn_out", "resid_mid", "mlp_out", "resid_post")
"""Where activations are read and edited, in the order of a block."""

ACTIVATIONS, WEIGHTS = VIA = ("activations", "weights")
"""What an edit is made on."""

EDIT_NAMES = ("scale", "shift", "ablate", "set", "interchange")
NO_EDIT = "none"


class LayerPart(StrEnum):
    """A named stretch of a model's layers."""

    ALL = "all"
    EARLY = "early"
    MIDDLE = "middle"
    LATE = "late"


@dataclass(frozen=True)
class Asked:
    """What a config names, found; its problems drawn."""

    template: Template
    ranges: dict[str, tuple[int, int]]
    """Of each operand."""
    constraints: tuple[Constraint, ...]
    shots: ProblemSet
    """Few-shot examples, distinct from all other problems; none for solvers that are given none."""
    fit: ProblemSet
    report: ProblemSet


def look_up(config: RunConfig) -> Asked:
    """Look up every name and draw the problems.

    Raises:
        UserError: an unknown name, options that do not go together, or problems that cannot be
            drawn.
    """
    template = build_template(
        config.template.name, config.template.expression, config.template.wording
    )
    _check_model(config)
    METHODS.check(config.tracing.method)
    _check("point", config.tracing.point, POINTS)
    _check("layers.part", config.layers.part, LayerPart)
    ranges = operand_ranges(config.problems.operands, template.expression.operands)
    constraints = tuple(parse_constraint(text) for text in config.problems.constraints)
    _check_intervention(config, template)
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
    return Asked(template, ranges, constraints, shots, fit, report)


def components_of(config: RunConfig) -> str | tuple[int, ...]:
    """The components that are edited: 'best', 'all', or their numbers.

    Raises:
        UserError: none of these.
    """
    asked, count = config.intervention.components, config.tracing.n_components
    if isinstance(asked, str) and asked in ("best", "all"):
        return asked
    listed: list[Any] = list(asked) if isinstance(asked, list | tuple) else [asked]
    if not listed or not all(is_count(c, least=0) and c < count for c in listed):
        raise UserError(
            f"expected intervention.components 'best', 'all' or a list of 0..{count - 1} (see "
            f"tracing.n_components), got {asked!r}"
        )
    return tuple(sorted(set(listed)))


def _check(kind: str, name: str, valid: Any) -> None:
    if name not in tuple(valid):
        raise unknown(kind, name, valid)


def _check_model(config: RunConfig) -> None:
    """Raise a UserError where options do not fit the kind of model."""
    model = config.model
    _check("model.kind", model.kind, KINDS)
    if model.kind == LANGUAGE_MODEL:
        if model.device_map is not None and config.device.value != "auto":
            raise UserError(
                f"expected model.device_map or device, got {model.device_map!r} and "
                f"{config.device.value!r}; leave one of them out"
            )
        if model.path is not None and model.revision is not None and model.hub is None:
            raise UserError(
                f"expected no model.revision with model.path, got {model.revision!r}; leave it out"
            )
        return
    for option, given, only in (
        ("dtype", config.dtype.value, "auto"),
        ("prompt.style", config.prompt.style, None),
        ("prompt.system", config.prompt.system, None),
    ):
        if given != only:
            raise UserError(
                f"expected no {option} for {model.name}, which has one way to be asked, "
                f"got {given!r}; leave it out, or choose a language model"
            )


def _check_intervention(config: RunConfig, template: Template) -> None:
    """Raise a UserError where no such edit can be made on whatever model."""
    asked = config.intervention
    if asked.edit == NO_EDIT:
        if asked.save_model is not None:
            raise UserError(
                "expected an edit with intervention.save_model, got intervention=none; choose "
                "intervention=scale, shift or ablate, or leave save_model out"
            )
        return
    _check("edit", asked.edit, (*EDIT_NAMES, NO_EDIT))
    for value in asked.values or []:
        _check("value", value, template.expression.values)
    if not asked.centre and asked.edit != "scale":
        raise UserError(
            f"expected intervention.centre=true with the edit {asked.edit!r}, got false; only "
            "scale has an uncentred variant"
        )
    _check("intervention.via", asked.via, VIA)
    components = components_of(config)
    if asked.save_model is not None:
        _check_one_model(config, components)


def _check_one_model(config: RunConfig, components: str | tuple[int, ...]) -> None:
    """Raise a UserError where the edits that are asked for do not make one model."""
    asked = config.intervention
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
    count = config.tracing.n_components if components == "all" else len(components)
    if components != "best" and count > 1:
        raise UserError(
            f"expected one component with intervention.save_model, got {asked.components}; set "
            "intervention.components=[K], or best and intervention.values=[V]"
        )
