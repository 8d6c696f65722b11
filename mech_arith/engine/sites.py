"""Which activations: layers, points, heads and positions, by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.models.base import Model
from mech_arith.models.kinds import ANSWER, EACH, EACH_ANSWER, HEADS_AT, LayerPart
from mech_arith.models.prompts import Layout, Prompts, names_answer


@dataclass(frozen=True)
class Site:
    """A place whose activation is traced or edited: a layer, a point, positions side by side.

    At `z` it may be one query head's part of the point.
    """

    layer: int
    point: str
    position: str
    """The name by which the positions were asked for, or the index of a single one. A layout of
    prompts says which tokens they are; several are put side by side in one vector. `answer.t` is
    where token t of the answer is read, behind the right answer's tokens before it."""
    head: int | None = None
    """The query head, from 0; None for the whole point. In a table it is text, '' for the whole."""

    def select(
        self, activation: Float[Tensor, "n pos d"], layout: Layout, *, width: int
    ) -> Float[Tensor, "n all"]:
        """The site's vectors, out of the whole activation at its layer and point.

        Args:
            activation: at all positions behind the prefix.
            layout: of the prompts.
            width: of the site at one position.
        """
        indices = layout.positions(self.position)
        activation = activation[..., self.entries(width)]
        if len(indices) == activation.shape[1]:
            return activation.flatten(1)
        return activation[:, list(indices)].flatten(1)

    def width(self, model: Model) -> int:
        """Numbers that the site has at one position.

        Raises:
            UserError: the point is not made of the model's heads.
        """
        whole = model.width_at(self.layer, self.point)
        if self.head is None:
            return whole
        if self.point != HEADS_AT or whole % model.n_heads:
            raise UserError(
                f"expected tracing.point={HEADS_AT} of {model.n_heads} heads for a head of "
                f"{model.name}, got {self.point} of {whole} numbers; set tracing.heads=null"
            )
        return whole // model.n_heads

    def entries(self, width: int) -> slice:
        """Of the point's numbers at one position the site's, which are `width` many."""
        if self.head is None:
            return slice(None)
        return slice(self.head * width, (self.head + 1) * width)

    def columns(self) -> dict[str, Any]:
        """The entries of a table's row, by `SITE_COLUMNS`."""
        return {**vars(self), "head": "" if self.head is None else str(self.head)}

    def key(self, *prompts: Prompts) -> list[Any]:
        """The site as plain data for the store: its positions are token indices, per `prompts`."""
        head = [] if self.head is None else [{"head": self.head}]
        positions = (some.positions_key(self.position) for some in prompts)
        return [self.layer, self.point, *head, *positions]

    @property
    def in_answer(self) -> bool:
        """Whether it is where the answer is written, and not in the prompt alone."""
        return names_answer(self.position)

    @property
    def at(self) -> str:
        """Head and positions in words, behind the layer: ' head 3 at 5'; '' for all of both."""
        head = "" if self.head is None else f" head {self.head}"
        return head if self.position == "all" else f"{head} at {self.position}"


SITE_COLUMNS = tuple(field.name for field in fields(Site))
"""Columns of a table that together name a site; the layer comes first."""

WITHIN_LAYER = SITE_COLUMNS[1:]

COMPONENT_COLUMNS = (*SITE_COLUMNS, "component", "rank")
"""Columns that together name a subspace at a site: its first direction, and how many it has."""


def site_of(row: Mapping[Any, Any]) -> Site:
    """The site that a table's row is about; by it rows of several tables are joined.

    A row of an earlier version may lack a column of text, which is then ''.
    """
    found = {name: row.get(name, "") for name in SITE_COLUMNS}
    return Site(**{**found, "head": int(found["head"]) if found["head"] else None})


def component_of(row: Mapping[Any, Any]) -> tuple[Site, int, int]:
    """The site, the component and the rank that a table's row is about.

    A row of an earlier version has no rank, which is then 1.
    """
    return site_of(row), row["component"], row.get("rank", 1)


