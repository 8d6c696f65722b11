import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mech_arith.models.attention import KeysValues, Past, attend


def random(generator, *shape):
    return torch.randn(*shape, generator=generator)


def written_out(query, keys, values, *, scale, softcap, window):
    """Attention of the last positions as the textbook has it, keys repeated for each head."""
    group = query.shape[1] // keys.shape[1]
    keys, values = (part.repeat_interleave(group, dim=1) for part in (keys, values))
    scores = (query @ keys.mT) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    n_new, n_seen = query.shape[2], keys.shape[2]
    at = torch.arange(n_seen - n_new, n_seen)[:, None]
    seen = torch.arange(n_seen)
    visible = (seen <= at) & (seen > at - (window or n_seen))
    return scores.masked_fill(~visible, -torch.inf).softmax(-1) @ values


@given(
    n_prefix=st.integers(0, 4),
    n_clean=st.integers(0, 3),
    n_own=st.integers(0, 2),
    n_new=st.integers(1, 3),
    kv_heads=st.sampled_from([1, 2, 6]),
    softcap=st.sampled_from([None, 2.0]),
    window=st.sampled_from([None, 1, 3, 100]),
    scale=st.sampled_from([None, 0.7]),
    seed=st.integers(0, 10),
)
def test_parts_read_together_are_the_whole(
    n_prefix, n_clean, n_own, n_new, kv_heads, softcap, window, scale, seed
):
    generator = torch.Generator().manual_seed(seed)
    problems, n_edits, heads, width = 3, 4, 6, 8
    rows = problems * n_edits

    def part(groups, positions):
        shape = (groups, kv_heads, positions, width)
        return KeysValues(random(generator, *shape), random(generator, *shape))

    prefix, clean, own, new = (
        part(groups, count)
        for groups, count in ((1, n_prefix), (problems, n_clean), (rows, n_own), (rows, n_new))
    )
    shared = [known.shared() for known, count in ((prefix, n_prefix), (clean, n_clean)) if count]
    query = random(generator, rows, heads, n_new, width)
    options = {"softcap": softcap, "window": window}
    ours = attend(query, new, Past(tuple(shared), own if n_own else None), scale=scale, **options)
    whole = [prefix.keys.expand(rows, -1, -1, -1), clean.keys.repeat_interleave(n_edits, dim=0)]
    values = [prefix.values.expand(rows, -1, -1, -1), clean.values.repeat_interleave(n_edits, 0)]
    theirs = written_out(
        query,
        torch.cat([*whole, own.keys, new.keys], dim=2),
        torch.cat([*values, own.values, new.values], dim=2),
        scale=width**-0.5 if scale is None else scale,
        **options,
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_all_positions_are_seen_where_attention_is_not_causal():
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (random(generator, 2, 3, 4, 5) for _ in range(3))
    ours = attend(query, KeysValues(keys, values), causal=False)
    expected = ((query @ keys.mT) * 5**-0.5).softmax(-1) @ values
    torch.testing.assert_close(ours, expected)


def test_the_last_positions_may_be_asked_for_alone():
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (random(generator, 2, 3, 4, 5) for _ in range(3))
    new = KeysValues(keys, values)
    whole = attend(query, new)
    for last in (1, 2):
        torch.testing.assert_close(attend(query[:, :, -last:], new), whole[:, :, -last:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_type(dtype):
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (random(generator, 2, 3, 4, 5).to(dtype) for _ in range(3))
    prefix = KeysValues(keys[:1], values[:1]).shared()
    assert attend(query, KeysValues(keys, values), Past((prefix,))).dtype == dtype
