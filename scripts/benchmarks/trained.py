"""Workload E: steps of a rotation that is trained, beside what peers need for the same steps.

A step takes a batch of pairs: what each base has within the subspace is replaced by what its source
has there, the answer's log-probability is read, and the subspace is turned towards a larger one.
Peers run source and base as whole prompts in every step, as pyvene's tutorials do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from agreement import Compared
from bound import Clock
from contenders import Unavailable
from jaxtyping import Float, Int64
from rich.table import Table
from torch import Tensor, nn
from workloads import LLAMA, Parts, load

from mech_arith.directions.base import FitTask
from mech_arith.directions.pairs import Pairs, draw_pairs, open_pairs
from mech_arith.directions.rotation import Rotation
from mech_arith.directions.tracing import value_table
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.models.language.prompting import Prompting
from mech_arith.problems import ProblemSet, draw_with_shots
from mech_arith.problems.templates import build_template

LAYER, RANK, BATCH, N, LR = 14, 8, 32, 64, 0.05
BAR = 5.0
"""Times as fast as pyvene's rotated interchange."""
TOLERANCE = 1e-4
"""Between logits under the interchange of the same frame, over the largest of them."""


@dataclass(frozen=True)
class Training:
    """Pairs of one layout, and the same as whole prompts."""

    open: Callable[[], Pairs]
    """The clean passes that the engine makes once."""
    pairs: Pairs
    module: nn.Module
    parts: Parts
    layer: int
    rank: int
    bases: Int64[Tensor, "n all"]
    """Tokens, prefix and wanted answer included."""
    sources: Int64[Tensor, "n whole"]
    options: dict[str, Any]

    @property
    def last(self) -> int:
        """The position of the site."""
        return self.sources.shape[1] - 1

    @property
    def n_read(self) -> int:
        """Positions that are read."""
        return self.bases.shape[1] - self.last

    @property
    def block(self) -> nn.Module:
        """Whose output is the site."""
        return self.module.get_submodule(f"{self.parts.blocks}.{self.layer}")

    def loss(
        self, read: Float[Tensor, "few read vocab"], some: Int64[Tensor, " few"]
    ) -> Float[Tensor, ""]:
        """The mean over some pairs."""
        return self.pairs.objective.losses(read, some).mean()


def prepare_training(directory: Path) -> Training:
    """SmolLM2 on one-digit sums after eight examples; the first operand is what sources change."""
    template = build_template("sum", "a+b")
    problems, shots = draw_with_shots(
        template, n=N, n_shots=8, ranges={"a": (1, 9), "b": (1, 9)}, seed=0
    )
    model = PretrainedModel(load(directory), Prompting("comma", shots, None))
    return training_of(model, problems, layer=LAYER, rank=RANK)


def training_of(model: PretrainedModel, problems: ProblemSet, *, layer: int, rank: int) -> Training:
    """Pairs of problems, all of one layout, that differ in the first value."""
    prompts = model.encode(problems)
    site = Site(layer, "resid_post", "last")
    task = FitTask(Session(model), problems, prompts, site, value_table(problems), (rank,))
    drawn = draw_pairs(task, 0, n=len(problems))
    assert drawn is not None

    def opened() -> Pairs:
        found = open_pairs(task, drawn, holdout=0.25)
        assert found is not None
        return found

    pairs = opened()
    bases, sources = (model.encode(some) for some in (drawn.bases, drawn.sources))
    (of_bases,), (of_sources,) = bases.layouts, sources.layouts
    return Training(
        opened,
        pairs,
        model.network,
        LLAMA,
        layer,
        rank,
        torch.cat([bases.whole(of_bases), pairs.objective.fed], dim=1),
        sources.whole(of_sources),
        {"use_cache": False, "logits_to_keep": 1 + pairs.objective.fed.shape[1]},
    )