def select_layers(
    part: LayerPart,
    *,
    n_layers: int,
    start: int | None = None,
    stop: int | None = None,
    step: int = 1,
    numbers: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """The layers of a named part, a third each, with `start` and `stop` instead where given.

    Args:
        part: which third, or all.
        n_layers: of the model.
        start: the first layer.
        stop: the layer behind the last one.
        step: from one layer to the next.
        numbers: the layers themselves; all else is then passed over.

    Raises:
        UserError: there is none, a bound is reversed, or a layer is beyond the model.
    """
    if numbers is None:
        return tuple(_layer_range(part, n_layers, start, stop, step))
    beyond = [number for number in numbers if not 0 <= number < n_layers]
    if not numbers or beyond or len(set(numbers)) < len(numbers):
        raise UserError(
            f"expected layers.list of distinct layers from 0 to {n_layers - 1} (the model's), got "
            f"{list(numbers)}; change it"
        )
    return tuple(sorted(numbers))


def describe_layers(
    part: LayerPart,
    *,
    n_layers: int | None,
    start: int | None = None,
    stop: int | None = None,
    step: int = 1,
    numbers: Sequence[int] | None = None,
) -> str:
    """The same choice in words, for people: 'all', '0-29, every 5th', '1, 3'.

    Of a model that is not loaded yet, whose depth is not known: 'all, start 2, step 5'.
    """
    if numbers is not None:
        return in_runs(sorted(numbers))
    if (start, stop, step) == (None, None, 1):
        return str(part)
    if n_layers is None:
        given = {"start": start, "stop": stop, "step": None if step == 1 else step}
        said = [f"{name} {bound}" for name, bound in given.items() if bound is not None]
        return ", ".join([str(part), *said])
    bounds = _layer_range(part, n_layers, start, stop, 1)
    every = "" if step == 1 else f", every {ordinal(step)}"
    return in_runs(bounds) + every


def in_runs(numbers: Sequence[int]) -> str:
    """Ascending numbers, neighbours as one: '0-5, 8'."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ... 11th, 21st."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def _layer_range(
    part: LayerPart, n_layers: int, start: int | None, stop: int | None, step: int
) -> range:
    third = -(-n_layers // 3)
    first, last = {
        LayerPart.ALL: (0, n_layers),
        LayerPart.EARLY: (0, third),
        LayerPart.MIDDLE: (n_layers // 3, n_layers - n_layers // 3),
        LayerPart.LATE: (n_layers - third, n_layers),
        LayerPart.CENTRE: (n_layers // 2, n_layers // 2 + 1),
    }[part]
    first = first if start is None else start
    last = last if stop is None else stop
    if step < 1 or not 0 <= first < last <= n_layers:
        raise UserError(
            f"expected layers 0 <= start < stop <= {n_layers} (the model's) and step >= 1, got "
            f"start {first}, stop {last}, step {step}; change layers.start, layers.stop"
        )
    return range(first, last, step)


def select_heads(heads: str | Sequence[int] | None, *, n_heads: int) -> tuple[int | None, ...]:
    """The heads that are sites of their own; None alone for the whole point.

    Args:
        heads: 'each', a list of distinct ones from 0, or None.
        n_heads: query heads of the model.

    Raises:
        UserError: a head is beyond the model.
    """
    if heads is None:
        return (None,)
    if isinstance(heads, str):
        return tuple(range(n_heads))
    if max(heads) >= n_heads:
        raise UserError(
            f"expected tracing.heads from 0 to {n_heads - 1} (the model's query heads), got "
            f"{list(heads)}; change it"
        )
    return tuple(sorted(heads))


def describe_heads(heads: str | Sequence[int] | None) -> str | None:
    """The same choice in words, for people: 'each', '0-2, 5'; None for whole points."""
    return heads if heads is None or isinstance(heads, str) else in_runs(sorted(heads))


def answer_positions(asked: Sequence[str], prompts: Prompts) -> list[str]:
    """Indices of the single positions behind the prompt's, where some of the answer are asked for.

    For prompts of one layout.
    """
    if not any(map(names_answer, asked)):
        return []
    (layout,) = prompts.layouts
    shortest, n_prompt = layout.answer_lengths[0], layout.tokens.shape[1]
    return [str(index) for index in range(n_prompt, n_prompt + shortest - 1)]


def name_positions(name: str, prompts: Prompts) -> list[str]:
    """The positions of one site, or of one site each for `each` and `answer.each`.

    Raises:
        UserError: no such position, or none that all prompts have.
    """
    if name == EACH_ANSWER:
        shortest = min(layout.answer_lengths[0] for layout in prompts.layouts)
        return [f"{ANSWER}.{token}" for token in range(max(1, shortest))]
    if name != EACH:
        prompts.positions(name)
        return [name]
    lengths = sorted({layout.tokens.shape[1] for layout in prompts.layouts})
    if len(prompts.layouts) > 1:
        raise UserError(
            "expected prompts with their parts at the same positions for positions 'each', got "
            f"{len(prompts.layouts)} layouts of {' or '.join(map(str, lengths))} tokens; choose "
            "operands of one length, or named positions"
        )
    return [str(index) for index in range(lengths[0])]


def is_asked_for(position: str, asked: str) -> bool:
    """Whether a site's position is one of those that a name asks for."""
    if asked == EACH:
        return position.isdecimal()
    if asked == EACH_ANSWER:
        return position.removeprefix(f"{ANSWER}.").isdecimal() and not position.isdecimal()
    return position == asked
