"""What the rest of the project may ask of a model under study."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mech_arith.problems import ProblemSet
from mech_arith.solvers.blocks import EVERY, KeysValues, Tap, untouched

POINTS = ("resid_pre", "z", "attn_out", "resid_mid", "mlp_out", "resid_post")
"""Where in a block activations may be read and edited, in the order in which they are computed."""


@dataclass(frozen=True)
class Prompts:
    """Problems as a solver reads them; every prompt has its parts at the same positions."""

    tokens: Int64[Tensor, "n pos"]
    labels: tuple[str, ...]
    """What stands at each position: the character, or an operand's digit such as 'a·100'."""
    spans: dict[str, tuple[int, ...]]
    """Value name -> positions of its tokens."""


@dataclass(frozen=True)
class CleanRun:
    """An unedited pass over a batch of problems: what edited passes start from."""

    resid: tuple[Float[Tensor, "n pos d"], ...]
    """The residual stream before each layer, and after the last."""
    past: tuple[KeysValues, ...]
    """Per layer, what written answer tokens attend to; empty for a solver that writes none."""

    def take(self, n: int) -> "CleanRun":
        """The first `n` problems."""
        return CleanRun(
            tuple(resid[:n] for resid in self.resid),
            tuple(KeysValues(seen.keys[:n], seen.values[:n]) for seen in self.past),
        )

    @classmethod
    def concatenate(cls, runs: Sequence["CleanRun"]) -> "CleanRun":
        """Batches of problems, one after another."""
        return cls(
            tuple(torch.cat(parts) for parts in zip(*(run.resid for run in runs), strict=True)),
            tuple(
                KeysValues(
                    torch.cat([part.keys for part in parts]),
                    torch.cat([part.values for part in parts]),
                )
                for parts in zip(*(run.past for run in runs), strict=True)
            ),
        )


class Solver(ABC):
    """A Transformer that answers arithmetic problems."""

    name: str
    digest: str
    """SHA-256 of the weights."""
    n_layers: int
    n_heads: int
    d_model: int
    tolerance: float
    """An answer within this distance of the right one counts as exact."""
    regresses: bool
    """The answer is a real number, not a written one."""
    trained_templates: tuple[str, ...]
    trained_operands: tuple[int, int]
    device: torch.device
    answers_at: slice
    """The positions whose last residual stream the answer is read from."""

    @abstractmethod
    def encode(self, problems: ProblemSet, *, digits: int = 0) -> Prompts:
        """Problems as tokens.

        Args:
            problems: what to encode.
            digits: of the largest operand that may come; makes prompts of different problem sets
                alike. At least as many as the solver was trained on.

        Raises:
            UserError: the solver cannot read such prompts.
        """

    @abstractmethod
    def embed(self, tokens: Int64[Tensor, "n pos"]) -> Float[Tensor, "n pos d"]:
        """The residual stream before layer 0."""

    @abstractmethod
    def run_block(
        self,
        layer: int,
        resid_pre: Float[Tensor, "n pos d"],
        tap: Tap,
        *,
        at: slice = EVERY,
    ) -> tuple[Float[Tensor, "n at d"], KeysValues | None]:
        """One block on whole prompts, with `tap` at its points but `resid_pre`.

        `at` asks for the output at some positions only.
        """

    @abstractmethod
    def read_answers(
        self, resid: Float[Tensor, "n at d"], past: Sequence[KeysValues]
    ) -> Float[Tensor, " n"]:
        """The answers given the last residual stream at `answers_at`; NaN where not a number.

        `past` holds every layer's keys and values of the same rows, for solvers that write.
        """

    @abstractmethod
    def hook_name(self, layer: int, point: str) -> str:
        """The name under which the TransformerLens bridge reads a point.

        Its `resid_mid` of a causal block is the input of the second norm: a hook that edits there
        does not reach the residual stream, as an edit of `resid_mid` here does.
        """

    @torch.inference_mode()
    def run(
        self, tokens: Int64[Tensor, "n pos"], tap: Callable[[int], Tap] | None = None
    ) -> CleanRun:
        """A pass over whole prompts, with a tap for every layer."""
        resid = [self.embed(tokens)]
        past = []
        for layer in range(self.n_layers):
            layer_tap = tap(layer) if tap is not None else untouched
            resid[-1] = layer_tap("resid_pre", resid[-1])
            after, seen = self.run_block(layer, resid[-1], layer_tap)
            resid.append(after)
            past += [seen] if seen is not None else []
        return CleanRun(tuple(resid), tuple(past))

    def answer(self, tokens: Int64[Tensor, "n pos"]) -> Float[Tensor, " n"]:
        """Answers to whole prompts; NaN where what is written is not a number."""
        clean = self.run(tokens)
        return self.read_answers(clean.resid[-1][:, self.answers_at], clean.past)

    @torch.inference_mode()
    def resume(
        self,
        clean: CleanRun,
        rows: Int64[Tensor, " rows"],
        *,
        layer: int,
        point: str,
        edit: Callable[[Float[Tensor, "rows pos z"]], Float[Tensor, "rows pos z"]],
    ) -> Float[Tensor, " rows"]:
        """Answers when the activation at one point is edited: only the layers above are run.

        The arguments are those of `resume_resid`.
        """
        resid, past = self.resume_resid(clean, rows, layer=layer, point=point, edit=edit)
        return self.read_answers(resid, past)

    @torch.inference_mode()
    def resume_resid(
        self,
        clean: CleanRun,
        rows: Int64[Tensor, " rows"],
        *,
        layer: int,
        point: str,
        edit: Callable[[Float[Tensor, "rows pos z"]], Float[Tensor, "rows pos z"]],
    ) -> tuple[Float[Tensor, "rows at d"], list[KeysValues]]:
        """The last residual stream at `answers_at` when the activation at one point is edited.

        Args:
            clean: the unedited pass.
            rows: for each edited pass, the row of `clean` that it starts from.
            layer: where the edit is made.
            point: where in that layer.
            edit: from the rows' clean activation to the edited one.

        Returns:
            What `read_answers` takes.
        """
        start = layer + 1 if point == "resid_post" else layer
        resid = clean.resid[start][rows]
        past = [KeysValues(seen.keys[rows], seen.values[rows]) for seen in clean.past[:start]]
        if point in ("resid_pre", "resid_post"):
            resid = edit(resid)
        for index in range(start, self.n_layers):
            edited_here = index == layer and point != "resid_pre"
            tap = _tap_at(point, edit) if edited_here else untouched
            last = index == self.n_layers - 1 and not edited_here
            resid, seen = self.run_block(index, resid, tap, at=self.answers_at if last else EVERY)
            past += [seen] if seen is not None else []
        whole = resid.shape[1] == clean.resid[0].shape[1]
        return (resid[:, self.answers_at] if whole else resid), past


def _tap_at(point: str, edit: Callable[[Tensor], Tensor]) -> Tap:
    def tap(at: str, activation: Tensor) -> Tensor:
        return edit(activation) if at == point else activation

    return tap
