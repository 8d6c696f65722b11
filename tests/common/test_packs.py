"""Which cells share a process, and which of them its end leaves behind."""

import json

import pytest

from mech_arith.common.errors import UserError
from mech_arith.common.paths import ERROR_FILE, SUMMARY
from mech_arith.common.runs.packs import Trace, left_behind, pack_cells, pack_size
from mech_arith.common.runs.records import begin


def test_cells_of_one_model_stand_together_in_their_order():
    models = dict(enumerate(["a", "b", "a", "a", "b", None, None]))
    packs = pack_cells(list(models), models, 2)
    assert packs == [(0, 2), (3,), (1, 4), (5,), (6,)]
    assert pack_cells([4, 1], models, 1) == [(4,), (1,)]
    assert pack_cells([], models, 3) == []


def test_auto_makes_as_many_packs_as_run_at_a_time():
    assert [pack_size("auto", n_cells=n, at_a_time=4) for n in (0, 3, 4, 5, 20)] == [1, 1, 1, 2, 5]
    assert pack_size(7, n_cells=3, at_a_time=1) == 7


@pytest.mark.parametrize("asked", [0, -1, 1.5, True, "all", [2]])
def test_another_size_is_refused(asked):
    with pytest.raises(UserError, match=r"sweep\.pack as a number of cells from 1 on, or auto"):
        pack_size(asked, n_cells=3, at_a_time=1)


def test_what_a_process_did_not_come_to_is_left_behind(tmp_path):
    places = {number: tmp_path / str(number) for number in range(5)}
    for place in places.values():
        place.mkdir()
    (places[0] / SUMMARY).write_text("{}")  # whole before
    (places[3] / ERROR_FILE).write_text("of an earlier attempt")
    before = {number: Trace.of(place) for number, place in places.items()}
    assert left_behind((3, 4), before, before) == ()  # it came to none: nothing to be gained
    begin(places[2], "identity", {}, ())
    (places[1] / ERROR_FILE).write_text(json.dumps("refused before it began"))
    after = {number: Trace.of(place) for number, place in places.items()}
    assert left_behind((0, 1, 2, 3, 4), before, after) == (3, 4)
    assert left_behind((1, 2), before, after) == ()
    begin(places[2], "identity", {}, ())
    again = {number: Trace.of(place) for number, place in places.items()}
    assert left_behind((2, 3), after, again) == (3,)
