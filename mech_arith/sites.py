"""Which activations: layers, points and positions, by name."""

from dataclasses import dataclass
from enum import StrEnum

from jaxtyping import Float
from torch import Tensor

from mech_arith.errors import UserError, unknown
from mech_arith.solvers.base import POINTS, Prompts


class LayerPart(StrEnum):
    """A named stretch of a model's layers."""

    ALL = "all"
    EARLY = "early"
    MIDDLE = "middle"
    LATE = "late"


@dataclass(frozen=True)
class Site:
    """A place whose activation is traced or edited: a layer, a point, positions side by side."""

    layer: int
    point: str
    position: str
    """The name by which the positions were asked for, or the index of a single one."""
    indices: tuple[int, ...]
    """Token positions; several are concatenated into one vector."""

    def select(self, activation: Float[Tensor, "n pos d"]) -> Float[Tensor, "n width"]:
        """The site's vectors, out of the whole activation at its layer and point."""
        if len(self.indices) == activation.shape[1]:
            return activation.flatten(1)
        return activation[:, list(self.indices)].flatten(1)

    def add(
        self, activation: Float[Tensor, "n pos d"], change: Float[Tensor, "n width"]
    ) -> Float[Tensor, "n pos d"]:
        """A new activation with `change` added at the site; all else as it was, bit for bit."""
        edited = activation.clone()
        positions = list(self.indices)
        edited[:, positions] += change.unflatten(1, (len(positions), -1))
        return edited


def layer_part(name: str) -> LayerPart:
    """The part of that name.

    Raises:
        UserError: there is none.
    """
    try:
        return LayerPart(name)
    except ValueError:
        raise unknown("layers.part", name, LayerPart) from None


def select_layers(
    part: LayerPart, *, n_layers: int, start: int | None, stop: int | None, step: int
) -> range:
    """The layers of a named part, a third each, with `start` and `stop` instead where given.

    Raises:
        UserError: the range is empty, reversed, or beyond the model.
    """
    third = -(-n_layers // 3)
    first, last = {
        LayerPart.ALL: (0, n_layers),
        LayerPart.EARLY: (0, third),
        LayerPart.MIDDLE: (n_layers // 3, n_layers - n_layers // 3),
        LayerPart.LATE: (n_layers - third, n_layers),
    }[part]
    first = first if start is None else start
    last = last if stop is None else stop
    if step < 1 or not 0 <= first < last <= n_layers:
        raise UserError(
            f"expected layers 0 <= start < stop <= {n_layers} (the model's) and step >= 1, got "
            f"start {first}, stop {last}, step {step}; change layers.start, layers.stop"
        )
    return range(first, last, step)


def check_point(point: str) -> None:
    """Raise a UserError unless `point` is the name of one."""
    if point not in POINTS:
        raise unknown("point", point, POINTS)


def resolve_positions(name: str, prompts: Prompts) -> list[tuple[str, tuple[int, ...]]]:
    """Token positions by name: one entry, or one per position for `each`.

    Raises:
        UserError: no such position.
    """
    n_positions = prompts.tokens.shape[1]
    spans = prompts.spans
    if name == "each":
        return [(str(index), (index,)) for index in range(n_positions)]
    operands = sorted({i for value, span in spans.items() if value.isalpha() for i in span})
    named = {
        "all": tuple(range(n_positions)),
        "first": (0,),
        "last": (n_positions - 1,),
        "operands": tuple(operands),
        **spans,
    }
    if name in named:
        return [(name, named[name])]
    if name.lstrip("-").isdigit() and -n_positions <= int(name) < n_positions:
        index = int(name) % n_positions
        return [(str(index), (index,))]
    raise unknown("position", name, ["each", *named, f"0..{n_positions - 1}"])
