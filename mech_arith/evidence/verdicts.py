"""What counts, by one rule; and for each value a verdict: held where, used where, shared with what.

The rule, for a value at a site, in the component that the fit split chooses for it, on the report
split:

- *Held*: p of its own R is at most `ALPHA`, corrected for all sites and values (Holm), and the
  whole interval of |R| lies above `HELD` and above |R| in the same network with random weights,
  where that was traced.
  A step of a hypothesis with few numbers (a digit, a carry, a residue) is held where its class is
  told better than chance (p corrected, and the whole interval above it), and is never shared.
- *Shared*: it is held, but with one other value held fixed |R| is below `HELD`: the coordinate is
  that other value's as well.
- *Used*: it is held or shared, and the answer follows it. Of an edit towards other values: answers
  that are the other value's are more than chance gives (p corrected, and the whole interval above
  the floor), or the whole interval of the slope lies above `FOLLOWS` and above the slope along
  drawn directions. The slope's intervals are each site's own, not corrected for their number: that
  they must exceed `FOLLOWS`, and not 0, makes up for it. Of an edit that goes nowhere in
  particular: it costs more accuracy than every kind of drawn directions (p corrected for the
  search, and the whole interval above 0).
- *Cannot be told*: no edit, no drawn directions, draws that resolve no p up to `ALPHA`, or a site
  whose whole activation does not carry the value to the answer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, isnan
from typing import Any

from mech_arith.engine.sites import Site, in_runs, site_of
from mech_arith.evidence.best import best_row
from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.base import find_edit
from mech_arith.statistics import ALPHA

HELD = 0.5
"""|R| from which a coordinate says much of a value: a quarter of its variance."""

FOLLOWS = 0.1
"""Share of the expected change from which the answer follows."""

LEAST_CEILING = 0.2
"""IIA of the whole activation below which a site cannot carry a value to the answer."""

DRAWN = ("random", "span", "valueless")
"""Kinds of drawn directions, as the evidence names them."""

LOWS = ("excess_low", *(f"excess_{arm}_low" for arm in DRAWN))

Row = Mapping[str, Any]


def known(row: Row, name: str | None) -> float | None:
    """A row's number; None where it has none, or one that is not finite."""
    number = row.get(name) if name else None
    return float(number) if isinstance(number, int | float) and isfinite(number) else None


def _known(number: Any) -> bool:
    return number is not None and not (isinstance(number, float) and isnan(number))


def _number(entry: Any) -> float | None:
    return float(entry) if _known(entry) else None


def _least(entry: Any, otherwise: float) -> float:
    number = _number(entry)
    return otherwise if number is None else number


def agree(p: Any, low: Any, floor: Any = 0.0) -> bool:
    """A number counts where its p is at most `ALPHA` and its interval lies above its floor.

    What is not known speaks against it.
    """
    return _least(p, 1.0) <= ALPHA and _least(low, -inf) > _least(floor, inf)


def r_counts(row: Row) -> bool:
    """R is not chance."""
    return agree(row.get("p_holm"), _abs_low(row))


def class_counts(row: Row) -> bool:
    """Classes are told better than by always telling the most frequent one."""
    return agree(row.get("class_p_holm"), row.get("class_accuracy_low"), row.get("class_chance"))


def drop_counts(row: Row) -> bool:
    """The drop at one strength exceeds that of random directions."""
    return agree(row.get("excess_p"), row.get("excess_low"))


def excess_counts(row: Row) -> bool:
    """The drop exceeds that of drawn directions of every kind."""
    known = [low for low in (_number(row.get(name)) for name in LOWS) if low is not None]
    return agree(row.get("excess_p_max"), min(known, default=None))


def contrast_counts(contrast: Row) -> bool:
    """The drop exceeds that of drawn directions of one kind."""
    return agree(contrast.get("p_max"), contrast.get("low"))


def strictest(contrasts: Iterable[Row]) -> Row:
    """Of contrasts with drawn directions, one for each kind, that with the least certainty.

    A drop counts as the component's own only if it exceeds that of every kind: so the largest of
    the p-values is that of all of them together (an intersection-union test, Berger 1982).
    """
    return max(
        contrasts, key=lambda row: (_least(row["p_max"], inf), -row["excess_drop"]), default={}
    )


