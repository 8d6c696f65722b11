"""How many answers of a real model change with the batch size, by number format?

    python scripts/benchmarks/batch_sizes.py                       # SmolLM2; half an hour
    python scripts/benchmarks/batch_sizes.py --model qwen2_5_coder_0_5b --dtypes bfloat16

Problems are answered unedited, and with another problem's whole activation in place of the own at
one layer: once a row at a time, and once in batches of each size. A row of the table compares one
batch size with single rows. The accuracy drop of an edit is over all problems.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from arguments import count
from torch import Tensor

from mech_arith import compose
from mech_arith.engine.answers import Answers
from mech_arith.engine.batching import Batching
from mech_arith.engine.capture import capture
from mech_arith.engine.edits import SiteVectors
from mech_arith.engine.run import ReferenceAnswers, run_baseline, run_edits
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.base import Model
from mech_arith.models.prompts import Prompts

DTYPES = ("float32", "bfloat16", "float16")
HEAD = (
    *("dtype", "rows at a time", "answers changed", "edited answers changed"),
    *("log-probability by up to", "logit difference by up to", "accuracy drop by up to"),
)
DIGITS = {"smollm2_135m": (0, 9), "qwen2_5_coder_0_5b": (10, 99), "gemma3_270m": (0, 9)}


@dataclass(frozen=True)
class Answered:
    """The same problems at one batch size."""

    own: Answers
    edited: Answers
    """[edits, n]."""
    right: Tensor

    def drops(self) -> Tensor:
        """The accuracy drop of each edit."""
        own = (self.own.numbers == self.right).double().mean()
        return own - (self.edited.numbers == self.right).double().mean(1)


def interchanges(model: Model, prompts: Prompts, site: Site, n_edits: int) -> SiteVectors:
    """Each problem with the activations of the next ones."""
    own = torch.zeros(len(prompts), site.width(model))
    for layout, found in capture(Session(model), prompts, [site]):
        own[layout.rows] = found[site].float()
    return SiteVectors(site, torch.stack([own.roll(-1 - k, 0) - own for k in range(n_edits)]))


def answered(
    model: Model, prompts: Prompts, asked: ReferenceAnswers, edits: SiteVectors, rows: int
) -> Answered:
    """So many rows at a time."""
    session = Session(model, Batching(rows))
    baseline = run_baseline(session, prompts, asked)
    return Answered(baseline.answers, run_edits(session, baseline, [edits])[0], asked.right)


def changed(ours: Answers, theirs: Answers) -> float:
    """The share of answers that are others."""
    same = ours.numbers.nan_to_num(-1e9) == theirs.numbers.nan_to_num(-1e9)
    return float((~same).double().mean())


def row(dtype: str, rows: int, ours: Answered, single: Answered) -> str:
    """One line of the table."""
    pairs = [(ours.own, single.own), (ours.edited, single.edited)]
    shares = [f"{100 * changed(*pair):.1f}%" for pair in pairs]
    apart = [
        [
            (getattr(one, name) - getattr(other, name)).abs().nan_to_num().max()
            for one, other in pairs
        ]
        for name in ("log_prob", "logit_difference")
    ]
    sizes = [float(max(both)) for both in apart]
    drop = float((ours.drops() - single.drops()).abs().max())
    cells = [f"`{dtype}`", str(rows), *shares, *(f"{size:.2g}" for size in sizes), f"{drop:.3f}"]
    return f"| {' | '.join(cells)} |"


def measure(name: str, dtype: str, n: int, n_edits: int, sizes: Sequence[int]) -> list[str]:
    """The rows of one number format."""
    low, high = DIGITS[name]
    operands = f"problems.operands={{min:{low},max:{high}}}"
    drawn = ("template=sum_of_two", operands, "problems.n=96", "problems.fit_share=0.3")
    cell = compose(f"model={name}", *drawn, f"dtype={dtype}", "intervention=none", "wandb=disabled")
    model = cell.session.model
    problems = cell.problems("report").take(torch.arange(n).numpy())
    prompts, asked = model.encode(problems), ReferenceAnswers.of_problems(problems)
    site = Site(2 * model.n_layers // 3, "resid_post", "last")
    edits = interchanges(model, prompts, site, n_edits)
    single = answered(model, prompts, asked, edits, 1)
    return [
        row(dtype, rows, answered(model, prompts, asked, edits, rows), single) for rows in sizes
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=DIGITS, default="smollm2_135m")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--problems", type=count, default=64, help="at most 67 (64)")
    parser.add_argument("--edits", type=count, default=8, help="of each problem (8)")
    parser.add_argument("--sizes", type=count, nargs="+", default=[32, 64], help="batch sizes")
    parser.add_argument("--threads", type=count, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for dtype in asked.dtypes:
        for line in measure(asked.model, dtype, asked.problems, asked.edits, asked.sizes):
            print(line, flush=True)


if __name__ == "__main__":
    main()
