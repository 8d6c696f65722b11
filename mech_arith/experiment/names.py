"""What a config asks for, looked up by name: all that can be refused without a model.

Nothing heavy is imported here, so that a mistyped name is said at once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mech_arith.common.errors import UserError, unknown
from mech_arith.common.plugins import using_plugins
from mech_arith.directions import METHODS
from mech_arith.experiment.checks import is_count, screened_points
from mech_arith.experiment.config import InterventionConfig, RunConfig
from mech_arith.interventions.edits import EDITS, NO_EDIT, VIA, WEIGHTS
from mech_arith.models.kinds import (
    ANSWER,
    POINTS,
    PROMPT_AND_ANSWER,
    LayerPart,
    ModelChoice,
    find_loader,
)
from mech_arith.problems import ProblemSet, draw_splits, find_decorrelated, operand_ranges
from mech_arith.problems.algorithms import RULES
from mech_arith.problems.asked import AskedHypothesis, read_asked, with_hypotheses
from mech_arith.problems.expressions import Constraint, parse_constraint
from mech_arith.problems.grammar import shown
from mech_arith.problems.templates import Template, build_template

if TYPE_CHECKING:
    from mech_arith.evidence.objective import Objective

Drawing = Callable[..., tuple[ProblemSet, ProblemSet, ProblemSet]]
"""Draws the fit split, the report split and the examples, as `draw_splits` does."""


@dataclass(frozen=True)
class Request:
    """What a config names, found; its problems drawn."""

    template: Template
    ranges: dict[str, tuple[int, int]]
    """Of each operand."""
    constraints: tuple[Constraint, ...]
    shots: ProblemSet
    """Few-shot examples, distinct from all other problems; none for models that are given none."""
    fit: ProblemSet
    report: ProblemSet


def look_up(config: RunConfig, *, drawing: Drawing = draw_splits) -> Request:
    """Look up every name and draw the problems.

    Args:
        config: the cell's.
        drawing: draws the problems: `draw_splits`, or what shares its draws among cells.

    Raises:
        UserError: an unknown name, options that do not go together, or problems that cannot be
            drawn.
    """
    template = build_template(
        config.template.name, config.template.expression, config.template.wording
    )
    choice = model_choice(config)
    loader = find_loader(choice.kind)
    loader.check(choice)
    METHODS.check(config.tracing.method)
    _check("point", config.tracing.point, POINTS)
    for point in screened_points(config.screen) or ():
        _check("point", point, POINTS)
    _check("layers.part", config.layers.part, LayerPart)
    ranges = operand_ranges(config.problems.operands, template.expression.operands)
    constraints = tuple(parse_constraint(text) for text in config.problems.constraints)
    draw = partial(
        drawing,
        n=config.problems.n,
        n_shots=choice.shots if loader.takes_examples else 0,
        ranges=ranges,
        constraints=constraints,
        fit_share=config.problems.fit_share,
        seed=config.problems.seed,
    )
    own, rivals = hypotheses_of(config)
    if not own.is_tree or rivals:
        template = with_hypotheses(
            template, own, rivals, ranges=ranges, operands=draw(template)[0].operands
        )
    _check_intervention(config, template)
    objectives_of(config, template.hypothesis.values)
    decorrelated = find_decorrelated(
        config.problems.design, config.problems.decorrelate, template.hypothesis
    )
    fit, report, shots = draw(template, decorrelate=decorrelated)
    return Request(template, ranges, constraints, shots, fit, report)


def hypotheses_of(config: RunConfig) -> tuple[AskedHypothesis, tuple[AskedHypothesis, ...]]:
    """The hypothesis that is asked for, and its rivals.

    Raises:
        UserError: a name is unknown, or an entry is malformed.
    """
    asked = config.hypothesis
    steps = asked.steps
    if steps is not None and not isinstance(steps, list):
        raise UserError(
            f"expected hypothesis.steps as a list of texts, got {steps!r}; write for example "
            "hypothesis.steps=['ones: (a+b)%10','answer: (a+b)//10*10+ones']"
        )
    if not asked.name:
        raise UserError("expected a name of the hypothesis, got ''; set hypothesis.name")
    if steps is None:
        RULES.check(asked.rule or asked.name)
    own = AskedHypothesis(asked.name, asked.rule, steps, asked.options)
    return own, tuple(read_asked(rival) for rival in asked.rivals)


def objectives_of(config: RunConfig, values: Sequence[str]) -> "tuple[Objective, ...]":
    """The numbers that the task returns; none where nothing is asked for.

    Args:
        config: the cell's.
        values: of its hypothesis.

    Raises:
        UserError: an unknown metric or value, or a number that the cell would not have.
    """
    if config.objective is None:
        return ()
    # Heavy: it knows the columns of the evidence.
    from mech_arith.evidence.objective import find_objective, objective_names

    with using_plugins(config.plugins):
        found = tuple(find_objective(name, values) for name in objective_names(config.objective))
    for objective in found:
        _check_edit_for(objective, config.intervention)
    return found


def _check_edit_for(objective: "Objective", asked: InterventionConfig) -> None:
    """Raise a UserError where an objective needs an edit that the cell does not make."""
    from mech_arith.interventions.edits.base import WHOLE_WAY, edits_that, find_edit

    said = f"with objective={objective.name}"
    if not objective.needs_edit:
        return
    if asked.edit == NO_EDIT:
        raise UserError(f"expected an edit {said}, got intervention=none; choose one")
    if asked.values is not None and objective.value not in asked.values:
        raise UserError(
            f"expected {objective.value!r} in intervention.values {said}, got {asked.values}; add "
            "it, or leave intervention.values out"
        )
    if not objective.needs_target or asked.edit not in EDITS.names():
        return
    if find_edit(asked.edit).target is None:
        raise UserError(
            f"expected an edit towards another value {said}, got {asked.edit}; choose one of: "
            f"{edits_that(have_target=True)}"
        )
    if WHOLE_WAY not in asked.strengths:
        raise UserError(
            f"expected {WHOLE_WAY:g}, the whole way to the other value, in intervention.strengths "
            f"{said}, got {list(asked.strengths)}; add it"
        )


def check_one_meaning(cells: Iterable[RunConfig]) -> None:
    """Refuse a sweep in which one name stands for two hypotheses of a template.

    Its report compares hypotheses by their names.

    Raises:
        UserError: there is such a name.
    """
    known: dict[tuple[str, str], str] = {}
    for config in cells:
        own, rivals = hypotheses_of(config)
        for asked in (own, *rivals):
            text = known.setdefault((config.template.expression, asked.name), asked.text)
            if text != asked.text:
                raise UserError(
                    f"expected hypotheses of unlike names in a sweep, got {asked.name!r} for "
                    f"{shown(text)} and for {shown(asked.text)}; name each, and move the name "
                    "together with what is swept: hypothesis.name=one,two "
                    "'sweep.together=[hypothesis.name,hypothesis.steps]'"
                )


def model_choice(config: RunConfig) -> ModelChoice:
    """What the config says of its model, as plain values."""
    model, prompt = config.model, config.prompt
    return ModelChoice(
        name=model.name,
        kind=model.kind,
        path=None if model.path is None else Path(model.path),
        hub=model.hub,
        revision=model.revision,
        dtype=model.dtype,
        device_map=model.device_map,
        own_style=model.style,
        run_dtype=config.dtype.value,
        run_device=config.device.value,
        style=prompt.style,
        shots=prompt.shots,
        system=prompt.system,
        date=prompt.date,
    )


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


def ranks_of(config: RunConfig) -> tuple[int, ...]:
    """The ranks of the subspaces that are edited; none where components are edited by themselves.

    Raises:
        UserError: none of these, or components are asked for too.
    """
    asked = config.tracing.rank
    listed: list[Any] = list(asked) if isinstance(asked, list | tuple) else [asked]
    if asked is None:
        return ()
    if not listed or not all(is_count(rank) for rank in listed):
        raise UserError(
            f"expected tracing.rank of 1 or more, a list of such, or null, got {asked!r}; change it"
        )
    n_fit = round(config.problems.n * config.problems.fit_share)
    if max(listed) > n_fit - 1:
        raise UserError(
            f"expected tracing.rank up to {n_fit - 1}, one less than the {n_fit} problems of the "
            f"fit split, got {max(listed)}; lower it, or raise problems.n or problems.fit_share"
        )
    components = config.intervention.components
    if components != "best":
        raise UserError(
            "expected intervention.components=best with tracing.rank, which edits each value's "
            f"subspace, got {components!r}; leave one of them out"
        )
    return tuple(sorted(set(listed)))


def _check(kind: str, name: str, valid: Any) -> None:
    if name not in tuple(valid):
        raise unknown(kind, name, valid)


def _check_intervention(config: RunConfig, template: Template) -> None:
    """Raise a UserError where no such edit can be made on whatever model."""
    asked = config.intervention
    if asked.edit == NO_EDIT:
        if asked.save_model is not None:
            raise UserError(
                "expected an edit with intervention.save_model, got intervention=none; choose "
                "one that weights can carry, as intervention=scale, or leave save_model out"
            )
        return
    if asked.edit not in EDITS.names():
        raise EDITS.unknown(asked.edit, also=[NO_EDIT])
    for value in asked.values or []:
        _check("value", value, template.hypothesis.values)
    _check("intervention.via", asked.via, VIA)
    if asked.via == WEIGHTS and config.tracing.positions in SEVERAL_POSITIONS:
        raise UserError(
            f"expected a single position with intervention.via=weights, got "
            f"{config.tracing.positions!r}: weights act at every position alike, along one "
            "direction of one position's width; choose tracing.positions=last, answer.1, another "
            "single one or each, or intervention.via=activations"
        )
    if not asked.centre:
        _check_uncentred(asked.edit)
    components, ranks = components_of(config), ranks_of(config)
    if asked.save_model is not None:
        _check_one_model(config, components, ranks)


SEVERAL_POSITIONS = ("all", ANSWER, PROMPT_AND_ANSWER)
"""Positions that are several in every model's prompts, or in nearly every one's."""


def _check_uncentred(name: str) -> None:
    """Raise a UserError where an edit has no uncentred variant."""
    # Heavy: what an edit says of itself stands beside its rule.
    from mech_arith.interventions.edits.base import edits_that, find_edit

    if not find_edit(name).can_be_uncentred:
        raise UserError(
            f"expected intervention.centre=true with the edit {name!r}, got false; only "
            f"{edits_that(can_be_uncentred=True)} has an uncentred variant"
        )


def _check_one_model(
    config: RunConfig, components: str | tuple[int, ...], ranks: tuple[int, ...]
) -> None:
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
    if len(ranks) > 1:
        raise UserError(
            f"expected one tracing.rank with intervention.save_model, got {list(ranks)}; choose one"
        )
    count = config.tracing.n_components if components == "all" else len(components)
    if components != "best" and count > 1:
        raise UserError(
            f"expected one component with intervention.save_model, got {asked.components}; set "
            "intervention.components=[K], or best and intervention.values=[V]"
        )
