"""What an unfinished cell keeps, and what a kill costs."""

import pytest
import torch

from mech_arith.common import checkpoint as unfinished
from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.store import Store


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(unfinished, "time", clock)
    return clock


def begun(tmp_path, cell="this cell"):
    return Checkpoint(Store(tmp_path / "parts"), cell=cell)


def forbidden():
    raise AssertionError("expected the unit to be there already")


def numbers(*entries):
    return {"numbers": torch.tensor(entries, dtype=torch.float64)}


def test_a_unit_is_computed_once(tmp_path):
    first = begun(tmp_path)
    made = first.piece("edits", {"rows": 1}).fetch("layer 0", lambda: numbers(1, 2))
    first.keep()
    second = begun(tmp_path)
    again = second.piece("edits", {"rows": 1}).fetch("layer 0", forbidden)
    assert torch.equal(made["numbers"], again["numbers"])
    assert (first.found, second.found) == (0, 1)


def test_a_unit_that_took_long_is_on_disk_at_once(tmp_path, clock):
    def long_work():
        clock.now += 5
        return numbers(1)

    killed = begun(tmp_path).piece("edits", {})
    killed.fetch("layer 0", long_work)
    assert begun(tmp_path).piece("edits", {}).has("layer 0")


def test_short_units_are_lost_for_a_second_at_most(tmp_path, clock):
    def short_work():
        clock.now += 0.3
        return numbers(1)

    killed = begun(tmp_path).piece("edits", {})
    for layer in range(6):
        killed.fetch(f"layer {layer}", short_work)
    left = begun(tmp_path).piece("edits", {})
    assert [left.has(f"layer {layer}") for layer in range(6)] == [True] * 4 + [False] * 2


def test_pieces_that_are_done_are_kept_with_later_ones(tmp_path, clock):
    work = begun(tmp_path)
    work.piece("edits", {"rows": 0}).fetch("layer 0", lambda: numbers(1))
    clock.now += 2
    work.piece("edits", {"rows": 1}).fetch("layer 0", lambda: numbers(2))
    left = begun(tmp_path)
    for rows in (0, 1):
        assert left.piece("edits", {"rows": rows}).has("layer 0")


@pytest.mark.parametrize(
    ("cell", "stage", "key"),
    [
        ("another cell", "edits", {"rows": 1}),
        ("this cell", "probe", {"rows": 1}),
        ("this cell", "edits", {"rows": 2}),
    ],
)
def test_other_work_is_never_taken_up(tmp_path, cell, stage, key):
    done = begun(tmp_path)
    done.piece("edits", {"rows": 1}).fetch("layer 0", lambda: numbers(1))
    done.keep()
    assert not begun(tmp_path, cell).piece(stage, key).has("layer 0")


def test_a_unit_named_like_the_beginning_of_another_is_not_it(tmp_path):
    piece = begun(tmp_path).piece("edits", {})
    piece.fetch("layer 10", lambda: numbers(1))
    assert not piece.has("layer 1")


def test_running_sums_are_kept_now_and_then(tmp_path, clock):
    piece = begun(tmp_path).piece("fitting", {})
    piece.keep_state(forbidden)  # too early: the sums are not even asked for
    clock.now += 21
    piece.keep_state(lambda: numbers(1))
    clock.now += 5
    piece.keep_state(forbidden)
    assert torch.equal(
        begun(tmp_path).piece("fitting", {}).state()["numbers"], torch.ones(1).double()
    )
    clock.now += 21
    piece.keep_state(lambda: numbers(2))
    assert begun(tmp_path).piece("fitting", {}).state()["numbers"].item() == 2


def test_a_damaged_piece_is_computed_again(tmp_path):
    done = begun(tmp_path)
    done.piece("edits", {}).fetch("layer 0", lambda: numbers(1))
    done.keep()
    (path,) = (tmp_path / "parts").rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    assert not begun(tmp_path).piece("edits", {}).has("layer 0")


def test_nothing_is_kept_where_nothing_is_asked_for():
    piece = Checkpoint.nothing().piece("edits", {})
    assert torch.equal(piece.fetch("layer 0", lambda: numbers(3))["numbers"], torch.tensor([3.0]))
