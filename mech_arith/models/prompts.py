"""Problems as a model reads them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor

from mech_arith.common.digests import tensor_digest
from mech_arith.common.errors import UserError, unknown


@dataclass(frozen=True)
class Layout:
    """Problems whose prompts have their parts at the same positions.

    Prompts are never padded: a set of problems whose numbers take one or two tokens has several
    layouts, and each is run by itself.
    """

    rows: Int64[Tensor, " rows"]
    """Which of the problems these are."""
    tokens: Int64[Tensor, "rows pos"]
    """What follows the shared prefix. Position 0 is the first token behind it."""
    labels: tuple[str, ...]
    """What stands at each position: the token's text, or an operand's digit such as 'a·100'."""
    spans: dict[str, tuple[int, ...]]
    """Value name -> positions of its tokens."""

    def __len__(self) -> int:
        return len(self.rows)

    def positions(self, name: str) -> tuple[int, ...]:
        """Token positions by name.

        Raises:
            UserError: no such position.
        """
        n_positions = self.tokens.shape[1]
        operands = {i for value, span in self.spans.items() if value.isalpha() for i in span}
        named = {
            "all": tuple(range(n_positions)),
            "first": (0,),
            "last": (n_positions - 1,),
            "operands": tuple(sorted(operands)),
            **self.spans,
            **{f"{value}.last": span[-1:] for value, span in self.spans.items()},
        }
        if name in named:
            return named[name]
        if name.lstrip("-").isdigit() and -n_positions <= int(name) < n_positions:
            return (int(name) % n_positions,)
        raise unknown("position", name, ["each", *named, f"0..{n_positions - 1}"])

    def is_like(self, other: "Layout") -> bool:
        """Whether both have their parts at the same positions."""
        return self.spans == other.spans and self.tokens.shape[1] == other.tokens.shape[1]

    def part(self, rows: slice | Tensor) -> "Layout":
        """Some of the problems."""
        return replace(self, rows=self.rows[rows], tokens=self.tokens[rows])


@dataclass(frozen=True)
class Prompts:
    """n problems as tokens: a prefix that all of them share, and layouts of the rest."""

    prefix: Int64[Tensor, " prefix"]
    """The first tokens of every prompt (few-shot examples); may be empty."""
    layouts: tuple[Layout, ...]

    def __len__(self) -> int:
        return sum(len(layout) for layout in self.layouts)

    def positions(self, name: str) -> tuple[tuple[int, ...], ...]:
        """Token positions by name, for each layout; as many in each.

        Raises:
            UserError: no such position, or not the same number of tokens in all layouts.
        """
        found = tuple(layout.positions(name) for layout in self.layouts)
        widths = sorted({len(indices) for indices in found})
        if len(widths) > 1:
            raise UserError(
                f"expected positions {name!r} with as many tokens in every prompt, got "
                f"{' or '.join(map(str, widths))}; choose last, a value's last token (as in "
                "'a.last'), or operands of one length"
            )
        return found

    def digest(self) -> str:
        """SHA-256 of all tokens."""
        parts = [part for layout in self.layouts for part in (layout.rows, layout.tokens)]
        return tensor_digest(self.prefix, *parts)

    def positions_key(self, name: str) -> list[list[int]]:
        """The positions as plain data."""
        return [list(indices) for indices in self.positions(name)]

    def single(self, name: str) -> tuple[int, str]:
        """Index and label of a position that is the same single token in all prompts.

        -1 and nothing where it is several tokens, or stands elsewhere in some prompts.
        """
        found = set(self.positions(name))
        indices = found.pop()
        if found or len(indices) != 1:
            return -1, ""
        labels = {layout.labels[indices[0]] for layout in self.layouts}
        return indices[0], labels.pop() if len(labels) == 1 else ""

    def joined(self, other: "Prompts") -> "Prompts":
        """These problems and others behind them."""
        layouts = list(self.layouts)
        for layout in other.layouts:
            moved = replace(layout, rows=layout.rows + len(self))
            same = [i for i, known in enumerate(layouts) if known.is_like(layout)]
            if same:
                known = layouts[same[0]]
                rows = torch.cat([known.rows, moved.rows])
                layouts[same[0]] = replace(
                    known, rows=rows, tokens=torch.cat([known.tokens, moved.tokens])
                )
            else:
                layouts.append(moved)
        return Prompts(self.prefix, tuple(layouts))

    def whole(self, layout: Layout) -> Int64[Tensor, "rows all"]:
        """The prompts of some of the problems with their prefix."""
        return torch.cat([self.prefix.expand(len(layout), -1), layout.tokens], dim=1)

    def take(self, n: int) -> "Prompts":
        """The first `n` problems."""
        parts = [layout.part(layout.rows < n) for layout in self.layouts]
        return Prompts(self.prefix, tuple(part for part in parts if len(part)))

    @classmethod
    def uniform(
        cls,
        tokens: Int64[Tensor, "n pos"],
        labels: Sequence[str],
        spans: dict[str, tuple[int, ...]],
    ) -> "Prompts":
        """Prompts of one layout, without a shared prefix."""
        layout = Layout(torch.arange(len(tokens)), tokens, tuple(labels), spans)
        return cls(torch.empty(0, dtype=torch.int64), (layout,))
