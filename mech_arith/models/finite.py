"""Activations that a number format does not hold: found where they begin, and said in one line."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.models.base import Model, Place

_WIDER = {torch.float16: "use dtype=bfloat16 or float32", torch.bfloat16: "use dtype=float32"}


def is_finite(activation: Tensor) -> bool:
    """Whether there is neither an infinity nor a NaN in it."""
    return bool(torch.isfinite(activation).all())


def check_finite(model: Model, tokens: Int64[Tensor, "rows pos"]) -> None:
    """Raise a UserError where a whole pass over some prompts has activations that are not finite.

    It names the first layer that has some, or the read-out behind the last layer.
    """
    where = _first_place(model, tokens, {})
    if where is not None:
        raise _error(model, where, "")


def logits_are_finite(model: Model, read: Float[Tensor, "*rows out"]) -> bool:
    """Whether logits are finite; in float32 and wider formats nobody looks.

    Some of a vocabulary may be ruled out by -inf.
    """
    return model.dtype not in _WIDER or is_finite(read.amax(-1))


def not_finite(
    model: Model,
    tokens: Int64[Tensor, "rows pos"],
    edits: Mapping[Place, Callable[[Tensor], Tensor]] | None = None,
) -> UserError:
    """The error for a pass whose last activations are not finite; it names the first such layer.

    Args:
        model: the model under study.
        tokens: of the rows, prefix included.
        edits: what was done to them.
    """
    edits = edits or {}
    places = " and ".join(f"layer {layer}, {point}" for layer, point in edits)
    # The last layer, where only the pass that failed shows it: it ends there.
    where = _first_place(model, tokens, edits) or f"layer {model.n_layers - 1}"
    return _error(model, where, f" under an edit at {places}" if places else "")


def _error(model: Model, where: str, under: str) -> UserError:
    dtype = str(model.dtype).removeprefix("torch.")
    advice = _WIDER.get(model.dtype, "lower intervention.strengths" if under else "check its files")
    return UserError(
        f"expected finite activations of {model.name}, but activations of {where} are not finite "
        f"in {dtype}{under}; {advice}"
    )


def _first_place(
    model: Model, tokens: Tensor, edits: Mapping[Place, Callable[[Tensor], Tensor]]
) -> str | None:
    """Where an activation is not finite first, behind a layer or read out; None for nowhere."""
    found: list[int] = []

    def looking(layer: int) -> Callable[[Tensor], Tensor]:
        place = (layer, "resid_post")

        def look(activation: Tensor) -> Tensor:
            if place in edits:
                activation = edits[place](activation)
            if not is_finite(activation):
                found.append(layer)
            return activation

        return look

    taps = {(layer, "resid_post"): looking(layer) for layer in range(model.n_layers)}
    with torch.inference_mode():
        read = model.full_pass(tokens.to(model.device), {**edits, **taps})
    if found:
        return f"layer {min(found)}"
    return None if logits_are_finite(model, read) else "the read-out"
