"""Workload F: the intervention of a real cell, beside what forward hooks need for the same table.

The cell is that of `make sweep-lm`, put together from its config as `python -m mech_arith` does it.
What is timed is `intervene`: every edit with all its controls, answers of several tokens written to
their end, the probability of the right answer, and the statistics of the tables.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import torch
from agreement import TOLERANCE
from bound import Clock, Rates, work_of_pass
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from jaxtyping import Float
from rich.table import Table
from torch import Tensor, nn

from mech_arith.common.paths import conf_dir
from mech_arith.directions.tracing import Splits, trace
from mech_arith.engine.answers import Answers
from mech_arith.engine.batching import Batching
from mech_arith.engine.run import Baseline, ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.effects import intervention_tables
from mech_arith.evidence.metrics import exact
from mech_arith.evidence.scorer import Scorer
from mech_arith.experiment.cell import CellPlan
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.load_model import load_model
from mech_arith.experiment.plan import prepare
from mech_arith.experiment.typed import checked
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.result import InterventionResult
from mech_arith.interventions.run import intervene
from mech_arith.models.language.numerals import most_digits
from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.models.prompts import Layout

BOUND_SECONDS = 2.0
"""How long the machine's rate is measured in every round."""
SHARE_BAR = 0.6
TITLE = "a cell of make sweep-lm, from edits to tables"
CELL = ("+experiment=smollm2_sweep", "template=sum_of_two")


@dataclass(frozen=True)
class Cell:
    """A cell that is ready for its intervention."""

    model: PretrainedModel
    bases: Bases
    plan: CellPlan

    @property
    def baseline(self) -> Baseline:
        """The problems that are edited, and the model's answers to them."""
        return self.bases.baseline

    @property
    def blocks(self) -> list[nn.Module]:
        """The model's blocks."""
        return list(self.model.network.model.layers)

    @property
    def head(self) -> Float[Tensor, "vocab d"]:
        """The matrix that makes logits."""
        return self.model.network.lm_head.weight

    def intervene(self) -> list[InterventionResult]:
        """All edits of the cell, as a run makes them, and their tables."""
        plan, how = self.plan.intervention, self.plan.how
        assert plan is not None
        done = intervene(Session(self.model), self.bases, plan, n_shuffles=how.n_permutations)
        scorer = Scorer.of_baseline(
            self.baseline, tolerance=self.model.tolerance, written=True, how=how
        )
        intervention_tables(done, plan, scorer)
        return done.results


def prepare_cell(overrides: tuple[str, ...] = CELL) -> Cell:
    """A cell up to its intervention: problems drawn, answered and traced.

    Raises:
        UserError: its model has not been fetched.
    """
    ConfigStore.instance().store(name="schema", node=RunConfig)
    with initialize_config_dir(str(Path(conf_dir()).resolve()), version_base="1.3"):
        settings = checked(compose("config", overrides=list(overrides)), overrides)
    prepared = prepare(settings)
    model = load_model(settings, prepared)
    assert isinstance(model, PretrainedModel)
    plan, batching = prepared.cell(model), Batching()
    fit, prompts = (
        model.encode(problems, digits=plan.digits) for problems in (prepared.fit, prepared.report)
    )
    asked = ReferenceAnswers.of_problems(prepared.report, seed=plan.seed)
    baseline = run_baseline(Session(model, batching), prompts, asked)
    passed = exact(baseline.answers.numbers, asked.right, tolerance=model.tolerance)
    traces = trace(
        Session(model, batching),
        Splits(prepared.fit, prepared.report, fit, prompts, passed),
        [Site(layer, plan.point, plan.positions) for layer in plan.layers],
        plan.method,
        plan.how,
    )
    n = min(plan.n_edited or len(prompts), len(prompts))
    bases = Bases(prepared.report, baseline, traces, plan.digits)
    return Cell(model, bases.take(n), plan)


Pass = tuple[int, int, int, int]
"""A target, one of its arms' directions, a source and a strength: one edit of every problem."""


def passes(results: list[InterventionResult]) -> list[Pass]:
    """Every edit that moves something, spread over targets, arms and strengths."""
    every = [
        (target, direction, source, strength)
        for target, one in enumerate(results)
        for direction in range(one.answers.numbers.shape[0])
        for source, strength in one.moves.any(-1).nonzero().tolist()
    ]
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))
    return [every[index] for index in order.tolist()]


def n_moved(results: list[InterventionResult], one: Pass) -> int:
    """How many problems an edit moves."""
    target, _, source, strength = one
    return int(results[target].moves[source, strength].sum())


