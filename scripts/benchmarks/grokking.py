"""The shipped model of modular addition, whose algorithm is known: do the methods find it?

The truth is taken by numpy alone from the weights and the answers: the discrete Fourier transform
of the embedding over the numbers 0 to p-1, and of the logits over a+b-c (Nanda et al. 2023,
"Progress measures for grokking via mechanistic interpretability", arXiv 2301.05217).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from alignments import interchanged, trained
from bars import Row, at_least, shown
from jaxtyping import Float64, Int64
from safetensors.numpy import load_file
from torch import Tensor

from mech_arith.common.paths import checkpoints_dir
from mech_arith.directions.base import FitTask, Subspace, find_method
from mech_arith.directions.tracing import value_table
from mech_arith.engine.capture import capture
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.arithmetic.checkpoints import WEIGHTS
from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.models.base import Model
from mech_arith.problems import ProblemSet, draw, split
from mech_arith.problems.sources import Sources, draw_sources
from mech_arith.problems.templates import build_template

NAME, P = "modular_addition", 97
TEMPLATE = build_template("modular_sum", f"(a+b)%{P}")
SUM = TEMPLATE.expression.answer
MOST = 0.9
"""The key frequencies are the fewest that hold this share."""
FOUND = 0.99
"""The iia from which answers count as following."""
N_PROBLEMS = 1000
OPERAND = Site(0, "resid_pre", "a")
"""The embedding of a."""
BEFORE, BEHIND = Site(0, "resid_mid", "last"), Site(0, "resid_post", "last")
"""At `=`: what attention has brought there, and what the MLP has made of it."""

Shares = Float64[np.ndarray, " frequencies"]
"""Of frequencies 1, 2, ..., (p-1)/2, in shares of all variance."""


def spectrum(readings: Float64[np.ndarray, "p d"]) -> Shares:
    """Each frequency's share of the variance over the numbers 0 to p-1 (Parseval)."""
    centred = readings - readings.mean(0)
    power = (np.abs(np.fft.rfft(centred, axis=0)) ** 2).sum(1)[1:]
    return power / power.sum()


def key_frequencies(shares: Shares) -> list[int]:
    """The fewest that hold `MOST`, strongest first."""
    order = np.argsort(-shares)
    n = int(np.searchsorted(np.cumsum(shares[order]), MOST)) + 1
    return [int(k) + 1 for k in order[:n]]


def embedding() -> Float64[np.ndarray, "p d"]:
    """Of the numbers, from the file of weights."""
    weights = load_file(checkpoints_dir() / NAME / WEIGHTS)
    return weights["tok_embed.weight"][:P].astype(np.float64)


def planes(readings: Float64[np.ndarray, "p d"], n: int) -> list[float]:
    """The largest share of one frequency in each of the first n principal components."""
    centred = readings - readings.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:n]
    return [float(spectrum(centred @ axis[:, None]).max()) for axis in axes]


@cache
def all_logits() -> Float64[np.ndarray, "problems p"]:
    """Of every answer to each of the p^2 problems, centred."""
    a, b = np.divmod(np.arange(P * P), P)
    tokens = torch.from_numpy(np.stack([a, b, np.full(P * P, P)], axis=1))
    logits = load_arithmetic(NAME).full_pass(tokens, {})[:, 0, :P].double().numpy()
    return logits - logits.mean(1, keepdims=True)