class Hooks:
    """`register_forward_hook` on the block: once to read the source, once to edit the base."""

    name = "(forward hooks)"

    def __init__(self, work: Training) -> None:
        self.work = work
        start = torch.randn(work.pairs.width, work.rank, generator=torch.Generator().manual_seed(0))
        self.matrix = start.requires_grad_()
        self.optimizer = torch.optim.Adam([self.matrix], lr=LR)

    def step(self, some: Int64[Tensor, " few"]) -> float:
        """One step; the loss before."""
        loss = self.work.loss(self.logits(some, torch.linalg.qr(self.matrix).Q), some)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def logits(
        self, some: Int64[Tensor, " few"], frame: Float[Tensor, "d k"]
    ) -> Float[Tensor, "few read vocab"]:
        """Under the interchange within the span of the frame."""
        work, at = self.work, self.work.last
        seen: list[Tensor] = []
        with torch.no_grad(), _hooked(work.block, lambda out: seen.append(out[:, at])):
            work.module(work.sources[some], use_cache=False, logits_to_keep=1)

        def interchange(out: Tensor) -> Tensor:
            edited = out.clone()
            edited[:, at] = out[:, at] + (seen[0] - out[:, at]) @ frame @ frame.mT
            return edited

        with _hooked(work.block, interchange):
            return work.module(work.bases[some], **work.options).logits


class Pyvene:
    """`RotatedSpaceIntervention` or its variant of low rank, in an `IntervenableModel`."""

    def __init__(self, work: Training, kind: str = "RotatedSpaceIntervention") -> None:
        try:
            import pyvene  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise Unavailable(f"not installed: {error}") from None
        self.work, self.name = work, f"pyvene {kind}"
        is_low = kind.startswith("LowRank")
        size = {"low_rank_dimension": work.rank} if is_low else {}
        self.rotated = getattr(pyvene, kind)(embed_dim=work.pairs.width, **size)
        if not is_low:
            self.rotated.set_interchange_dim(work.rank)
        self.is_low = is_low
        self.model = pyvene.IntervenableModel(
            {
                "component": f"{work.parts.blocks}[{work.layer}].output",
                "intervention": self.rotated,
            },
            model=work.module,
        )
        self.optimizer = torch.optim.Adam(self.rotated.parameters(), lr=1e-3)

    def step(self, some: Int64[Tensor, " few"]) -> float:
        """One step; the loss before."""
        loss = self.work.loss(self._logits(some), some)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def logits(
        self, some: Int64[Tensor, " few"], frame: Float[Tensor, "d k"]
    ) -> Float[Tensor, "few read vocab"]:
        """Under the interchange within the span of the frame."""
        whole = torch.linalg.qr(frame, mode="complete").Q
        whole[:, : frame.shape[1]] = frame
        self.rotated.rotate_layer.weight = frame if self.is_low else whole
        with torch.no_grad():
            return self._logits(some)

    def _logits(self, some: Int64[Tensor, " few"]) -> Float[Tensor, "few read vocab"]:
        work = self.work
        at = [[[work.last]] * len(some)]
        _, found = self.model(
            base={"input_ids": work.bases[some], **work.options},
            sources=[{"input_ids": work.sources[some], "use_cache": False, "logits_to_keep": 1}],
            unit_locations={"sources->base": (at, at)},
        )
        return found.logits


class Ours:
    """The engine."""

    name = "mech_arith"

    def __init__(self, work: Training) -> None:
        self.rotation = Rotation(work.pairs, rank=work.rank, lr=LR, seed=0)

    def step(self, some: Int64[Tensor, " few"]) -> float:
        """One step; the loss before."""
        return self.rotation.step(some)


def our_logits(
    work: Training, some: Int64[Tensor, " few"], frame: Float[Tensor, "d k"]
) -> Float[Tensor, "few read vocab"]:
    """The engine's, under the interchange within the span of the frame."""
    (suffix,) = work.pairs.suffixes
    # Batches may have been of another order: rows of the suffix are those of the pairs.
    assert torch.equal(suffix.rows, torch.arange(len(suffix)))
    sources = work.pairs.sources[some]
    with torch.no_grad():
        return suffix.read_outs(some, lambda x: x + (sources - x) @ frame @ frame.mT)


def compare(work: Training, peer: Hooks | Pyvene) -> Compared:
    """A peer's logits beside the engine's, under random frames: relative to the largest logit."""
    random, compared = torch.Generator().manual_seed(1), Compared()
    for some in torch.arange(len(work.bases)).split(BATCH)[:2]:
        drawn = torch.randn(work.pairs.width, work.rank, generator=random)
        frame = torch.linalg.qr(drawn).Q
        ours, theirs = our_logits(work, some, frame), peer.logits(some, frame).detach()
        difference = float((ours - theirs).abs().max() / theirs.abs().max())
        compared.largest_difference = max(compared.largest_difference, difference)
        compared.logits += theirs.numel()
        compared.rows += ours[..., 0].numel()
        compared.same_top += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    return compared


