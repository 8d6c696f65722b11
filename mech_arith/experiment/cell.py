"""One cell of a sweep, from problems to tables: pure, but for the model that it runs."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.directions.base import DirectionMethod, Drawing
from mech_arith.directions.tracing import Splits, Trace, trace
from mech_arith.engine.batch_effect import (
    HALF,
    measure_batch_effect,
    near_tie_warnings,
    near_ties,
)
from mech_arith.engine.gradients import check_differentiable
from mech_arith.engine.guard import check_points, compare_paths, compared, is_replayed
from mech_arith.engine.pairs import Pairs
from mech_arith.engine.run import CODE, ReferenceAnswers, longest_answer, stored_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site, answer_positions, name_positions
from mech_arith.evidence.alignments import alignment_summary, alignment_table
from mech_arith.evidence.answer_tokens import Spelling, answer_token_table, token_summary
from mech_arith.evidence.baseline import (
    WrittenAnswers,
    chance_warnings,
    is_low,
    most_edits,
    written_answers,
)
from mech_arith.evidence.correlations import (
    correlation_table,
    exhausted,
    massive_components,
    subspace_table,
)
from mech_arith.evidence.draws import draw_summary
from mech_arith.evidence.effects import drops_of, intervention_tables
from mech_arith.evidence.hypothesis_summary import hypothesis_summary
from mech_arith.evidence.learning import learning_summary, learning_tables
from mech_arith.evidence.locality import locality_tables
from mech_arith.evidence.off_distribution import off_distribution_table
from mech_arith.evidence.problems import problem_table, whole_prompt
from mech_arith.evidence.scorer import Scorer
from mech_arith.evidence.screen import screen_warnings
from mech_arith.evidence.summary import (
    Reported,
    baseline_summary,
    intervention_summary,
    missing_summary,
    tracing_summary,
    verdict_summary,
)
from mech_arith.evidence.table import evidence_table, headline
from mech_arith.experiment.cell_screen import ScreenedCell
from mech_arith.experiment.cell_warnings import (
    NO_MAP,
    before_any_run,
    constant_values,
    edit_warnings,
)
from mech_arith.interventions.alignment import interchange_together, untested
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.edits import WEIGHTS
from mech_arith.interventions.edits.base import EditTarget
from mech_arith.interventions.fold_run import (
    EditedModel,
    check_by_weights,
    intervene_by_weights,
    one_edit,
)
from mech_arith.interventions.locality import LocalityPlan, locality
from mech_arith.interventions.off_distribution import doses_of, off_distribution
from mech_arith.interventions.run import InterventionPlan, InterventionRun, check_sources, intervene
from mech_arith.interventions.screening import (
    ScreenPlan,
    check_screen,
    draw_pairs,
    measured,
    screen,
)
from mech_arith.models.answered import encode_for
from mech_arith.models.base import Model
from mech_arith.models.kinds import HEADS_AT
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet, design_summary
from mech_arith.problems.expressions import Constraint
from mech_arith.statistics import Resampling

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellPlan:
    """What is asked of one model and one set of problems."""

    layers: Sequence[int]
    point: str
    positions: str
    position_map: bool
    method: DirectionMethod
    intervention: InterventionPlan | None
    n_edited: int | None
    """Problems of the report split to edit; all for None."""
    locality: LocalityPlan | None
    tolerance: float | None
    """Within which an answer counts as exact; the one on the model's card for None."""
    digits: int
    """Digits of the largest operand that may be drawn. All prompts are laid out for as many."""
    require_baseline: bool = False
    """A baseline that is not clearly above the majority-answer floor is an error."""
    seed: int = 0
    """Of the counterfactual answers."""
    how: Resampling = field(default_factory=Resampling)
    """How intervals and nulls are computed."""
    untrained_twins: int = 0
    """Networks with random weights that are traced too."""
    heads: tuple[int | None, ...] = (None,)
    """Query heads that are sites of their own; None for the whole point."""
    constraints: tuple[Constraint, ...] = ()
    """Under which the problems were drawn."""
    screen: ScreenPlan | None = None
    """How the sites are screened; None traces and edits all of them."""

    def sites(self, both: Prompts, points: Sequence[str]) -> tuple[list[Site], list[Site]]:
        """The sites of the run, and those of the map of single positions.

        Args:
            both: the prompts of both splits.
            points: that the model has.

        Raises:
            UserError: no such positions, or not the same ones in both splits.
        """
        asked = name_positions(self.positions, both)
        # A screen has a map of its own.
        mapped = self.position_map and len(both.layouts) == 1 and self.screen is None
        each = [*name_positions("each", both), *answer_positions(asked, both)] if mapped else []
        screened = (self.point,) if self.screen is None else self.screen.points
        main, single = (
            [
                Site(layer, point, name, head)
                for layer in self.layers
                for point in screened or points
                for name in names
                for head in (self.heads if len(screened) == 1 or point == HEADS_AT else (None,))
            ]
            for names in (asked, each)
        )
        return main, single

    def n_traced(self, candidates: Sequence[Site]) -> int:
        """Sites that are traced and edited."""
        return len(candidates) if self.screen is None else self.screen.keep

    def edited(self, report: ProblemSet) -> ProblemSet:
        """The problems of the report split that are edited."""
        return report.take(np.arange(min(self.n_edited or len(report), len(report))))


