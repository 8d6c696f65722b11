"""Pairs that a trained method learns from: a base, a source, and the answer that is wanted.

Where the answer is written, the source is read behind its own right answer's tokens. The base is
forced to the tokens that it would have written when the model gets there: up to the first edited
position, where nothing is edited yet, those of its own right answer, and from there on those of the
wanted one, which the edit is to bring about.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from mech_arith.common.errors import UserError
from mech_arith.directions.base import FitTask
from mech_arith.directions.readings import control_values
from mech_arith.engine.batching import is_out_of_memory
from mech_arith.engine.capture import capture
from mech_arith.engine.gradients import Edit, Objective, Suffix, open_suffixes
from mech_arith.engine.session import Session
from mech_arith.models.answered import encode_for
from mech_arith.models.prompts import ANSWER, Prompts
from mech_arith.problems import ProblemSet
from mech_arith.problems.sources import Sources, draw_sources

ALIKE = 1e-5
"""Where sources differ from their bases by less than this share of their size, they do not."""


@dataclass(frozen=True)
class Pairs:
    """Base problems and sources that differ from them in one value, at one site."""

    session: Session
    suffixes: list[Suffix]
    """The bases, by layout, each followed by the wanted answer."""
    objective: Objective
    sources: Float[Tensor, "n width"]
    """The sources' vectors."""
    apart: Float[Tensor, "n width"]
    """Those less the bases'."""
    trained: Int64[Tensor, " some"]
    held_out: Int64[Tensor, " others"]
    """None of their base problems is among those that are trained on."""
    n_settled: int
    """The site's first positions at which bases are what they are behind their right answers: up to
    the first one behind a token that an edit brings about."""

    @property
    def width(self) -> int:
        """Numbers of the site."""
        return self.sources.shape[1]

    def loss(self, some: Int64[Tensor, " few"], frame: Float[Tensor, "width k"]) -> float:
        """The mean loss of some pairs, of an interchange within the span of orthonormal columns."""
        losses: list[float] = []

        def work(suffix: Suffix, at: Tensor) -> None:
            losses.append(self._loss(suffix, at, self._interchange(suffix, at, frame))[0])

        self._in_chunks(some, work)
        return sum(losses) / len(some)

    def bound(self, some: Int64[Tensor, " few"]) -> float:
        """The mean loss where the whole vector is the source's: an interchange of full rank."""
        losses: list[float] = []

        def work(suffix: Suffix, at: Tensor) -> None:
            sources = self.sources[suffix.rows[at]]
            losses.append(self._loss(suffix, at, lambda _: sources)[0])

        self._in_chunks(some, work)
        return sum(losses) / len(some)

    def loss_and_gradient(
        self, some: Int64[Tensor, " few"], frame: Float[Tensor, "width k"]
    ) -> tuple[float, Float[Tensor, "width k"]]:
        """The same, and its gradient."""
        turned, gradient = frame.detach().requires_grad_(), torch.zeros_like(frame)
        losses: list[float] = []

        def work(suffix: Suffix, at: Tensor) -> None:
            edit = self._interchange(suffix, at, turned)
            loss, of_chunk = self._loss(suffix, at, edit, turned)
            losses.append(loss)
            gradient.add_(of_chunk)

        self._in_chunks(some, work)
        return sum(losses) / len(some), gradient / len(some)

    def relaxed_gradient(
        self, some: Int64[Tensor, " few"], basis: Float[Tensor, "width r"], by: Float[Tensor, "r r"]
    ) -> Float[Tensor, "r r"]:
        """The mean loss's gradient by a matrix, in a basis: it says how much of each coordinate of
        what sources and bases are apart is added to each coordinate of the bases.
        """
        matrix, gradient = by.detach().requires_grad_(), torch.zeros_like(by)

        def work(suffix: Suffix, at: Tensor) -> None:
            apart = self.apart[suffix.rows[at]] @ basis
            edit: Edit = lambda x: x + (apart @ matrix) @ basis.mT  # noqa: E731
            gradient.add_(self._loss(suffix, at, edit, matrix)[1])

        self._in_chunks(some, work)
        return gradient / len(some)

    def first_order(self, some: Int64[Tensor, " few"]) -> Float[Tensor, " width"]:
        """How far the mean loss falls where a coordinate alone is the source's, to first order."""
        like = self.sources
        by = torch.zeros(self.width, device=like.device, dtype=like.dtype, requires_grad=True)
        gradient = torch.zeros_like(by, requires_grad=False)

        def work(suffix: Suffix, at: Tensor) -> None:
            apart = self.apart[suffix.rows[at]]
            gradient.add_(self._loss(suffix, at, lambda x: x + apart * by, by)[1])

        self._in_chunks(some, work)
        return -gradient / len(some)

    def _in_chunks(self, some: Tensor, work: Callable[[Suffix, Tensor], None]) -> None:
        """Some of the pairs, as many at a time as memory holds."""
        for suffix in self.suffixes:
            at = torch.isin(suffix.rows, some).nonzero()[:, 0]
            while len(at):
                size = self.session.batching.rows(suffix.model, suffix.resid.shape[1])
                try:
                    work(suffix, at[:size])
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    lacking = error.with_traceback(None)
                else:
                    at = at[size:]
                    continue
                self.session.batching.halve(lacking, suffix.model, suffix.resid.shape[1])

    def _interchange(self, suffix: Suffix, at: Tensor, frame: Float[Tensor, "width k"]) -> Edit:
        """What bases have within the span of the frame is replaced by what sources have.

        Several positions where the answer is written are edited one after another, by the rules of
        `engine.rules`: what other tokens than the right ones make of a base is taken back at each
        of them, within the span of the frame's part there.
        """
        sources, apart = self.sources[suffix.rows[at]], self.apart[suffix.rows[at]]
        n_positions = len(suffix.indices)
        if self.n_settled == n_positions:
            return lambda bases: bases + ((sources - bases.float()) @ frame) @ frame.mT
        parts = torch.linalg.qr(frame.unflatten(0, (n_positions, -1))[self.n_settled :]).Q

        def edit(bases: Float[Tensor, "few width"]) -> Float[Tensor, "few width"]:
            other = bases.float() - (sources - apart)
            other = other.unflatten(1, (n_positions, -1))[:, self.n_settled :]
            back = torch.einsum("npd,pdk,pek->npe", other, parts, parts).flatten(1)
            back = pad(back, (bases.shape[1] - back.shape[1], 0))
            return bases + (apart @ frame) @ frame.mT - back

        return edit

    def _loss(
        self, suffix: Suffix, at: Tensor, edit: Edit, by: Tensor | None = None
    ) -> tuple[float, Tensor]:
        """The summed loss of some pairs under an edit, and its gradient by what is edited with."""
        with torch.set_grad_enabled(by is not None):
            read = suffix.read_outs(at, edit)
            loss = self.objective.losses(read, suffix.rows[at]).sum()
        if not torch.isfinite(loss):
            raise UserError(
                f"expected finite losses of {suffix.model.name} at layer {suffix.site.layer}, got "
                f"{float(loss.detach())}; use dtype=float32, or lower tracing.options.lr"
            )
        if by is None:
            return float(loss), torch.empty(0)
        if not loss.requires_grad:
            raise UserError(
                f"expected gradients through the blocks of {suffix.model.name}, got none; "
                "take torch.inference_mode and torch.no_grad out of its run_block and read_out"
            )
        return float(loss.detach()), torch.autograd.grad(loss, by)[0]