def logit_spectrum() -> Shares:
    """The shares of cos(2 pi k (a+b-c) / p) in the logit of c; of other functions is the rest."""
    logits = all_logits()
    a, b = np.divmod(np.arange(P * P), P)
    angles = 2 * np.pi * ((a + b)[:, None] - np.arange(P)) / P
    frequencies = range(1, P // 2 + 1)
    along = [(logits * np.cos(k * angles)).sum(1) for k in frequencies]
    return 2 / P * np.square(along).sum(1) / np.square(logits).sum()


def predicted(
    sums: Mapping[int, Int64[np.ndarray, " n"]], shares: Shares
) -> Int64[np.ndarray, " n"]:
    """The answers of a model whose frequencies k each vote for a sum of their own.

    The answer c has the largest sum over k of sqrt(share of k) cos(2 pi k (sum of k - c) / p).
    """
    votes = [
        shares[k - 1] ** 0.5 * np.cos(2 * np.pi * k * (of_k[:, None] - np.arange(P)) / P)
        for k, of_k in sums.items()
    ]
    return np.sum(votes, axis=0).argmax(1)


@dataclass(frozen=True)
class Grokked:
    """What is found with one seed of problems."""

    frequencies: dict[str, list[int]]
    """That `fourier` chooses, of each value where it is written."""
    components: list[float]
    """The largest share of one frequency in each of the first principal components of a, as it is
    read at all numbers."""
    pairs: list[int]
    """That frequency."""
    iia: dict[str, float]
    """Of what is interchanged."""
    floor: float
    ceiling: float
    das_overlap: float
    """The mean squared cosine between the subspace that das finds and the Fourier one."""
    pca_overlap: float
    """Of the first principal components, likewise."""
    stayed: dict[int, float]
    """Of an interchange of one frequency: the share of answers that stay."""
    followed: dict[int, float]
    """The same: the share that become the ones with the source's value."""
    as_predicted: dict[int, float]
    """The same: the share that is what the votes of the frequencies say."""


def splits(seed: int, n_problems: int) -> tuple[ProblemSet, ProblemSet]:
    """Problems that directions are fitted on, and others that numbers are read on."""
    drawn = draw(TEMPLATE, n=n_problems, ranges=dict.fromkeys("ab", (0, P - 1)), seed=seed)
    return split(drawn, fit_share=0.5, seed=seed)


def subspace(model: Model, fit: ProblemSet, site: Site, method: str, rank: int) -> Subspace:
    """What a method finds at a site."""
    known = {"modulus": P, "periods": (), "line": False, "circles": rank // 2}
    found = find_method(method, rank, known if method == "fourier" else {}, ranks=(rank,))
    session, prompts, values = Session(model), model.encode(fit), value_table(fit)
    fitter = found.fitter(FitTask(session, fit, prompts, site, values, (rank,)))
    for layout, captured in capture(session, prompts, [site]):
        fitter.update(captured[site], values[layout.rows])
    return fitter.fit()


def frame_of(found: Subspace, value: str, rank: int) -> Subspace:
    """The part of a value."""
    return found.part(found.frame(TEMPLATE.expression.values.index(value), rank))


def frequencies_of(frame: Subspace) -> list[int]:
    """Of the circles that its directions were found for, in their order."""
    assert frame.harmonics is not None
    every = range(len(frame.directions))
    return [round(P / period) for period in frame.harmonics.periods_of(every)]


def component_spectra(model: Model, found: Subspace) -> list[Shares]:
    """Of the coordinate on each direction, as a function of a."""
    numbers = np.arange(P)
    problems = ProblemSet.of(TEMPLATE, {"a": numbers, "b": np.zeros_like(numbers)})
    ((layout, captured),) = capture(Session(model), model.encode(problems), [OPERAND])
    coordinates = found.project(captured[OPERAND])[layout.rows.argsort()].numpy()
    return [spectrum(column[:, None]) for column in coordinates.T]


def measured(seed: int, *, n_problems: int = N_PROBLEMS) -> Grokked:
    """Everything, with problems of one seed."""
    model, keys = load_arithmetic(NAME), key_frequencies(spectrum(embedding()))
    fit, report = splits(seed, n_problems)
    rank = 2 * len(keys)
    where = {
        "a": (OPERAND, "a"),
        "b": (Site(0, "resid_pre", "b"), "b"),
        "sum": (BEHIND, SUM),
        "sum before the MLP": (BEFORE, SUM),
    }
    frames = {
        name: frame_of(subspace(model, fit, site, "fourier", rank), value, rank)
        for name, (site, value) in where.items()
    }
    sources = {value: sources_of(report, value, seed) for _, value in where.values()}
    whole = torch.eye(model.d_model, dtype=torch.float64)
    components = subspace(model, fit, OPERAND, "pca", rank)
    spectra = component_spectra(model, components)
    of_a, a = frames["a"], sources["a"]
    das = trained(_task(model, fit, rank), "a", {"values": ("a",)})
    others = _circles(of_a, range(1, len(keys)))
    iia = {
        name: iia_of(model, sources[value], site, frames[name].directions)
        for name, (site, value) in where.items()
    }
    iia |= {
        "pca": iia_of(model, a, OPERAND, components.directions),
        "das": iia_of(model, a, OPERAND, das),
        "all but the strongest": iia_of(model, a, OPERAND, others),
    }
    stayed, followed, as_predicted = _one_by_one(model, a, of_a)
    return Grokked(
        frequencies={name: frequencies_of(frame) for name, frame in frames.items()},
        components=[float(shares.max()) for shares in spectra],
        pairs=[int(shares.argmax()) + 1 for shares in spectra],
        iia=iia,
        floor=float((a.other[0] == a.expected).double().mean()),
        ceiling=iia_of(model, a, OPERAND, whole),
        das_overlap=_overlap(das, of_a.directions),
        pca_overlap=_overlap(components.directions, of_a.directions),
        stayed=stayed,
        followed=followed,
        as_predicted=as_predicted,
    )


def _task(model: Model, fit: ProblemSet, rank: int) -> FitTask:
    prompts = model.encode(fit)
    return FitTask(Session(model), fit, prompts, OPERAND, value_table(fit), (rank,))


def sources_of(report: ProblemSet, value: str, seed: int) -> Sources:
    """Problems with another value, one for each."""
    sources = draw_sources(report, value, m=1, n_shuffles=1, seed=seed)
    assert sources is not None
    return sources


def iia_of(model: Model, sources: Sources, site: Site, frame: Float64[Tensor, "k width"]) -> float:
    """Share of the answers that become the ones with the source's value."""
    numbers = interchanged(model, sources, site, frame)
    return float((numbers == sources.expected[0]).double().mean())


def _overlap(one: Float64[Tensor, "k width"], two: Float64[Tensor, "k width"]) -> float:
    """The mean squared cosine between two subspaces of one rank: 1 for the same."""
    return float((one @ two.mT).square().mean(0).sum())


def _circles(frame: Subspace, places: Sequence[int]) -> Float64[Tensor, "k width"]:
    """The directions of some of the circles, by their place in the frame."""
    return frame.directions[[2 * place + part for place in places for part in (0, 1)]]


def _one_by_one(
    model: Model, sources: Sources, frame: Subspace
) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
    """What an interchange of one frequency does, for each in turn: see `Grokked`."""
    keys, shares = frequencies_of(frame), logit_spectrum()
    base = sources.base.values[SUM]
    other = sources.expected[0].long().numpy()
    stayed, followed, as_predicted = {}, {}, {}
    for place, k in enumerate(keys):
        moved = _circles(frame, [place])
        answers = interchanged(model, sources, OPERAND, moved).long().numpy()
        votes = {key: other if key == k else base for key in keys}
        stayed[k] = float((answers == base).mean())
        followed[k] = float((answers == other).mean())
        as_predicted[k] = float((answers == predicted(votes, shares)).mean())
    return stayed, followed, as_predicted


def truth_rows() -> list[Row]:
    """What is known of the model without any method."""
    of_numbers, logits = spectrum(embedding()), logit_spectrum()
    each = planes(embedding(), 2 * len(key_frequencies(of_numbers)))
    answers = all_logits().argmax(1)
    a, b = np.divmod(np.arange(P * P), P)
    return [
        at_least(
            f"problems of (a+b)%{P} answered right", int((answers == (a + b) % P).sum()), P * P
        ),
        shown("key frequencies of the embedding (DFT)", P // 2, _said(of_numbers)),
        shown("key frequencies of the logits (DFT)", P // 2, _said(logits)),
        at_least(
            f"principal components of the embedding with {MOST} of one frequency",
            sum(share >= MOST for share in each),
            len(each),
            note=f", least {min(each):.2f}",
        ),
    ]


def _said(shares: Shares) -> str:
    return ", ".join(f"{k}: {shares[k - 1]:.2f}" for k in key_frequencies(shares))


def rows_of(found: Sequence[Grokked]) -> list[Row]:
    """What the methods found, against the transforms."""
    n = len(found)
    keys, of_logits = map(key_frequencies, (spectrum(embedding()), logit_spectrum()))
    rank = 2 * len(keys)

    def chosen(name: str, wanted: list[int]) -> Row:
        right = sum(set(one.frequencies[name]) == set(wanted) for one in found)
        first = " ".join(map(str, found[0].frequencies[name]))
        return at_least(f"fourier chooses them for {name}", right, n, note=f", {first}")

    def follows(label: str, name: str) -> Row:
        some = [one.iia[name] for one in found]
        hits = sum(share >= FOUND for share in some)
        return at_least(f"iia of {label} >= {FOUND}", hits, n, note=f", least {min(some):.3f}")

    def measured_as(label: str, numbers: Sequence[float]) -> Row:
        return shown(label, n, f"{min(numbers):.3f} to {max(numbers):.3f}")

    pairs = " ".join(map(str, found[0].pairs))
    shares = np.median([one.components for one in found], axis=0)
    rows = [
        chosen("a", keys),
        chosen("b", keys),
        chosen("sum", of_logits),
        shown(f"pca of a: the frequency of each of {rank} components", n, pairs),
        shown("its share of each (median)", n, " ".join(f"{share:.2f}" for share in shares)),
        measured_as("overlap of pca with the Fourier subspace", [one.pca_overlap for one in found]),
        follows(f"the Fourier subspace of a, rank {rank}", "a"),
        follows(f"the Fourier subspace of b, rank {rank}", "b"),
        follows("that of the sum, behind the MLP", "sum"),
        measured_as(
            "iia of that of the sum, before the MLP",
            [one.iia["sum before the MLP"] for one in found],
        ),
        follows(f"pca of a, rank {rank}", "pca"),
        follows(f"das of a, rank {rank}", "das"),
        measured_as("overlap of das with the Fourier subspace", [one.das_overlap for one in found]),
        measured_as(
            "iia of all frequencies but the first",
            [one.iia["all but the strongest"] for one in found],
        ),
        measured_as("floor: another source's answer", [one.floor for one in found]),
        measured_as("ceiling: the whole activation", [one.ceiling for one in found]),
    ]
    for k in keys:
        rows += [
            measured_as(
                f"frequency {k} alone: answers that stay", [one.stayed[k] for one in found]
            ),
            measured_as(f"frequency {k} alone: iia", [one.followed[k] for one in found]),
            measured_as(
                f"frequency {k} alone: answers as the frequencies vote",
                [one.as_predicted[k] for one in found],
            ),
        ]
    return rows


def grokking_rows(seeds: Sequence[int]) -> list[Row]:
    """The shipped model, with problems of these seeds."""
    return [*truth_rows(), *rows_of([measured(seed) for seed in seeds])]