@dataclass(frozen=True)
class CellResult:
    """The tables and headline numbers of a cell."""

    tables: dict[str, pd.DataFrame]
    summary: dict[str, Any]
    edited: EditedModel | None = None
    """The model with the cell's one edit in its weights, where that is wanted."""


@dataclass(frozen=True)
class _Work:
    """What a cell works on, and what it has to say meanwhile."""

    session: Session
    fit: ProblemSet
    report: ProblemSet
    prompts_fit: Prompts
    prompts: Prompts
    """Of the report split."""
    plan: CellPlan
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def n_edited(self, reported: Reported) -> int:
        """Problems that are edited: none without an intervention."""
        return 0 if self.plan.intervention is None else reported.n_edited

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take down the seconds of a stage."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)

    def warn(self, warnings: Iterable[str]) -> None:
        """Say it now, and in the summary."""
        for warning in warnings:
            log.warning(warning)
            self.warnings.append(warning)


@dataclass(frozen=True)
class _Edited:
    """What the edits of a cell leave."""

    tables: dict[str, pd.DataFrame] = field(default_factory=lambda: {"effects": pd.DataFrame()})
    difference: float | None = None
    """Of folded edits from the activations' edits."""
    model: EditedModel | None = None
    margins: Float64[Tensor, " rows"] | None = None
    """Of a model in half precision: logit differences of all edited answers."""


def run_cell(session: Session, fit: ProblemSet, report: ProblemSet, plan: CellPlan) -> CellResult:
    """Baseline, tracing and intervention of one cell.

    What other cells have left in the session's store is not computed again, and neither is what an
    earlier attempt at this one has left in its checkpoint.

    Raises:
        UserError: the model cannot read the problems; its fast path disagrees with a full pass; it
            answers none of the problems while an intervention is asked for, or not clearly more
            than a constant answer would while that is required.
    """
    work, how = _begin(session, fit, report, plan), plan.how
    sites, mapped = plan.sites(work.prompts_fit.joined(work.prompts), session.model.points)
    checked = _check(work, sites)
    reported = _answer(work)
    written = _say_baseline(work, reported, plan.n_traced(sites))
    screened = _screen(work, sites, reported)
    if screened is not None:
        sites = screened.found.kept_sites
    elif plan.position_map and not mapped:
        work.warn([NO_MAP])
    with work.stage("tracing"):
        traces = _trace(work, [*sites, *mapped], reported)
    bases = Bases(report, reported.baseline, _varying(plan, traces, sites), plan.digits)
    work.warn(massive_components(bases.traces) + exhausted(bases.traces, plan.method))
    edited = _edit(work, bases, reported)
    tables = {
        "problems": _problems(work, reported),
        "correlations": correlation_table(traces, prompts=work.prompts, n_fit=len(fit)),
        **_tables_of_traces(work, bases, screened),
        **edited.tables,
        **_locality(work, bases),
    }
    tables["evidence"] = _evidence(work, list(bases.traces), reported, tables)
    screening = {} if screened is None else screened.summary(tables, how)
    work.warn(screen_warnings(screening))
    work.warn(edit_warnings(tables, plan.intervention, n_permutations=how.n_permutations))
    work.warn(constant_values(fit))
    checked |= _near_ties(work, checked.get("batch_effect"), reported, edited)
    summary = {
        **baseline_summary(session.model, reported, how),
        **({} if written is None else written.summary()),
        **tracing_summary(bases.traces, tables["correlations"], report, how),
        **learning_summary(tables),
        **_summary_of_edits(work, tables),
        **screening,
        "hypotheses": hypothesis_summary(tables),
        "alignments": alignment_summary(tables),
        "verdicts": verdict_summary(tables["evidence"]),
        "missing": missing_summary(tables["evidence"]),
        **_receipt(work, reported),
        **checked,
        "weights_difference": edited.difference,
    }
    return CellResult(tables, summary, edited.model)