@dataclass
class Steps:
    """One tool's speed."""

    tool: str
    steps_per_second: list[float] = field(default_factory=list)
    compared: Compared | None = None
    unavailable: str = ""

    @property
    def median(self) -> float:
        """Steps per second."""
        return median(self.steps_per_second)


@dataclass
class TrainedResult:
    """What was measured."""

    opened_in: float
    """Seconds of the clean passes that the engine makes before the first step."""
    ours: Steps
    peers: list[Steps]

    @property
    def ratio(self) -> float | None:
        """The engine's speed over that of pyvene's rotated interchange."""
        (bar,) = [one for one in self.peers if one.tool == "pyvene RotatedSpaceIntervention"]
        return None if bar.unavailable else self.ours.median / bar.median

    @property
    def agrees(self) -> bool:
        """Whether every logit that was compared agrees."""
        known = [one.compared for one in self.peers if one.compared is not None]
        return all(one.largest_difference <= TOLERANCE for one in known)


def benchmark(work: Training, *, rounds: int, clock: Clock, steps: int = 10) -> TrainedResult:
    """All tools in turns: a step of each peer and some of the engine's in every round."""
    start = clock()
    work.open()
    result = TrainedResult(clock() - start, Steps("mech_arith"), [])
    runners: list[tuple[Any, Steps, int]] = [(Ours(work), result.ours, steps)]
    kinds = ("RotatedSpaceIntervention", "LowRankRotatedSpaceIntervention")
    makers: list[tuple[str, Callable[[], Any]]] = [
        ("(forward hooks)", lambda: Hooks(work)),
        *((f"pyvene {kind}", lambda kind=kind: Pyvene(work, kind)) for kind in kinds),
    ]
    for name, make in makers:
        timing = Steps(name)
        result.peers.append(timing)
        try:
            peer = make()
        except Unavailable as reason:
            timing.unavailable = str(reason)
            continue
        timing.compared = compare(work, peer)
        runners.append((peer, timing, 1))
    for turn in range(rounds):
        some = work.pairs.trained[torch.randperm(len(work.pairs.trained))][:BATCH]
        for runner, timing, count in runners:
            runner.step(some) if turn == 0 else None  # what is made at the first use is not timed
            start = clock()
            for _ in range(count):
                runner.step(some)
            timing.steps_per_second.append(count / (clock() - start))
    return result


def table(result: TrainedResult) -> Table:
    """The result as a table; tools in brackets do not count."""
    shown = Table(title=f"E: das of rank {RANK}, SmolLM2-135M, layer {LAYER}, batch {BATCH}")
    for column in ("tool", "steps/s", "engine is", "largest logit difference"):
        shown.add_column(column, justify="left" if column == "tool" else "right")
    shown.add_row("mech_arith", f"{result.ours.median:.3g}", "", "")
    for one in result.peers:
        if one.unavailable:
            shown.add_row(one.tool, one.unavailable, "", "")
            continue
        apart = "" if one.compared is None else f"{one.compared.largest_difference:.1e}"
        times = f"{result.ours.median / one.median:.1f} x"
        shown.add_row(one.tool, f"{one.median:.3g}", times, apart)
    return shown


def verdict(result: TrainedResult) -> list[str]:
    """Whether what is asked for is met."""
    ratio = result.ratio
    lines = [f"{result.opened_in:.1f} s of clean passes before the engine's first step"]
    if ratio is not None:
        met = "met" if ratio >= BAR else "MISSED"
        lines.append(f"{met}: {ratio:.1f} times pyvene's rotated interchange (asked for: {BAR:g})")
    met = "met" if result.agrees else "MISSED"
    return [*lines, f"{met}: logits of the same frames agree (asked for: {TOLERANCE:g}, relative)"]


@contextmanager
def _hooked(block: nn.Module, change: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    def hook(_module: nn.Module, _args: Any, output: Tensor) -> Tensor | None:
        return change(output)

    handle = block.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
