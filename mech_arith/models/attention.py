"""Attention of new positions to what is already known of earlier ones, without copying it.

An edited pass runs a few positions of many rows: every edit of every problem is a row. Keys and
values that rows have in common are kept once: those of the few-shot prefix for all rows, those of
the clean positions before an edit for all edits of a problem. Scores against each are one large
matrix product; a softmax over all of them together makes the result exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class KeysValues:
    """What positions offer to attention at one layer, row by row."""

    keys: Float[Tensor, "rows kv_heads pos d_head"]
    values: Float[Tensor, "rows kv_heads pos d_value"]

    def append(self, new: "KeysValues") -> "KeysValues":
        """These positions followed by the new ones."""
        return KeysValues(
            torch.cat([self.keys, new.keys], dim=2), torch.cat([self.values, new.values], dim=2)
        )

    def at(self, positions: slice) -> "KeysValues":
        """Some of the positions."""
        return KeysValues(self.keys[:, :, positions], self.values[:, :, positions])

    def shared(self) -> "Shared":
        """The same in the order in which many rows read it."""
        return Shared(
            self.keys.transpose(0, 1).contiguous(), self.values.transpose(0, 1).contiguous()
        )


@dataclass(frozen=True)
class Shared:
    """Keys and values of `groups` that equally many rows each have in common.

    One group is common to all rows (the prefix); a group per problem is common to its edits. Rows
    of one group stand together.
    """

    keys: Float[Tensor, "kv_heads groups pos d_head"]
    values: Float[Tensor, "kv_heads groups pos d_value"]

    def before(self, position: int) -> "Shared":
        """The positions before one."""
        return Shared(self.keys[:, :, :position], self.values[:, :, :position])

    def of(self, groups: Tensor) -> KeysValues:
        """A row of its own for each of the groups listed."""
        return KeysValues(
            self.keys[:, groups].transpose(0, 1), self.values[:, groups].transpose(0, 1)
        )


@dataclass(frozen=True)
class Past:
    """What new positions attend to at one layer besides themselves, in order of position."""

    shared: tuple[Shared, ...] = ()
    """The prefix, then the clean positions of each problem, where there are any."""
    own: KeysValues | None = None
    """Earlier positions of each row by itself."""


NOTHING = Past()


def attend(
    query: Float[Tensor, "rows heads new d_head"],
    new: KeysValues,
    past: Past = NOTHING,
    *,
    scale: float | None = None,
    causal: bool = True,
    softcap: float | None = None,
    window: int | None = None,
) -> Float[Tensor, "rows heads new d_value"]:
    """What each head reads: the values seen, weighted by softmax of query times key.

    Args:
        query: of the last of the new positions, or all.
        new: keys and values of the new positions; fewer heads than the query's are each read by
            several (grouped-query attention).
        past: what was there before.
        scale: of the scores; 1 / sqrt(d_head) for None.
        causal: a position attends to itself and earlier ones, not to later ones.
        softcap: scores go through softcap * tanh(score / softcap).
        window: a position sees itself and this many less one before it; all for None.
    """
    own = new if past.own is None else past.own.append(new)
    n_new, n_own = query.shape[2], own.keys.shape[2]
    n_seen = sum(part.keys.shape[2] for part in past.shared) + n_own
    windowed = window is not None and n_seen > window
    if not past.shared and softcap is None and not windowed:
        one_pass = causal and n_new == n_own
        masked = causal and not one_pass and n_new > 1
        mask = _visible(n_new, n_own, None, query.device) if masked else None
        return scaled_dot_product_attention(
            query, own.keys, own.values, mask, is_causal=one_pass, scale=scale, enable_gqa=True
        )
    by_head = _by_kv_head(query * (scale or query.shape[-1] ** -0.5), own.keys.shape[1])
    scores = torch.cat([*_scores(by_head, past.shared), _own_scores(by_head, own)], dim=-1)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if causal and (n_new > 1 or windowed):
        visible = _visible(n_new, n_seen, window, query.device)
        scores = scores.unflatten(2, (-1, n_new)).masked_fill(~visible, -torch.inf).flatten(2, 3)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return _from_kv_head(_read(weights, past.shared, own), query.shape[1], n_new)


def _visible(
    n_new: int, n_seen: int, window: int | None, device: torch.device
) -> Bool[Tensor, "new seen"]:
    """Which of all positions each of the last `n_new` attends to."""
    at = torch.arange(n_seen - n_new, n_seen, device=device)[:, None]
    seen = torch.arange(n_seen, device=device)
    visible = seen <= at
    return visible if window is None else visible & (seen > at - window)


def _by_kv_head(
    query: Float[Tensor, "rows heads new d"], kv_heads: int
) -> Float[Tensor, "kv_heads rows group_new d"]:
    """Queries that read the same keys, side by side."""
    grouped = query.unflatten(1, (kv_heads, -1)).transpose(0, 1)
    return grouped.flatten(2, 3).contiguous()


def _from_kv_head(
    read: Float[Tensor, "kv_heads rows group_new d"], heads: int, n_new: int
) -> Float[Tensor, "rows heads new d"]:
    return read.unflatten(2, (-1, n_new)).transpose(0, 1).reshape(-1, heads, n_new, read.shape[-1])


def _scores(
    query: Float[Tensor, "kv_heads rows group_new d"], shared: tuple[Shared, ...]
) -> Iterator[Float[Tensor, "kv_heads rows group_new seen"]]:
    for part in shared:
        kv_heads, groups, seen, _ = part.keys.shape
        product = query.reshape(kv_heads * groups, -1, query.shape[-1]) @ part.keys.flatten(0, 1).mT
        yield product.view(*query.shape[:3], seen)


def _own_scores(
    query: Float[Tensor, "kv_heads rows group_new d"], own: KeysValues
) -> Float[Tensor, "kv_heads rows group_new seen"]:
    return query @ own.keys.transpose(0, 1).mT


def _read(
    weights: Float[Tensor, "kv_heads rows group_new seen"],
    shared: tuple[Shared, ...],
    own: KeysValues,
) -> Float[Tensor, "kv_heads rows group_new d"]:
    """The weighted values of all parts, summed."""
    sizes = [part.keys.shape[2] for part in shared]
    *parts, last = weights.split([*sizes, own.keys.shape[2]], dim=-1)
    read = last @ own.values.transpose(0, 1)
    for part, weight in zip(shared, parts, strict=True):
        kv_heads, groups, seen, width = part.values.shape
        product = weight.reshape(kv_heads * groups, -1, seen) @ part.values.flatten(0, 1)
        read += product.view(*weight.shape[:3], width)
    return read


class NotReplayableError(Exception):
    """A model's blocks cannot be run by themselves; the message says why."""
