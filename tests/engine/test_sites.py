import pytest
import torch

from mech_arith.common.digests import json_digest
from mech_arith.common.errors import UserError
from mech_arith.engine.sites import (
    SITE_COLUMNS,
    Site,
    component_of,
    describe_layers,
    name_positions,
    ordinal,
    select_heads,
    select_layers,
    site_of,
)
from mech_arith.evidence.columns import SITE
from mech_arith.models.kinds import LayerPart
from mech_arith.models.prompts import Layout, Prompts
from tests.tiny import tiny_decoder

SPANS = {"a": (0,), "b": (2,), "c": (3,), "b-c": (2, 3), "a-(b-c)": (0, 1, 2, 3)}
PROMPTS = Prompts.uniform(torch.zeros(2, 5, dtype=torch.int64), ("a", "-", "b", "c", "="), SPANS)
LONGER = Layout(
    torch.tensor([2]),
    torch.zeros(1, 6, dtype=torch.int64),
    ("a", "a", "-", "b", "c", "="),
    {"a": (0, 1), "b": (3,), "c": (4,), "b-c": (3, 4), "a-(b-c)": (0, 1, 2, 3, 4)},
)
BOTH = Prompts(PROMPTS.prefix, (*PROMPTS.layouts, LONGER))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all", (0, 1, 2, 3, 4)),
        ("first", (0,)),
        ("last", (4,)),
        ("operands", (0, 2, 3)),
        ("b-c", (2, 3)),
        ("b-c.last", (3,)),
        ("3", (3,)),
        ("-1", (4,)),
    ],
)
def test_positions_by_name(name, expected):
    assert name_positions(name, PROMPTS) == [name]
    assert PROMPTS.positions(name) == (expected,)


def test_each_position_is_a_site():
    assert name_positions("each", PROMPTS) == ["0", "1", "2", "3", "4"]
    with pytest.raises(UserError, match="'each', got 2 layouts of 5 or 6 tokens; choose operands"):
        name_positions("each", BOTH)


def test_positions_of_several_layouts_have_equally_many_tokens():
    assert BOTH.positions("b-c") == ((2, 3), (3, 4))
    assert BOTH.positions("last") == ((4,), (5,))
    assert BOTH.positions("a.last") == ((0,), (1,))
    for name in ("all", "a", "operands"):
        with pytest.raises(UserError, match=f"positions '{name}' with as many tokens .* 'a.last'"):
            name_positions(name, BOTH)


def test_prompts_are_parted_by_problem():
    assert len(BOTH) == 3
    first = BOTH.take(2)
    assert [layout.rows.tolist() for layout in first.layouts] == [[0, 1]]
    assert BOTH.digest() != first.digest()
    assert BOTH.single("last") == (-1, "")
    assert PROMPTS.single("last") == (4, "=")
    assert PROMPTS.single("b-c") == (-1, "")


@pytest.mark.parametrize("name", ["b+c", "5", "-6", ""])
def test_unknown_positions_list_the_valid_ones(name):
    listed = r"unknown position .* each, all, first, last, operands, a.*, answer, answer\.each, "
    with pytest.raises(UserError, match=listed):
        name_positions(name, PROMPTS)


@pytest.mark.parametrize(
    ("part", "n_layers", "expected"),
    [
        (LayerPart.ALL, 6, [0, 1, 2, 3, 4, 5]),
        (LayerPart.EARLY, 6, [0, 1]),
        (LayerPart.MIDDLE, 6, [2, 3]),
        (LayerPart.LATE, 6, [4, 5]),
        (LayerPart.EARLY, 4, [0, 1]),
        (LayerPart.MIDDLE, 4, [1, 2]),
        (LayerPart.LATE, 4, [2, 3]),
        (LayerPart.MIDDLE, 1, [0]),
        (LayerPart.CENTRE, 6, [3]),
        (LayerPart.CENTRE, 4, [2]),
        (LayerPart.CENTRE, 1, [0]),
    ],
)
def test_parts_of_a_model(part, n_layers, expected):
    chosen = select_layers(part, n_layers=n_layers, start=None, stop=None, step=1)
    assert list(chosen) == expected


def test_bounds_take_the_place_of_a_part():
    assert list(select_layers(LayerPart.ALL, n_layers=6, start=1, stop=6, step=2)) == [1, 3, 5]


@pytest.mark.parametrize(
    ("start", "stop", "step"), [(3, 3, 1), (4, 2, 1), (0, 7, 1), (-1, 2, 1), (0, 2, 0)]
)
def test_bad_layers(start, stop, step):
    with pytest.raises(UserError, match=r"0 <= start < stop <= 6 .* got start"):
        select_layers(LayerPart.ALL, n_layers=6, start=start, stop=stop, step=step)


