"""One Transformer block, written out with a tap wherever activations are read or edited.

The functions take the blocks of a TransformerLens bridge (`bridge.blocks[i]`): submodules go by
TransformerLens names, so its own hooks fire too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Tap = Callable[[str, Tensor], Tensor]
"""Called with each point's name and activation; what it returns takes the activation's place."""


EVERY = slice(None)
"""All positions."""


def untouched(_point: str, activation: Tensor) -> Tensor:
    """The tap that changes nothing."""
    return activation


@dataclass(frozen=True)
class KeysValues:
    """What later positions attend to at one layer."""

    keys: Float[Tensor, "n heads pos d_head"]
    values: Float[Tensor, "n heads pos d_head"]

    def append(self, new: "KeysValues") -> "KeysValues":
        """These positions followed by the new ones."""
        return KeysValues(
            torch.cat([self.keys, new.keys], dim=2), torch.cat([self.values, new.values], dim=2)
        )


def attend(
    attention: Any,
    hidden: Float[Tensor, "n pos d"],
    *,
    n_heads: int,
    causal: bool,
    past: KeysValues | None = None,
    at: slice = EVERY,
) -> tuple[Float[Tensor, "n at z"], KeysValues]:
    """The heads' outputs (TransformerLens' `z`, heads side by side), and the keys and values seen.

    With `past`, `hidden` is one new position that attends to all of the past and to itself. `at`
    asks for the outputs of some positions only; in a causal block that may be the last alone.
    """
    query, key, value = (
        project(rows).unflatten(2, (n_heads, -1)).transpose(1, 2)
        for project, rows in (
            (attention.q, hidden[:, at]),
            (attention.k, hidden),
            (attention.v, hidden),
        )
    )
    seen = KeysValues(key, value)
    if past is not None:
        seen = past.append(seen)
    z = scaled_dot_product_attention(
        query, seen.keys, seen.values, is_causal=causal and past is None and at == EVERY
    )
    return z.transpose(1, 2).flatten(2), seen


def pre_norm_block(
    block: Any,
    resid_pre: Float[Tensor, "n pos d"],
    *,
    n_heads: int,
    tap: Tap = untouched,
    past: KeysValues | None = None,
    at: slice = EVERY,
) -> tuple[Float[Tensor, "n at d"], KeysValues]:
    """A causal block that normalises before attention and MLP (GPT-2's order)."""
    z, seen = attend(
        block.attn, block.ln1(resid_pre), n_heads=n_heads, causal=True, past=past, at=at
    )
    attn_out = tap("attn_out", block.attn.o(tap("z", z)))
    resid_mid = tap("resid_mid", resid_pre[:, at] + attn_out)
    mlp_out = tap("mlp_out", block.mlp(block.ln2(resid_mid)))
    return tap("resid_post", resid_mid + mlp_out), seen


def post_norm_block(
    block: Any,
    resid_pre: Float[Tensor, "n pos d"],
    *,
    n_heads: int,
    tap: Tap = untouched,
    at: slice = EVERY,
) -> Float[Tensor, "n at d"]:
    """A bidirectional block that normalises each sum (BERT's order)."""
    z, _ = attend(block.attn, resid_pre, n_heads=n_heads, causal=False, at=at)
    attn_out = tap("attn_out", block.attn.o(tap("z", z)))
    resid_mid = tap("resid_mid", block.ln1(resid_pre[:, at] + attn_out))
    inner = torch.nn.functional.gelu(getattr(block.mlp, "in")(resid_mid))
    mlp_out = tap("mlp_out", block.mlp.out(inner))
    return tap("resid_post", block.ln2(resid_mid + mlp_out))
