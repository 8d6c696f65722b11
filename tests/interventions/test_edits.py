import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mech_arith.common.errors import UserError
from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.base import edits_that, find_edit

coordinates = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5).map(
    lambda numbers: torch.tensor(numbers, dtype=torch.float64)
)


@given(coordinates, st.floats(0, 1e3))
def test_strength_of_no_change_changes_nothing(coordinate, sd):
    for edit in map(find_edit, EDITS.names()):
        wanted = coordinate.flip(0) + sd
        change = edit.change(coordinate, edit.no_change, sd=sd, wanted=wanted)
        assert torch.equal(change, torch.zeros_like(coordinate))


def test_what_edits_say_of_themselves():
    assert edits_that(are_affine=True) == "ablate, scale, shift"
    assert edits_that(can_be_uncentred=True) == "scale"


def test_each_edit_by_hand():
    coordinate = torch.tensor([2.0, -4.0])
    assert find_edit("scale").change(coordinate, 3.0, sd=9.0).tolist() == [4.0, -8.0]
    assert find_edit("shift").change(coordinate, -2.0, sd=1.5).tolist() == [-3.0, -3.0]
    assert find_edit("ablate").change(coordinate, 1.0, sd=9.0).tolist() == [-2.0, 4.0]
    wanted = torch.tensor([6.0, 0.0])
    for name in ("set", "interchange"):
        assert find_edit(name).change(coordinate, 1.0, sd=9.0, wanted=wanted).tolist() == [4.0, 4.0]
        assert find_edit(name).change(coordinate, 0.5, sd=9.0, wanted=wanted).tolist() == [2.0, 2.0]
        with pytest.raises(ValueError, match=f"wanted coordinates for the edit {name}, got none"):
            find_edit(name).change(coordinate, 1.0, sd=9.0)


@given(coordinates)
def test_ablating_twice_is_ablating_once(coordinate):
    ablate = find_edit("ablate")
    once = coordinate + ablate.change(coordinate, 1.0, sd=1.0)
    assert torch.equal(once, torch.zeros_like(once))
    assert torch.equal(ablate.change(once, 1.0, sd=1.0), torch.zeros_like(once))


def test_unknown_edit():
    with pytest.raises(
        UserError, match="unknown edit 'twist'; expected one of: ablate, interchange"
    ):
        find_edit("twist")