def _summary_of_edits(work: _Work, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """What edits did to answers, and how many control directions it took where that is open."""
    asked, tokens = work.plan.intervention, tables.get("answer_tokens", pd.DataFrame())
    return {
        **intervention_summary(tables, work.report.hypothesis.values),
        "draws": {} if asked is None else draw_summary(tables["contrasts"], asked.controls),
        "answer_tokens": token_summary(tokens, headline(tables["evidence"])),
    }


def _tables_of_traces(
    work: _Work, bases: Bases, screened: ScreenedCell | None
) -> dict[str, pd.DataFrame]:
    """What the subspaces at the sites are like, and what the screen says of the sites."""
    how, by_class = work.plan.how, work.report.steps_beside_the_tree
    tables = {
        "subspaces": subspace_table(bases.traces, n_fit=len(work.fit), by_class=by_class, how=how),
        **learning_tables(bases.traces, regresses=work.session.model.regresses),
    }
    if screened is None:
        return tables
    with work.stage("screened directions"):
        return tables | screened.tables(work.session, bases.traces, work.prompts, how)


def _begin(session: Session, fit: ProblemSet, report: ProblemSet, plan: CellPlan) -> _Work:
    """The problems as prompts, and what there is to say of them."""
    model = session.model
    prompts_fit, prompts = (
        encode_for(model, split, [plan.positions], digits=plan.digits) for split in (fit, report)
    )
    work = _Work(session, fit, report, prompts_fit, prompts, plan)
    log.info("the first prompt, whole: %r", whole_prompt(model, report, prompts))
    if (tokenizer := model.describe_tokenizer()) is not None:
        log.info("its tokenizer: %s", tokenizer)
    work.warn(before_any_run(model, fit, report))
    return work


def _problems(work: _Work, reported: Reported) -> pd.DataFrame:
    """Every problem, with its answer and its part in the cell."""
    return problem_table(
        work.session.model,
        (work.fit, work.prompts_fit),
        (work.report, work.prompts),
        reported,
        n_edited=work.n_edited(reported),
    )


def _receipt(work: _Work, reported: Reported) -> dict[str, Any]:
    """How the cell was run."""
    session, tokenizer = work.session, work.session.model.describe_tokenizer()
    return {
        **({} if tokenizer is None else {"tokenizer": tokenizer}),
        "design": design_summary(work.fit, work.report),
        "n_fit": len(work.fit),
        "n_edited": work.n_edited(reported),
        "engine": "resumed" if session.model.replays else "full passes",
        "store": {"hits": session.store.hits, "misses": session.store.misses},
        "units_found": session.checkpoint.found,
        "warnings": work.warnings,
        "seconds": work.seconds,
    }


def _check(work: _Work, sites: list[Site]) -> dict[str, Any]:
    """Whether what is asked for can be done, before any of it is.

    Of the summary the fast path's difference, and in half precision what the batch does.
    """
    if work.plan.screen is not None:
        check_screen(work.plan.screen, sites)
    with work.stage("check"):
        bound = int(np.abs(work.report.answers).max())
        parity = _parity(work, sites, bound)
        check_asked(work.session.model, work.plan, work.report, work.prompts, sites)
    return {"engine_difference": parity, **_batch_effect(work, sites)}


def check_asked(
    model: Model, plan: CellPlan, report: ProblemSet, prompts: Prompts, sites: Sequence[Site]
) -> None:
    """Check that a model has what the plan asks of it, by its shape and its prompts alone.

    Raises:
        UserError: it has not.
    """
    asked = plan.intervention
    if asked is not None and asked.via == WEIGHTS:
        check_by_weights(model, sites, prompts, asked)
    _check_ranks(model, plan, prompts, sites)
    plan.method.check_model(model)
    if plan.screen is not None:
        check_differentiable(model, instead="set screen=none")
    if asked is not None:
        check_sources(model, plan.edited(report), asked, sites)


def _parity(work: _Work, sites: list[Site], bound: int) -> float | None:
    """The fast path's difference from whole passes, which cells of the same layouts share.

    Each cell's own activations are known to be finite by its own passes, the baseline's first. A
    model that cannot be replayed is tried every time, because it is turned to whole passes.
    """
    session, prompts = work.session, work.prompts
    model = session.model
    check_points(model, sites)
    if not is_replayed(model, prompts, bound=bound):
        return None

    def compare() -> dict[str, Tensor]:
        found = compare_paths(model, prompts, sites)
        return {"difference": torch.tensor(nan if found is None else found, dtype=torch.float64)}

    key = model.fingerprint | compared(model, prompts, sites, bound=bound)
    found = float(session.store.fetch("checks", key, compare, code=CODE)["difference"])
    return compare_paths(model, prompts, sites) if isnan(found) else found


def _batch_effect(work: _Work, sites: list[Site]) -> dict[str, Any]:
    """How far answers depend on the batch, said before anything is traced; nothing in float32."""
    with work.stage("batch effect"):
        asked = ReferenceAnswers.of_problems(work.report, seed=work.plan.seed)
        found = measure_batch_effect(work.session, work.prompts, asked, sites)
    if found is None:
        return {}
    log.info("%s", found)
    work.warn([found.warning] if found.warning else [])
    return {"batch_effect": found.summary()}


def _near_ties(
    work: _Work, effect: Mapping[str, Any] | None, reported: Reported, edited: _Edited
) -> dict[str, Any]:
    """Answers that are as near to another one as the batch moves them: all of them are looked at.

    A few problems tell how far that is, and hardly ever meet an answer that changes.
    """
    if effect is None:
        return {}
    found = near_ties(effect, reported.baseline.answers.logit_difference, edited.margins)
    work.warn(near_tie_warnings(found))
    return {"batch_effect": found}


def _screen(work: _Work, candidates: list[Site], reported: Reported) -> ScreenedCell | None:
    """The sites that are kept, and why; None where nothing is screened."""
    plan, session = work.plan, work.session
    if plan.screen is None:
        return None

    def pairs(problems: ProblemSet) -> Pairs:
        return draw_pairs(
            session.model,
            problems,
            lambda some: encode_for(session.model, some, [plan.positions], digits=plan.digits),
            seed=plan.seed,
            constraints=plan.constraints,
        )

    with work.stage("screen"):
        fit, edited = pairs(work.fit), plan.edited(work.report)
        found = screen(session, fit, candidates, plan.screen)
    with work.stage("exact effects"):
        report = pairs(edited)
        return ScreenedCell(plan.screen, fit, report, measured(session, report, found))


def _check_ranks(model: Model, plan: CellPlan, prompts: Prompts, sites: Sequence[Site]) -> None:
    """Raise a UserError where a subspace would have more directions than its site has numbers."""
    for site in sites:
        positions = min(len(some.positions(site.position)) for some in prompts.layouts)
        width = site.width(model) * positions
        for rank in plan.method.ranks:
            if rank > width:
                raise UserError(
                    f"expected tracing.rank up to {width}, the numbers of {site.point} at layer "
                    f"{site.layer}{site.at}, got {rank}; lower it"
                )


def _trace(work: _Work, sites: list[Site], reported: Reported) -> dict[Site, Trace]:
    plan = work.plan
    splits = Splits(
        work.fit,
        work.report,
        work.prompts_fit,
        work.prompts,
        reported.passed,
        Drawing(plan.constraints, plan.digits),
    )
    return trace(work.session, splits, list(dict.fromkeys(sites)), plan.method, plan.how)


def _evidence(
    work: _Work, asked: list[Site], reported: Reported, tables: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """All that is known of each value at the sites that are asked for."""
    return evidence_table(tables, asked, untrained=_untrained(work, asked, reported))


def _untrained(work: _Work, sites: list[Site], reported: Reported) -> dict[tuple[Site, str], float]:
    """By site and value: |R| on the report split in a network with random weights, in the component
    that its own fit split chooses. Of several networks the largest.
    """
    model = work.session.model
    found: dict[tuple[Site, str], float] = {}
    with work.stage("untrained twins"):
        for seed in range(work.plan.untrained_twins):
            twin = model.untrained(seed=seed)
            if twin is None:
                work.warn([f"{model.name} has no untrained twin: |R| stands without its floor"])
                break
            for site, trace in _trace(
                replace(work, session=work.session.of(twin)), sites, reported
            ).items():
                for value, r in zip(trace.values, trace.r_of_best().abs().tolist(), strict=True):
                    if not isnan(r):  # nothing varies there: it gives no floor
                        found[site, value] = max(found.get((site, value), 0.0), r)
    return found


def _varying(plan: CellPlan, traces: dict[Site, Trace], sites: list[Site]) -> dict[Site, Trace]:
    """The traces that are asked for, but for sites that are the same for all problems.

    Raises:
        UserError: there are no others.
    """
    found = {site: traces[site] for site in sites if not traces[site].is_constant}
    if found:
        return found
    raise UserError(
        f"expected activations that vary at positions {plan.positions!r}, got constant ones at "
        f"{plan.point} of layers {list(plan.layers)}; choose other positions or layers"
    )


def _edit(work: _Work, bases: Bases, reported: Reported) -> _Edited:
    """Edit activations, or the weights that write them, and see where that leads."""
    asked = work.plan.intervention
    if asked is None:
        return _Edited()
    session, bases, how = work.session, bases.take(reported.n_edited), work.plan.how
    model = one_edit(session.model, bases.traces, asked) if asked.saves_model else None
    scorer = Scorer.of_baseline(
        bases.baseline,
        tolerance=reported.tolerance,
        written=not session.model.regresses,
        how=how,
    )
    with work.stage("intervention"):
        if asked.via == WEIGHTS:
            done = intervene_by_weights(session, bases, work.prompts_fit, asked)
        else:
            done = intervene(
                session, bases, asked, n_shuffles=how.n_permutations, drops=drops_of(scorer)
            )
        tables = intervention_tables(done, asked, scorer)
        tables |= _together(work, bases, done, reported.tolerance)
        spelling = Spelling.of(session.model, longest_answer(session.model, bases.baseline))
        if done.sources and spelling is not None:
            tables["answer_tokens"] = answer_token_table(done, asked, spelling, how)
    with work.stage("off_distribution"):
        doses = doses_of(done.results)
        departures = off_distribution(session, bases.baseline.prompts, bases.traces, doses)
        tables["off_distribution"] = off_distribution_table(done.results, departures, asked)
    tables = {name: table.assign(via=asked.via) for name, table in tables.items()}
    margins = None
    if session.model.dtype in HALF and done.results:
        margins = torch.cat([one.answers.logit_difference.flatten() for one in done.results])
    return _Edited(tables, done.difference, model, margins)


def _together(
    work: _Work, bases: Bases, done: InterventionRun, tolerance: float
) -> dict[str, pd.DataFrame]:
    """All steps of each hypothesis set at once, where values are taken from sources."""
    asked = work.plan.intervention
    if asked is None or asked.edit.target is not EditTarget.SOURCE:
        return {}
    found = list(interchange_together(work.session, bases, asked, done, tolerance=tolerance))
    work.warn(untested(bases.problems, found))
    table = alignment_table(found, tolerance=tolerance, how=work.plan.how, seed=asked.seed)
    return {} if table.empty else {"alignments": table}


def _locality(work: _Work, bases: Bases) -> dict[str, pd.DataFrame]:
    if work.plan.locality is None:
        return {}
    with work.stage("locality"):
        return locality_tables(locality(work.session, bases, work.plan.locality))


def _answer(work: _Work) -> Reported:
    """The baseline, logged before anything is traced."""
    model, report, plan = work.session.model, work.report, work.plan
    with work.stage("baseline"):
        asked = ReferenceAnswers.of_problems(report, seed=plan.seed)
        baseline = stored_baseline(work.session, work.prompts, asked)
    reported = Reported(
        baseline=baseline,
        tolerance=model.tolerance if plan.tolerance is None else plan.tolerance,
        n_edited=min(plan.n_edited or len(report), len(report)),
    )
    log.info(
        "%s answers %.1f%% of %d problems %s%s",
        model.name,
        100 * reported.accuracy,
        len(report),
        report.template.expression,
        f" within {reported.tolerance:g}" if model.regresses else "",
    )
    return reported


def _say_baseline(work: _Work, reported: Reported, n_sites: int) -> WrittenAnswers | None:
    """Say whether the model is at chance level, and how its answers were read.

    Raises:
        UserError: no problem that is to be edited is answered right, or the baseline is not clearly
            above the floor while that is required.
    """
    model, plan, hypothesis = work.session.model, work.plan, work.report.hypothesis
    written = written_answers(model, reported, work.report)
    if written is not None and is_low(reported):
        work.warn([str(written)])
    n, asked = reported.n_edited, plan.intervention
    if asked is not None and not reported.passed[:n].any():
        raise UserError(
            f"expected a model that answers some problems, got baseline accuracy 0 on {n} "
            f"problems {hypothesis.answer}: no drop can be reported; choose problems that "
            f"{model.name} can answer, or intervention=none to trace all the same"
            + (f" ({written})" if written is not None else "")
        )
    n_edits = 0
    if asked is not None:
        n_edits = most_edits(
            asked,
            n_sites=n_sites,
            n_values=len(hypothesis.values),
            n_components=plan.method.n_components,
        )
    work.warn(
        chance_warnings(model, reported, require_baseline=plan.require_baseline, n_edits=n_edits)
    )
    return written
