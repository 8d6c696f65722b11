"""One Transformer block, written out with a tap wherever activations are read or edited.

The functions take the blocks of a TransformerLens bridge (`bridge.blocks[i]`), by whose names
submodules go, and run the network's own modules behind them (`plain`).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mech_arith.models.attention import NOTHING, KeysValues, Past, attend
from mech_arith.models.base import EVERY, Tap, untouched


def plain(component: Any) -> Any:
    """The network's own module behind a component of the bridge; a module of no bridge itself.

    A component calls hooks, and its norms go through memory once for each of their seven steps.
    """
    return getattr(component, "original_component", component)


def attention(
    module: Any,
    hidden: Float[Tensor, "rows new d"],
    *,
    n_heads: int,
    causal: bool,
    past: Past = NOTHING,
    at: slice = EVERY,
) -> tuple[Float[Tensor, "rows at z"], KeysValues]:
    """The heads' outputs (TransformerLens' `z`, heads side by side), and the new keys and values.

    `at` asks for the outputs of some positions only; in a causal block those must be the last few.
    """
    query, key, value = (
        project(rows).unflatten(2, (n_heads, -1)).transpose(1, 2)
        for project, rows in (
            (plain(module.q), hidden[:, at].contiguous()),
            (plain(module.k), hidden),
            (plain(module.v), hidden),
        )
    )
    new = KeysValues(key, value)
    z = attend(query, new, past, causal=causal)
    return z.transpose(1, 2).flatten(2), new


def pre_norm_block(
    block: Any,
    resid_pre: Float[Tensor, "rows new d"],
    *,
    n_heads: int,
    causal: bool = True,
    past: Past = NOTHING,
    tap: Tap = untouched,
    at: slice = EVERY,
) -> tuple[Float[Tensor, "rows at d"], KeysValues]:
    """A block that normalises before attention and MLP (GPT-2's order)."""
    z, new = attention(
        block.attn, plain(block.ln1)(resid_pre), n_heads=n_heads, causal=causal, past=past, at=at
    )
    attn_out = tap("attn_out", plain(block.attn.o)(tap("z", z)))
    resid_mid = tap("resid_mid", resid_pre[:, at] + attn_out)
    mlp_out = tap("mlp_out", _mlp(plain(block.mlp), plain(block.ln2)(resid_mid), tap))
    return tap("resid_post", resid_mid + mlp_out), new


def _mlp(mlp: Any, hidden: Float[Tensor, "rows at d"], tap: Tap) -> Tensor:
    """The output of an MLP, by the names of a native network's."""
    inner = mlp.act(plain(mlp.fc_in)(hidden))
    return plain(mlp.fc_out)(tap("mlp_post", inner))


def post_norm_block(
    block: Any,
    resid_pre: Float[Tensor, "rows pos d"],
    *,
    n_heads: int,
    tap: Tap = untouched,
    at: slice = EVERY,
) -> tuple[Float[Tensor, "rows at d"], KeysValues]:
    """A bidirectional block that normalises each sum (BERT's order)."""
    z, new = attention(block.attn, resid_pre, n_heads=n_heads, causal=False, at=at)
    attn_out = tap("attn_out", plain(block.attn.o)(tap("z", z)))
    resid_mid = tap("resid_mid", plain(block.ln1)(resid_pre[:, at] + attn_out))
    inner = torch.nn.functional.gelu(plain(getattr(block.mlp, "in"))(resid_mid))
    mlp_out = tap("mlp_out", plain(block.mlp.out)(tap("mlp_post", inner)))
    return tap("resid_post", plain(block.ln2)(resid_mid + mlp_out)), new
