"""Which cell of one run or sweep stands beside which of another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mech_arith.common.errors import UserError
from mech_arith.reports.page.page import Entry


@dataclass(frozen=True)
class Pair:
    """Two cells that are compared."""

    a: Entry
    b: Entry


def pair(one: Sequence[Entry], other: Sequence[Entry]) -> tuple[list[Pair], list[str]]:
    """Cells of A beside cells of B.

    Two single cells are compared whatever they are. Cells of sweeps fit each other if all that is
    said of them is the same, but for what all cells of A have in common, and all cells of B
    otherwise: that is what is compared.

    Returns:
        The pairs, and a sentence for the cells that are left out.

    Raises:
        UserError: no cells fit each other.
    """
    if len(one) == len(other) == 1:
        return [Pair(one[0], other[0])], []
    apart = _apart(one, other)
    keyed = [_by_key(entries, apart) for entries in (one, other)]
    pairs = [
        Pair(found[0], keyed[1][key][0])
        for key, found in keyed[0].items()
        if len(found) == 1 and len(keyed[1].get(key, [])) == 1
    ]
    if not pairs:
        raise UserError(
            f"expected cells that fit each other, got {len(one)} in A and {len(other)} in B, none "
            "of which are alike but for what A and B are compared in; give two runs, or two sweeps "
            "over the same"
        )
    notes = []
    for name, entries, kept in (
        ("A", one, {id(p.a) for p in pairs}),
        ("B", other, {id(p.b) for p in pairs}),
    ):
        left = [entry.cell.name for entry in entries if id(entry) not in kept]
        if left:
            notes.append(f"Left out of {name}, for no one cell fits them: {', '.join(left)}.")
    return pairs, notes


def _apart(one: Sequence[Entry], other: Sequence[Entry]) -> set[str]:
    """What is the same in all cells of one side, and in all of the other, and differs."""
    names = {name for entry in (*one, *other) for name in entry.fields}
    found = set()
    for name in names:
        sides = [{_text(entry.fields, name) for entry in entries} for entries in (one, other)]
        if len(sides[0]) == len(sides[1]) == 1 and sides[0] != sides[1]:
            found.add(name)
    return found


def _by_key(entries: Sequence[Entry], apart: set[str]) -> dict[tuple[Any, ...], list[Entry]]:
    found: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        names = sorted(name for name in entry.fields if name not in apart)
        key = tuple((name, _text(entry.fields, name)) for name in names)
        found.setdefault(key, []).append(entry)
    return found


def _text(fields: Mapping[str, Any], name: str) -> str:
    return str(fields.get(name))
