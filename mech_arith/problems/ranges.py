"""The ranges that operands are drawn from."""

from collections.abc import Mapping, Sequence

from mech_arith.common.errors import UserError, unknown
from mech_arith.problems.computing import Interval
from mech_arith.problems.seeds import is_integer


def operand_ranges(spec: Mapping[str, object], operands: Sequence[str]) -> dict[str, Interval]:
    """The inclusive range of each operand.

    `spec` is {min, max} for all operands, or {a: {min, max}, ...}, or both: the top level then
    fills in what an operand leaves out. None counts as left out.

    Raises:
        UserError: an unknown operand or key, an end that is missing or no whole number, or a
            range that is reversed.
    """
    ends = ("min", "max")
    valid = (*ends, *operands)
    for key in spec:
        if key not in valid:
            raise unknown("key of problems.operands", key, valid)
    ranges: dict[str, object] = {}
    for operand in operands:
        own = spec.get(operand)
        if own is None:
            own = {}
        if not isinstance(own, Mapping):
            raise UserError(
                f"expected problems.operands.{operand} as {{min, max}}, got {own!r}; write for "
                f"example {operand}: {{min: 100, max: 999}}"
            )
        for key in own:
            if key not in ends:
                raise unknown(f"key of problems.operands.{operand}", key, ends)
        given = [spec.get(end) if own.get(end) is None else own.get(end) for end in ends]
        for end, number in zip(ends, given, strict=True):
            if number is None:
                raise UserError(
                    f"expected a {end} for operand {operand!r}, got none; set "
                    f"problems.operands.{end} or problems.operands.{operand}.{end}"
                )
        ranges[operand] = tuple(given)
    return checked_ranges(ranges, operands)


def checked_ranges(ranges: Mapping[str, object], operands: Sequence[str]) -> dict[str, Interval]:
    """The ranges in the operands' order, as Python integers."""
    for name in ranges:
        if name not in operands:
            raise unknown("operand", name, operands)
    checked: dict[str, Interval] = {}
    for name in operands:
        if name not in ranges:
            raise UserError(f"expected a range for operand {name!r}, got none; add one")
        given = ranges[name]
        ends = list(given) if isinstance(given, (tuple, list)) else []
        if len(ends) != 2 or not all(map(is_integer, ends)):
            raise UserError(
                f"expected the range of operand {name!r} as two whole numbers, got {given!r}; "
                "write for example min 100, max 999"
            )
        low, high = int(ends[0]), int(ends[1])
        if low > high:
            raise UserError(
                f"expected the range of operand {name!r} from low to high, got {low}..{high}; "
                "swap its ends"
            )
        checked[name] = (low, high)
    return checked


def described(ranges: Mapping[str, Interval]) -> str:
    """The ranges in words."""
    return ", ".join(f"{name} {low}..{high}" for name, (low, high) in ranges.items())