def iia_counts(row: Row) -> bool:
    """Answers that follow the value are more than chance gives."""
    return agree(row.get("iia_p_holm"), row.get("iia_low"), row.get("floor"))


def slope_counts(row: Row) -> bool:
    """The answer follows the value by more than it follows it along drawn directions."""
    others = [_least(row.get(f"slope_{arm}"), 0.0) for arm in DRAWN]
    return _least(row.get("slope_low"), -1.0) > max(FOLLOWS, *others)


def unable(row: Row) -> bool:
    """Even the whole activation of the site does not carry the value to the answer."""
    high = row.get("ceiling_high")
    return _known(high) and not float(high or 0) > max(_least(row.get("floor"), 0.0), LEAST_CEILING)


def _abs_low(row: Row) -> float:
    """The end of the interval of |R| that is nearer to 0; 0 where it holds 0."""
    low, high = _least(row.get("r_low"), 0.0), _least(row.get("r_high"), 0.0)
    return max(low, -high, 0.0)


def judged(row: Row) -> dict[str, Any]:
    """The columns that say what of a row of the evidence counts, and its verdict."""
    floor = max(HELD, _least(row.get("untrained_abs_r"), 0.0))
    is_class = _known(row.get("class_accuracy"))
    held = class_counts(row) if is_class else r_counts(row) and _abs_low(row) >= floor
    apart = is_class or abs(_least(row.get("least_partial_r"), 1.0)) >= HELD
    untold = _untold(row)
    follows = iia_counts(row) or slope_counts(row)
    used = held and (follows if _has_target_value(row) else excess_counts(row))
    return {
        "r_counts": r_counts(row),
        "class_counts": class_counts(row) if is_class else None,
        "excess_counts": excess_counts(row) if _known(row.get("excess_drop")) else None,
        "iia_counts": iia_counts(row) if _known(row.get("iia")) else None,
        "slope_counts": slope_counts(row) if _known(row.get("slope")) else None,
        "held": held,
        "shared_with": row["least_partial_given"] if held and not apart else "",
        "used": used if used or not untold else None,
        "untold": "" if used else untold,
    }


def verdict(row: Row) -> str:
    """What a row's numbers say together, in few words; '' in a run of an earlier version."""
    if not is_truth(row.get("held")):
        return ""
    if not row["held"]:
        return "not held"
    held = f"with {row['shared_with']}" if row.get("shared_with") else "held"
    if not is_truth(row.get("used")):
        return f"{held}, use unknown"
    return f"{held}, {'used' if row['used'] else 'not used'}"


def is_truth(entry: Any) -> bool:
    """Whether it is true or false: a table may hold numpy's, or 1.0 beside what is missing."""
    return entry is not None and entry in (True, False)


def _has_target_value(row: Row) -> bool:
    """The edit gives problems another value's coordinate, so that answers tell of its use."""
    name = row.get("edit")
    if name in EDITS.names() and find_edit(name).target is not None:
        return True
    return _known(row.get("iia"))


def _untold(row: Row) -> str:
    """Why it cannot be told whether the value is used; '' where it can."""
    if _has_target_value(row):
        if not _known(row.get("iia")):
            return row.get("iia_reason") or "no answer was asked towards another value"
        if unable(row):
            return (
                "even the whole activation does not carry it to the answer "
                f"(ceiling {row['ceiling']:.2f})"
            )
        return ""
    if not _known(row.get("excess_p_max")):
        return row.get("excess_reason") or "nothing was edited"
    least = _least(row.get("excess_p_least"), 0.0)
    if least > ALPHA:
        return f"so few control directions give no p below {least:.2g}"
    return ""


