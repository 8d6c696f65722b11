"""Many edits, few forward passes: only the layers above an edit are run, many edits at a time.

A sweep asks for directions x strengths x problems edited predictions at one site. They are rows of
one table here; batches of rows start from the clean residual stream below the site, and rows that
an edit leaves unchanged are not run at all.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mech_arith.progress import Progress, progress
from mech_arith.sites import Site
from mech_arith.solvers.base import CleanRun, Solver


@dataclass(frozen=True)
class Baseline:
    """Problems before any edit: where edited passes start, and what they are compared with."""

    clean: CleanRun
    answers: Float[Tensor, " n"]
    """The solver's own answers, on the CPU; NaN where not a number."""

    def take(self, n: int) -> "Baseline":
        """The first `n` problems."""
        return Baseline(self.clean.take(n), self.answers[:n])


@torch.inference_mode()
def run_baseline(solver: Solver, tokens: Int64[Tensor, "n pos"], *, batch_size: int) -> Baseline:
    """The clean pass over the problems to be edited."""
    runs, answers = [], []
    for batch in progress(tokens.split(batch_size), description="baseline", unit="batches"):
        run = solver.run(batch)
        runs.append(run)
        answers.append(solver.read_answers(run.resid[-1][:, solver.answers_at], run.past).cpu())
    return Baseline(CleanRun.concatenate(runs), torch.cat(answers))


def edited_answers(
    solver: Solver,
    baseline: Baseline,
    site: Site,
    directions: Float[Tensor, "edits width"],
    changes: Float[Tensor, "edits n"],
    *,
    batch_size: int,
    bar: Progress | None = None,
) -> Float[Tensor, "edits n"]:
    """Answers of every problem under every edit at one site.

    Args:
        solver: the model under study.
        baseline: its clean pass.
        site: where the edits are made.
        directions: a unit vector for each edit.
        changes: how far each edit moves each problem along its direction, in activation units.
        batch_size: rows (an edit of a problem) run at a time.
        bar: advanced by the rows done, those without a change included.
    """
    answers = baseline.answers.repeat(len(changes), 1)
    edits, rows = changes.nonzero(as_tuple=True)
    if bar is not None:
        bar.advance(changes.numel() - len(rows))
    device = solver.device
    for edit, row in zip(edits.split(batch_size), rows.split(batch_size), strict=True):
        change = (changes[edit, row, None] * directions[edit]).float().to(device)
        answers[edit, row] = solver.resume(
            baseline.clean,
            row.to(device),
            layer=site.layer,
            point=site.point,
            edit=lambda activation, change=change: site.add(activation, change),
        ).cpu()
        if bar is not None:
            bar.advance(len(row))
    return answers