def test_layers_by_number():
    assert select_layers(LayerPart.LATE, n_layers=6, start=5, numbers=[3, 1]) == (1, 3)


@pytest.mark.parametrize("numbers", [[], [6], [-1], [1, 1]])
def test_bad_layers_by_number(numbers):
    with pytest.raises(UserError, match=r"layers\.list of distinct layers from 0 to 5 .* got \["):
        select_layers(LayerPart.ALL, n_layers=6, numbers=numbers)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({}, "all"),
        ({"step": 5}, "0-29, every 5th"),
        ({"step": 2}, "0-29, every 2nd"),
        ({"start": 3, "stop": 4}, "3"),
        ({"start": 3}, "3-29"),
        ({"numbers": [1, 3]}, "1, 3"),
        ({"numbers": [8, 0, 1, 2]}, "0-2, 8"),
    ],
)
def test_layers_in_words(bounds, words):
    assert describe_layers(LayerPart.ALL, n_layers=30, **bounds) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th"), (12, "12th"), (23, "23rd")],
)
def test_ordinals(number, words):
    assert ordinal(number) == words


def test_select_concatenates():
    activation = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    layout = PROMPTS.layouts[0]
    selected = Site(0, "resid_post", "b-c").select(activation, layout, width=3)
    assert torch.equal(selected, activation[:, 2:4].reshape(2, 6))
    whole = Site(0, "resid_post", "all").select(activation, layout, width=3)
    assert torch.equal(whole, activation.reshape(2, 15))


def test_a_head_is_its_part_of_every_position():
    activation = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    layout = PROMPTS.layouts[0]
    heads = [Site(0, "z", "b-c", head).select(activation, layout, width=4) for head in range(3)]
    assert torch.equal(heads[1], activation[:, 2:4, 4:8].reshape(2, 8))
    # Side by side they are the whole point.
    whole = Site(0, "z", "b-c").select(activation, layout, width=12)
    parts = torch.stack([head.unflatten(1, (2, 4)) for head in heads], dim=2)
    assert torch.equal(parts.reshape(2, 24), whole)


def test_the_whole_point_has_the_key_that_it_had_and_heads_have_others() -> None:
    whole, *heads = (Site(1, "z", "b-c", head) for head in (None, 0, 1))
    assert whole.key(PROMPTS) == [1, "z", [[2, 3]]]
    keys = [json_digest(site.key(PROMPTS)) for site in (whole, *heads)]
    assert len(set(keys)) == 3
    assert len({tuple(site.columns().values()) for site in (whole, *heads)}) == 3


def test_a_row_of_a_head_and_one_of_an_earlier_version() -> None:
    site = Site(3, "z", "b-c", 11)
    assert site.columns() == {"layer": 3, "point": "z", "position": "b-c", "head": "11"}
    assert site_of(site.columns()) == site
    earlier = {"layer": 3, "point": "z", "position": "b-c"}
    assert site_of(earlier) == site_of({**earlier, "head": None}) == Site(3, "z", "b-c")
    assert (site.at, Site(3, "z", "all", 0).at) == (" head 11 at b-c", " head 0")


@pytest.mark.parametrize(
    ("heads", "chosen"),
    [(None, (None,)), ("each", (0, 1, 2, 3)), ([3, 1], (1, 3)), ([0], (0,))],
)
def test_heads_by_name_and_number(heads, chosen) -> None:
    assert select_heads(heads, n_heads=4) == chosen


def test_heads_beyond_the_model_are_refused() -> None:
    expected = r"heads from 0 to 3 \(the model's query heads\), got \[1, 4\]; change it"
    with pytest.raises(UserError, match=expected):
        select_heads([1, 4], n_heads=4)


@pytest.mark.parametrize(
    ("site", "got"),
    [
        (Site(0, "mlp_out", "last", 0), "got mlp_out of 32 numbers"),
        (Site(0, "mlp_post", "last", 0), "got mlp_post of 64 numbers"),
    ],
)
def test_only_z_has_heads(site, got) -> None:
    expected = f"tracing.point=z of 4 heads for a head of tiny_decoder, {got}; set tracing.heads"
    with pytest.raises(UserError, match=expected):
        site.width(tiny_decoder())


def test_a_site_is_found_again_in_a_row_of_a_table() -> None:
    site = Site(3, "mlp_out", "b-c")
    row = {**site.columns(), "component": 2, "value": "b", "r": 0.5}
    assert site_of(row) == site
    assert component_of(row) == (site, 2, 1)
    assert site.key(PROMPTS, BOTH) == [3, "mlp_out", [[2, 3]], [[2, 3], [3, 4]]]
    assert (site.at, Site(3, "mlp_out", "all").at) == (" at b-c", "")


def test_the_columns_of_a_site_are_those_of_the_tables() -> None:
    assert tuple(column.name for column in SITE) == SITE_COLUMNS