def bound_seconds(
    cell: Cell, results: list[InterventionResult], rates: dict[tuple[int, int], float]
) -> float:
    """How long the multiply-adds of all edits take at the machine's rates.

    Of each problem that is moved: the layers above the edit and the unembedding, from the prompt's
    last position to the last token of the right answer. What else rows write is not counted.
    """
    prompts, tokens = cell.baseline.prompts, cell.model.reader.tokens
    fed = [len(tokens(int(number))) for number in cell.baseline.asked.right]
    ends = torch.empty(len(fed), dtype=torch.int64)
    for layout in prompts.layouts:
        ends[layout.rows] = len(prompts.prefix) + layout.tokens.shape[1]

    @cache
    def of_edit(layer: int, end: int, n_fed: int) -> float:
        work = work_of_pass(
            cell.blocks, cell.head, layer, first=end - 1, end=end + n_fed, read=1 + n_fed
        )
        return work.seconds(rates)

    seconds = 0.0
    for one in results:
        times = len(one.answers.numbers) * one.moves.sum((0, 1))
        for row, n in zip(one.rows.tolist(), times.tolist(), strict=True):
            seconds += n * of_edit(one.site.layer, int(ends[row]), fed[row])
    return seconds


def rates_of(cell: Cell) -> Rates:
    """The machine's rates, for as many positions as the engine runs at a time."""
    positions = Batching().rows(cell.model, 1)
    return Rates(cell.blocks, cell.head, rows=positions, read=positions // 4)


@dataclass
class Differences:
    """How far the hooks' answers are from the engine's."""

    answers: int = 0
    same: int = 0
    """Numbers that are the same, or none in both."""
    log_prob: float = 0.0
    """The largest difference of the right answer's log-probability, in nats."""

    def add(self, ours: Answers, theirs: Answers) -> None:
        """Compare some answers."""
        self.answers += len(ours)
        self.same += int((ours.numbers.nan_to_num(-1) == theirs.numbers.nan_to_num(-1)).sum())
        furthest = (ours.log_prob - theirs.log_prob).abs().nan_to_num(nan=torch.inf).max()
        self.log_prob = max(self.log_prob, float(furthest))


class HookedCell:
    """The same answers as a user of forward hooks would get them.

    One pass per edit over all problems, with the tokens of the right answer behind the prompt: its
    probability, and what is written as long as it is right. What parts from it goes on token by
    token. Nothing is cached, as in the other workloads.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.read = cell.model.reader.read
        self.longest = cell.model.reader.longest(cell.baseline.asked.bound)
        self.too_large = 10 ** most_digits(cell.baseline.asked.bound)

    def edit(self, results: list[InterventionResult], one: Pass) -> Answers:
        """The answers of every problem that a target moves, under one edit."""
        target, direction, source, strength = one
        of = results[target]
        frames = torch.cat([arm.frames for arm in of.arms])
        n = len(self.cell.baseline)
        far = torch.zeros(n, of.target.rank)
        far[of.rows] = of.changes[source, strength].float()
        delta = far @ frames[direction]
        answers = Answers.empty(n)
        for layout in self.cell.baseline.prompts.layouts:
            self._answer(of.site.layer, layout, delta[layout.rows], answers)
        return answers.of(of.rows)

    @torch.inference_mode()
    def _answer(
        self, layer: int, layout: Layout, delta: Float[Tensor, "n d"], answers: Answers
    ) -> None:
        tokens = self.cell.baseline.prompts.whole(layout)
        right = [
            self.cell.model.reader.tokens(int(number))
            for number in self.cell.baseline.asked.right[layout.rows]
        ]
        longest = max(map(len, right))
        fed = torch.tensor([[*row, *[0] * (longest - len(row))] for row in right])
        logits = self._logits(layer, torch.cat([tokens, fed], 1), delta, end=tokens.shape[1])
        for row, (index, of_row) in enumerate(zip(layout.rows.tolist(), right, strict=True)):
            log_probs = logits[row].double().log_softmax(-1)
            ends = log_probs[len(of_row)].index_fill(0, self.cell.model.reader.longer, -torch.inf)
            steps = log_probs[range(len(of_row)), list(of_row)]
            answers.log_prob[index] = steps.sum() + ends.logsumexp(-1)
        written = [
            _agreed(greedy, of_row)
            for greedy, of_row in zip(logits.argmax(-1).tolist(), right, strict=True)
        ]
        for _ in range(self.longest):
            going = [row for row, text in enumerate(written) if not self.read(text)[1]]
            going = [row for row in going if len(written[row]) < self.longest]
            for length in sorted({len(written[row]) for row in going}):
                some = [row for row in going if len(written[row]) == length]
                behind = torch.tensor([written[row] for row in some])
                whole = torch.cat([tokens[some], behind], 1)
                logits = self._logits(layer, whole, delta[some], end=tokens.shape[1], keep=1)
                for row, token in zip(some, logits[:, -1].argmax(-1).tolist(), strict=True):
                    written[row] += (token,)
        for text, index in zip(written, layout.rows.tolist(), strict=True):
            number, ended = self.read(text)
            if ended and number is not None and abs(number) < self.too_large:
                answers.numbers[index] = number

    def _logits(
        self, layer: int, tokens: Tensor, delta: Tensor, *, end: int, keep: int | None = None
    ) -> Float[Tensor, "n read vocab"]:
        """From the prompt's last position on, or at the last `keep`, with the edit made there."""
        keep = 1 + tokens.shape[1] - end if keep is None else keep
        with _added_at(self.cell.blocks[layer], end - 1, delta):
            return self.cell.model.network(tokens, use_cache=False, logits_to_keep=keep).logits


def _agreed(greedy: list[int], right: tuple[int, ...]) -> tuple[int, ...]:
    """The right tokens as far as they are the likeliest, and the likeliest behind."""
    pairs = enumerate(zip(greedy, right, strict=False))
    same = next((at for at, (ours, theirs) in pairs if ours != theirs), len(right))
    return tuple(greedy[: same + 1])


@contextmanager
def _added_at(block: nn.Module, position: int, delta: Float[Tensor, "n d"]) -> Iterator[None]:
    """Add to a block's output at one position."""

    def add(_module: nn.Module, _args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        hidden[:, position] += delta

    handle = block.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def answers_of(results: list[InterventionResult], one: Pass) -> Answers:
    """The engine's, of one edit."""
    target, direction, source, strength = one
    every = results[target].answers.tensors()
    return Answers(**{name: field[direction, source, strength] for name, field in every.items()})


@dataclass
class CellResult:
    """What was measured on a cell."""

    workload: str
    title: str
    edits: int
    """Of one problem each, those that move something."""
    share_bar: float
    """How large a share of the bound is asked for, as a share of workload A's."""
    bound_edits_per_second: float
    ours: list[float]
    """Edits per second, one number per round."""
    hooks: list[float] = field(default_factory=list)
    hooked: int = 0
    """Edits that were made by hooks."""
    differences: Differences = field(default_factory=Differences)

    @property
    def share(self) -> float:
        """The engine's speed over the bound's."""
        return median(self.ours) / self.bound_edits_per_second

    @property
    def ratio(self) -> float:
        """The engine's speed over that of hooks."""
        return median(self.ours) / median(self.hooks)

    @property
    def agrees(self) -> bool:
        """Whether all answers are the same, and the probabilities nearly so."""
        found = self.differences
        return found.same == found.answers and found.log_prob <= TOLERANCE


def benchmark(cell: Cell, *, rounds: int, seconds: float, clock: Clock) -> CellResult:
    """Run the cell's intervention and some of its edits by hooks, in turns.

    Args:
        cell: ready for its intervention.
        rounds: how often each has its turn.
        seconds: how long hooks are timed, all rounds together.
        clock: that times both.
    """
    hooked, rates = HookedCell(cell), rates_of(cell)
    bounds, ours, hooks, differences, n_hooked = [], [], [], Differences(), 0
    turns: Iterator[Pass] | None = None
    edits = 0
    for _ in range(rounds):
        measured = rates.measure(seconds=BOUND_SECONDS, clock=clock)
        start = clock()
        results = cell.intervene()
        spent = clock() - start
        every = passes(results)
        edits = sum(n_moved(results, one) for one in every)
        ours.append(edits / spent)
        bounds.append(edits / bound_seconds(cell, results, measured))
        turns = turns or cycle(every)
        spent, done = 0.0, 0
        while spent < seconds / rounds:
            one = next(turns)
            start = clock()
            found = hooked.edit(results, one)
            spent += clock() - start
            done += n_moved(results, one)
            differences.add(answers_of(results, one), found)
        hooks.append(done / spent)
        n_hooked += done
    return CellResult(
        "F", TITLE, edits, SHARE_BAR, median(bounds), ours, hooks, n_hooked, differences
    )


def table(result: CellResult) -> Table:
    """The result as a table."""
    shown = Table(title=f"{result.workload}: {result.title}, {result.edits:,} edits")
    shown.add_column("tool")
    for name in ("edits/s", "timed", "engine faster", "log p differ", "same answer"):
        shown.add_column(name, justify="right")
    rounds = len(result.ours)
    shown.add_row("mech_arith", f"{median(result.ours):,.1f}", f"{rounds * result.edits:,}")
    found = result.differences
    shown.add_row(
        "forward hooks",
        f"{median(result.hooks):,.1f}",
        f"{result.hooked:,}",
        f"{result.ratio:,.1f} x",
        f"{found.log_prob:.1e}",
        f"{found.same / found.answers:.2%}",
    )
    return shown


def verdict(result: CellResult, *, share_of_a: float | None) -> list[str]:
    """Each bar, and whether it is met."""
    share = (
        f"{result.share:.2f} of the bound, which is {result.bound_edits_per_second:,.0f} edits/s"
    )
    if share_of_a is not None:
        least = result.share_bar * share_of_a
        share = (
            f"{_met(result.share >= least)}: {share} (asked for: {least:.2f}, "
            f"{result.share_bar:g} of workload A's {share_of_a:.2f})"
        )
    found = result.differences
    return [
        share,
        f"{_met(result.agrees)}: {found.same:,} of {found.answers:,} answers by hooks are the "
        f"engine's (asked for: all, and log-probabilities within {TOLERANCE:g})",
    ]


def _met(yes: bool) -> str:
    return "met" if yes else "MISSED"