@dataclass(frozen=True)
class Verdict:
    """What is known of one value, over all sites that the cell asks for."""

    value: str
    held: tuple[str, ...]
    """Places in words, as `layers 2-3`, `layer 3 at 5` or `layer 3 heads 0, 2`."""
    shared: dict[str, tuple[str, ...]]
    """Other value -> places where the coordinate is as well that one's."""
    used: tuple[str, ...]
    untold: dict[str, tuple[str, ...]]
    """Reason -> places where it cannot be told whether the value is used."""
    best: Row
    """The row that its numbers are read from: of the places where it counts most (used, else held,
    else any) the one with the largest |R| on the fit split."""

    @property
    def text(self) -> str:
        """One sentence."""
        parts = [f"held in {listed(self.held)}" if self.held else ""]
        parts += [f"shared with {other} in {listed(at)}" for other, at in self.shared.items()]
        if not (self.held or self.shared):
            return f"{self.value}: held nowhere"
        parts.append(f"used in {listed(self.used)}" if self.used else "")
        told = "elsewhere " if self.used else ""
        parts += [
            f"{told}it cannot be told whether it is used in {listed(at)}: {why}"
            for why, at in self.untold.items()
        ]
        if not (self.used or self.untold):
            parts.append("used nowhere")
        return f"{self.value}: {'; '.join(part for part in parts if part)}"


def verdicts(rows: Iterable[Row]) -> list[Verdict]:
    """A verdict per value, in the order of the rows of the evidence."""
    by_value: dict[str, list[Row]] = {}
    for row in rows:
        by_value.setdefault(row["value"], []).append(row)
    several = len({row.get("point") for of_value in by_value.values() for row in of_value}) > 1
    return [_verdict(value, of_value, several) for value, of_value in by_value.items()]


def _verdict(value: str, rows: Sequence[Row], several: bool) -> Verdict:
    """Of a cell that has several points, they are named."""

    def named(some: Sequence[Row]) -> tuple[str, ...]:
        return places(some, points=several)

    held = [row for row in rows if row["held"]]
    others = sorted({row["shared_with"] for row in held} - {""}, key=lambda one: (len(one), one))
    reasons = dict.fromkeys(row["untold"] for row in held if row["untold"])
    used = [row for row in held if _known(row["used"]) and row["used"]]
    return Verdict(
        value=value,
        held=named([row for row in held if not row["shared_with"]]),
        shared={
            other: named([row for row in held if row["shared_with"] == other]) for other in others
        },
        used=named(used),
        untold={why: named([row for row in held if row["untold"] == why]) for why in reasons},
        best=best_row(used or held or rows),
    )


def places(rows: Sequence[Row], *, points: bool = False) -> tuple[str, ...]:
    """Layers in words, by position and heads: `layers 2-3`, `layer 3 heads 0, 2 at 5`.

    With their points, if these are to be named: `layer 3 mlp_out at 5`.
    """
    found: dict[str, list[Site]] = {}
    for row in rows:
        site = site_of(row)
        point = f" {site.point}" if points else ""
        found.setdefault(f"{point}{replace(site, head=None).at}", []).append(site)
    return tuple(f"{text}{at}" for at, sites in found.items() for text in sites_text(sites))


def sites_text(sites: Iterable[Site]) -> list[str]:
    """Layers in words, with the heads that have the same: `layers 0-2`, `layers 3-4 heads 0, 2`."""
    layers: dict[int | None, list[int]] = {}
    for site in sites:
        layers.setdefault(site.head, []).append(site.layer)
    heads: dict[str, list[int]] = {}
    for head, of_head in layers.items():
        heads.setdefault(layers_text(of_head), []).extend([] if head is None else [head])
    return [
        f"{text} head{'s' * (len(some) > 1)} {in_runs(sorted(some))}" if some else text
        for text, some in heads.items()
    ]


def layers_text(layers: Iterable[int]) -> str:
    """`layer 3`, `layers 0-2, 5`."""
    ordered = sorted(set(layers))
    return f"layer{'s' * (len(ordered) > 1)} {in_runs(ordered)}"


MOST_PLACES = 4
"""That are listed in a sentence."""


def listed(at: Sequence[str]) -> str:
    """Places in a row; of many the first ones."""
    rest = len(at) - MOST_PLACES
    text = "; ".join(at[:MOST_PLACES])
    return text if rest <= 0 else f"{text}; and at {rest} more places"
