"""A Transformer whose weights are set by hand, so that what it keeps where is known."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mech_arith.common.digests import tensor_digest
from mech_arith.common.errors import UserError
from mech_arith.models.attention import NOTHING, KeysValues, Past, attend
from mech_arith.models.base import EVERY, Model, Place, Tap, untouched
from mech_arith.models.planted.planted import N_DISTRACTORS, Plant, operand_positions
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet

N_HEADS, D_HEAD, D_MLP = 5, 4, 16
N_DISTRACTOR_WORDS = 32
SHARPNESS = 60.0
"""Scores of what a head looks for are so far above all others: e**-30 of its attention strays."""


@dataclass(frozen=True)
class BlockWeights:
    """One block, in TransformerLens' words; there is no bias and no normalisation."""

    W_Q: Float[Tensor, "heads d d_head"]
    W_K: Float[Tensor, "heads d d_head"]
    W_V: Float[Tensor, "heads d d_head"]
    W_O: Float[Tensor, "heads d_head d"]
    W_in: Float[Tensor, "d d_mlp"]
    W_out: Float[Tensor, "d_mlp d"]

    @classmethod
    def zeros(cls, d_model: int, d_mlp: int = D_MLP) -> "BlockWeights":
        """A block that leaves the stream as it is."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        return cls(
            W_Q=zeros(N_HEADS, d_model, D_HEAD),
            W_K=zeros(N_HEADS, d_model, D_HEAD),
            W_V=zeros(N_HEADS, d_model, D_HEAD),
            W_O=zeros(N_HEADS, D_HEAD, d_model),
            W_in=zeros(d_model, d_mlp),
            W_out=zeros(d_mlp, d_model),
        )

    def single(self) -> "BlockWeights":
        """The same in single precision."""
        return replace(self, **{name: weights.float() for name, weights in vars(self).items()})


@dataclass(frozen=True)
class _Directions:
    """An orthonormal basis of the residual stream, by what each direction is for."""

    place: Float[Tensor, "pos d"]
    number: Float[Tensor, " d"]
    read: Float[Tensor, " d"]
    unread: Float[Tensor, " d"]
    answer: Float[Tensor, " d"]
    scratch: Float[Tensor, "heads d"]
    noise: Float[Tensor, "noise d"]
    spare: Float[Tensor, "spare d"]

    @classmethod
    def drawn(cls, plant: Plant, random: torch.Generator) -> "_Directions":
        d, n_noise = plant.d_model, len(plant.noise)
        gaussian = torch.randn(d, d, generator=random, dtype=torch.float64)
        basis = torch.linalg.qr(gaussian).Q.mT
        n_places = len(plant.labels)
        places, scratch, noise, rest = basis.split(
            [n_places, N_HEADS, n_noise, d - n_places - N_HEADS - n_noise]
        )
        number, read, unread, answer = rest[:4]
        return cls(places, number, read, unread, answer, scratch, noise, rest[4:])


@dataclass(frozen=True)
class Term:
    """What one head brings: the mean over some positions of a coordinate, times a factor."""

    positions: Sequence[int]
    reads: Float[Tensor, " d"]
    factor: float


class PlantedModel(Model):
    """Computes a linear expression by weights that are set, not trained.

    Tokens: `[`, two distractors drawn apart from the problem, a token for each operand's number,
    one `;` or more, and `=`. The answer is regressed at `=`. Blocks are attention with softmax and
    an MLP with ReLU; nothing is normalised, so that what is written stays as it is in all later
    layers. All that follows has directions of its own in a random orthonormal basis.

    - Embedding: the number times `number` for operands, random vectors for distractors, and a
      direction for each position.
    - A head works at one position: there its query meets the keys of the positions that it reads
      with a large product. Everywhere else it rests on `[`, at which there is nothing to read.
    - A head of layer 0 brings the distractors to all positions: coordinates that vary from problem
      to problem and say nothing of it.
    - At a value's layer and position heads bring its operands, the added and the subtracted ones
      apart, into scratch directions; the MLP computes the value from them, writes it along the
      value's direction and clears the scratch.
    - At the reader's layer and `=` heads bring the coordinate of the value that is read and the
      other operands, and the MLP writes the answer in the same way. The unread value's coordinate
      is met by no weight.
    """

    name = "planted"
    n_heads, width_out = N_HEADS, 1
    tolerance = 0.5
    trained_templates, trained_operands = None, None
    device = torch.device("cpu")

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.n_layers, self.d_model, self.causal = plant.n_layers, plant.d_model, plant.causal
        random = torch.Generator().manual_seed(plant.seed)
        self.directions = _Directions.drawn(plant, random)
        self._at = operand_positions(plant.template)
        self._number = plant.operand_sd / plant.sd(next(iter(self._at)))
        self.W_E, self.W_pos = self._embeddings(random)
        self.blocks = [weights.single() for weights in self._blocks()]
        self.W_U = self.directions.answer.float()
        n_problems = (plant.largest + 1) ** len(self._at)
        self._distractors = torch.randint(
            N_DISTRACTOR_WORDS, (n_problems, N_DISTRACTORS), generator=random
        )
        weights = [tensor for block in self.blocks for tensor in vars(block).values()]
        self.digest = tensor_digest(self.W_E, self.W_pos, *weights, self.W_U)

    def _embeddings(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Of tokens (numbers, distractors, `[`, `;`, `=`) and of positions."""
        directions, n_numbers = self.directions, self.plant.largest + 1
        numbers = torch.arange(n_numbers, dtype=torch.float64) * self._number
        # Over the distractors each coordinate has mean 0 and sd 1, and none goes with another.
        words = torch.randn(N_DISTRACTOR_WORDS, D_HEAD, generator=random, dtype=torch.float64)
        words = torch.linalg.qr(words - words.mean(0)).Q * N_DISTRACTOR_WORDS**0.5
        return (
            torch.cat(
                [
                    torch.outer(numbers, directions.number),
                    words[:, : len(directions.noise)] @ directions.noise,
                    torch.zeros(3, self.d_model, dtype=torch.float64),
                ]
            ).float(),
            directions.place.float(),
        )

    def _blocks(self) -> list[BlockWeights]:
        """The weights of all blocks: nothing, and then what the plant asks for."""
        plant, directions = self.plant, self.directions
        blocks = [BlockWeights.zeros(self.d_model) for _ in range(self.n_layers)]
        free = [iter(range(N_HEADS)) for _ in blocks]
        self._spread_noise(blocks[0], next(free[0]))
        gains = {}
        for written, along in ((plant.read, directions.read), (plant.unread, directions.unread)):
            terms = self._operand_terms(plant.coefficients[written.value])
            gains[written.value] = gain = written.sd / plant.sd(written.value)
            heads = [next(free[written.layer]) for _ in terms]
            self._add_step(blocks[written.layer], heads, written.position, terms, gain * along)
        terms, count = self._answer_terms()
        terms.append(Term([plant.read.position], directions.read, count / gains[plant.read.value]))
        heads = [next(free[plant.reader]) for _ in terms]
        end = len(directions.place) - 1
        self._add_step(blocks[plant.reader], heads, end, terms, directions.answer)
        return blocks

    def _answer_terms(self) -> tuple[list[Term], float]:
        """The answer's operands beside those of the value that is read; how often this counts."""
        plant = self.plant
        answer = dict(plant.coefficients[plant.template.expression.answer])
        counts = {answer.pop(name) / k for name, k in plant.coefficients[plant.read.value].items()}
        (count,) = counts  # a value enters the answer with all of its operands alike
        return self._operand_terms(answer), count

    def _operand_terms(self, coefficients: Mapping[str, int]) -> list[Term]:
        """The operands, those that count alike by one head."""
        terms = []
        for factor in sorted(set(coefficients.values())):
            positions = [self._at[name] for name, k in coefficients.items() if k == factor]
            total = factor * len(positions) / self._number
            terms.append(Term(positions, self.directions.number, total))
        return terms

    def _spread_noise(self, block: BlockWeights, head: int) -> None:
        """Bring the distractors' coordinates to every position, each at its own size."""
        noise, n = self.directions.noise, len(self.plant.noise)
        sizes = torch.tensor(self.plant.noise, dtype=torch.float64) * N_DISTRACTORS**0.5
        self._look(block, head, range(len(self.directions.place)), range(1, 1 + N_DISTRACTORS))
        block.W_V[head, :, :n] = noise.mT
        block.W_O[head, :n] = sizes[:, None] * noise

    def _look(
        self, block: BlockWeights, head: int, where: Sequence[int], what: Sequence[int]
    ) -> None:
        """Let a head attend from some positions to some, equally, and from all others to `[`."""
        place, sharp = self.directions.place, SHARPNESS * D_HEAD**0.5
        block.W_Q[head, :, 0] = sharp * place[list(where)].sum(0)
        block.W_K[head, :, 0] = place[list(what)].sum(0)
        block.W_Q[head, :, 1] = sharp / 2 * place.sum(0)
        block.W_K[head, :, 1] = place[0]

    def _add_step(
        self,
        block: BlockWeights,
        heads: Sequence[int],
        position: int,
        terms: Sequence[Term],
        writes: Float[Tensor, " d"],
    ) -> None:
        """Write the sum of the terms along a vector, at one position of one block."""
        total, scratch = self._bring(block, heads, position, terms)
        reads = torch.cat([total[None], scratch])
        gives = torch.cat([writes[None], -scratch])
        # relu(x) - relu(-x) = x
        self._add_neurons(block, torch.cat([reads, -reads]), torch.cat([gives, -gives]))

    def _bring(
        self, block: BlockWeights, heads: Sequence[int], position: int, terms: Sequence[Term]
    ) -> tuple[Float[Tensor, " d"], Float[Tensor, "terms d"]]:
        """Let heads bring terms to a position.

        Returns:
            The direction along which their sum is read, and those into which they are brought.
        """
        scratch = self.directions.scratch[list(heads)]
        factors = torch.tensor([term.factor for term in terms], dtype=torch.float64)
        for head, term, into in zip(heads, terms, scratch, strict=True):
            self._look(block, head, [position], term.positions)
            block.W_V[head, :, 0] = term.reads
            block.W_O[head, 0] = into
        return factors @ scratch, scratch

    def _add_neurons(
        self,
        block: BlockWeights,
        reads: Float[Tensor, "neurons d"],
        gives: Float[Tensor, "neurons d"],
    ) -> None:
        """Neurons behind those that there are: each writes relu(what it reads) times a vector."""
        first = int(block.W_in.any(0).sum())
        neurons = slice(first, first + len(reads))
        block.W_in[:, neurons], block.W_out[neurons] = reads.mT, gives

    @property
    def answers_at(self) -> slice:
        return slice(-1, None)

    def width_at(self, layer: int, point: str) -> int:
        return {"z": N_HEADS * D_HEAD, "mlp_post": self.blocks[layer].W_in.shape[1]}.get(
            point, self.d_model
        )

    def encode(self, problems: ProblemSet, *, digits: int = 0) -> Prompts:
        plant, expression = self.plant, problems.template.expression
        numbers = np.stack([problems.operands[name] for name in expression.operands], axis=1)
        if expression != plant.template.expression or not problems.template.is_symbolic:
            raise UserError(
                f"expected problems {plant.expression} for this planted model, got {expression}; "
                "plant another"
            )
        if numbers.min() < 0 or numbers.max() > plant.largest:
            raise UserError(
                f"expected operands 0..{plant.largest} for this planted model, got "
                f"{numbers.min()}..{numbers.max()}; narrow the ranges"
            )
        n, n_numbers = len(numbers), plant.largest + 1
        which = numbers @ n_numbers ** np.arange(numbers.shape[1])
        start, semicolon, end = n_numbers + N_DISTRACTOR_WORDS + torch.arange(3)
        tokens = torch.cat(
            [
                start.expand(n, 1),
                n_numbers + self._distractors[which],
                torch.from_numpy(numbers),
                semicolon.expand(n, plant.n_pauses),
                end.expand(n, 1),
            ],
            dim=1,
        )
        spans = {
            value: tuple(self._at[name] for name in expression.hypothesis.operands_of(value))
            for value in expression.values
        }
        return Prompts.uniform(tokens, plant.labels, spans)

    def embed(
        self, tokens: Int64[Tensor, "rows new"], *, start: int = 0
    ) -> Float[Tensor, "rows new d"]:
        return self.W_E[tokens] + self.W_pos[start : start + tokens.shape[1]]

    def run_block(
        self,
        layer: int,
        resid_pre: Float[Tensor, "rows new d"],
        *,
        start: int = 0,
        past: Past = NOTHING,
        tap: Tap = untouched,
        at: slice = EVERY,
    ) -> tuple[Float[Tensor, "rows at d"], KeysValues]:
        block = self.blocks[layer]
        query, key, value = (
            torch.einsum("rpd,hdk->rhpk", resid, weights)
            for resid, weights in (
                (resid_pre[:, at], block.W_Q),
                (resid_pre, block.W_K),
                (resid_pre, block.W_V),
            )
        )
        new = KeysValues(key, value)
        z = attend(query, new, past, causal=self.causal).transpose(1, 2).flatten(2)
        attn_out = tap("attn_out", tap("z", z) @ block.W_O.flatten(0, 1))
        resid_mid = tap("resid_mid", resid_pre[:, at] + attn_out)
        neurons = tap("mlp_post", (resid_mid @ block.W_in).relu())
        mlp_out = tap("mlp_out", neurons @ block.W_out)
        return tap("resid_post", resid_mid + mlp_out), new

    def read_out(self, resid: Float[Tensor, "rows at d"]) -> Float[Tensor, "rows at out"]:
        return (resid @ self.W_U)[..., None]

    def full_pass(
        self,
        tokens: Int64[Tensor, "rows pos"],
        taps: Mapping[Place, Callable[[Tensor], Tensor]],
        *,
        last: int = 1,
    ) -> Float[Tensor, "rows last out"]:
        resid = self.embed(tokens)
        for layer in range(self.n_layers):

            def tap(point: str, activation: Tensor, layer: int = layer) -> Tensor:
                return taps.get((layer, point), lambda same: same)(activation)

            resid, _ = self.run_block(layer, tap("resid_pre", resid), tap=tap)
        return self.read_out(resid[:, -last:])