@dataclass(frozen=True)
class Drawn:
    """Base problems, and a source for each that differs from it in one value."""

    bases: ProblemSet
    sources: ProblemSet
    wanted: Float64[Tensor, " n"]
    """Answers of the bases with the value replaced by the sources'."""
    of_base: Int64[Tensor, " n"]
    """The number of the base problem, which may stand in several pairs."""


def draw_pairs(task: FitTask, index: int, *, n: int) -> Drawn | None:
    """Pairs that differ in one value; None where there is none that the model could answer.

    Sources are drawn among the problems of the task. Where the answer is written, theirs has to
    have the site's positions, and the wanted one a token that is read there or behind.

    For a control task the value is replaced by a random function of the source's operands, of the
    value's own distribution: a value that is not there. As much is to be learnt, and as much can be
    learnt by heart.

    Args:
        task: with the problems of the fit split.
        index: of the value.
        n: pairs at most: one of each base problem, then a second one of each, and so on.
    """
    problems = task.problems
    value = problems.hypothesis.values[index]
    m = -(-n // len(problems))
    constraints = task.drawing.constraints
    drawn = draw_sources(problems, value, m=m, n_shuffles=1, seed=0, constraints=constraints)
    if drawn is None:
        return None
    wanted = torch.cat([_wanted(task, drawn, source, index) for source in drawn.problems])
    ahead = task.prompts.layouts[0].n_ahead(task.site.position)
    known = Objective.of(task.session.model, wanted).known(n_ahead=ahead)
    known &= torch.cat([_are_there(task, source) for source in drawn.problems])
    known = known.nonzero()[:n, 0]
    of_base = torch.arange(len(drawn.base)).repeat(m)[known]
    if not len(known):
        return None
    sources = _some_of_all(drawn.problems, known)
    return Drawn(drawn.base.take(of_base.numpy()), sources, wanted[known], of_base)


def open_pairs(task: FitTask, drawn: Drawn, *, holdout: float) -> Pairs | None:
    """The same in the model; None where sources are as their bases, or there is but one base.

    Args:
        task: where.
        drawn: the problems.
        holdout: share of the base problems whose pairs are held out.
    """
    order = torch.randperm(int(drawn.of_base.max()) + 1, generator=torch.Generator().manual_seed(0))
    order = order[torch.isin(order, drawn.of_base)]
    n_held = max(1, round(holdout * len(order)))
    if len(order) <= n_held:
        return None
    is_held = torch.isin(drawn.of_base, order[:n_held])
    sources = _vectors(task, drawn.sources)
    apart = sources - _vectors(task, drawn.bases)
    if float(apart.norm()) <= ALIKE * float(sources.norm()):
        return None
    prompts, site = _encoded(task, drawn.bases), task.site
    layout = prompts.layouts[0]
    n_ahead, n_before = layout.n_ahead(site.position), layout.n_before(site.position)
    objective = Objective.of(task.session.model, drawn.wanted)
    if prompts.answers is not None:
        objective = objective.behind(prompts.answers[:, :n_ahead])
    # A wanted answer may be shorter than all that are right: its positions are there all the same.
    fed = pad(objective.fed, (0, max(0, n_before - objective.fed.shape[1])))
    return Pairs(
        task.session,
        open_suffixes(task.session, prompts, fed, site),
        objective,
        sources,
        apart,
        (~is_held).nonzero()[:, 0],
        is_held.nonzero()[:, 0],
        n_settled=len(layout.positions(site.position)) - (n_before - n_ahead),
    )


def _encoded(task: FitTask, problems: ProblemSet) -> Prompts:
    """Problems as prompts like the task's, with their right answers if those have theirs."""
    behind = [ANSWER] if task.prompts.answers is not None else []
    return encode_for(task.session.model, problems, behind, digits=task.drawing.digits)


def _are_there(task: FitTask, problems: ProblemSet) -> Bool[Tensor, " n"]:
    """Marks the problems whose right answers have the site's positions."""
    reader, layout = task.session.model.reader, task.prompts.layouts[0]
    if reader is None or layout.answer is None:
        return torch.ones(len(problems), dtype=torch.bool)
    lengths = [len(reader.tokens(answer)) for answer in problems.answers.tolist()]
    fit = [layout.fits(task.site.position, length) for length in lengths]
    return torch.tensor(fit, dtype=torch.bool)


def _wanted(task: FitTask, drawn: Sources, source: ProblemSet, index: int) -> Float64[Tensor, " n"]:
    """The answers of the base problems with the value replaced by that of their sources.

    NaN where a number that is not there makes a divisor 0.
    """
    numbers = source.values[drawn.value]
    if task.is_control:
        numbers = control_values(task.problems, source)[:, index].long().numpy()
    return torch.from_numpy(
        drawn.base.hypothesis.expected(drawn.value, numbers, drawn.base.operands)
    )


def _some_of_all(sets: tuple[ProblemSet, ...], rows: Int64[Tensor, " n"]) -> ProblemSet:
    """Some of the problems of several sets behind one another."""
    operands = {
        name: np.concatenate([one.operands[name] for one in sets])[rows.numpy()]
        for name in sets[0].operands
    }
    return ProblemSet.of(sets[0].template, operands)


def _vectors(task: FitTask, problems: ProblemSet) -> Float[Tensor, "n width"]:
    """The site's vectors of problems, on the model's device."""
    session, site = task.session, task.site
    prompts = _encoded(task, problems)
    found: Tensor | None = None
    for layout, captured in capture(session, prompts, [site]):
        vectors = captured[site].float()
        if found is None:
            found = vectors.new_empty(len(prompts), vectors.shape[1])
        found[layout.rows] = vectors
    assert found is not None
    return found.to(session.model.device)
