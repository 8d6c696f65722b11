import pytest
import torch

from mech_arith.errors import UserError
from mech_arith.sites import LayerPart, Site, check_point, resolve_positions, select_layers
from mech_arith.solvers.base import Prompts

PROMPTS = Prompts(
    torch.zeros(2, 5, dtype=torch.int64),
    ("a", "-", "b", "c", "="),
    {"a": (0,), "b": (2,), "c": (3,), "b-c": (2, 3), "a-(b-c)": (0, 1, 2, 3)},
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all", [("all", (0, 1, 2, 3, 4))]),
        ("first", [("first", (0,))]),
        ("last", [("last", (4,))]),
        ("operands", [("operands", (0, 2, 3))]),
        ("b-c", [("b-c", (2, 3))]),
        ("3", [("3", (3,))]),
        ("-1", [("4", (4,))]),
        ("each", [(str(i), (i,)) for i in range(5)]),
    ],
)
def test_positions_by_name(name, expected):
    assert resolve_positions(name, PROMPTS) == expected


@pytest.mark.parametrize("name", ["b+c", "5", "-6", ""])
def test_unknown_positions_list_the_valid_ones(name):
    with pytest.raises(UserError, match=r"unknown position .* each, all, first, last, operands, a"):
        resolve_positions(name, PROMPTS)


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


def test_select_concatenates_and_add_changes_the_site_alone():
    activation = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    site = Site(0, "resid_post", "b-c", (2, 3))
    assert torch.equal(site.select(activation), activation[:, 2:4].reshape(2, 6))
    change = torch.ones(2, 6)
    edited = site.add(activation, change)
    assert torch.equal(site.select(edited), site.select(activation) + 1)
    others = [0, 1, 4]
    assert torch.equal(edited[:, others], activation[:, others])


def test_unknown_point():
    with pytest.raises(UserError, match="unknown point 'resid'; expected one of: resid_pre, z"):
        check_point("resid")
