"""What edits cost, layer by layer, and how much of it is beyond what random directions cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pandas as pd

from mech_arith.evidence.verdicts import contrast_counts, strictest
from mech_arith.interventions.controls import DRAWN
from mech_arith.reports.figures.drawn import (
    CONTROL_LABEL,
    DIRECTION,
    PLACE,
    drawn,
    in_order,
    shared_components,
)
from mech_arith.reports.figures.rule import Claim, Row, counts
from mech_arith.reports.figures.sharing import (
    MARK,
    layer_names,
    named_below,
    room_below,
    sharing_note,
)
from mech_arith.reports.figures.sheet import Panel, Sheet
from mech_arith.reports.figures.style import (
    LAYERS,
    Colour,
    Grid,
    Key,
    distinct,
    grouped,
    layer_colours,
    records,
    side_by_side,
    thinned,
    tint,
)
from mech_arith.statistics import ALPHA

MOST_DRAWS = 12
"""With more layers in one panel, a dot per random direction would be a smear."""

EXCESS = Claim("excess_drop", "low", "high", counts="counts")

Arms = dict[str, Row]
"""By arm the rows of one value and layer at the strength at which the target costs most."""

Beside = dict[tuple[Any, ...], list[Row]]
"""The rows of the random directions, by the target that they are beside."""


@dataclass(frozen=True, kw_only=True)
class _Drops:
    """What the panels share."""

    layers: list[int]
    shared: Mapping[tuple[Any, ...], list[str]]
    """Components that serve several values."""
    worst: Mapping[tuple[Any, ...], Arms]
    """By value and layer."""
    dots: Beside
    """Single random directions."""
    against: Beside
    """What is beyond the controls; empty for no such panels."""
    limits: tuple[float, float]
    """Ends of the axis of drops."""
    beyond: tuple[float, float]
    """Ends of the axis of drops beyond the controls."""

    @property
    def rows(self) -> int:
        """Of panels for a row of values."""
        return 2 if self.against else 1

    @property
    def colours(self) -> list[Colour]:
        """A colour per layer."""
        return list(layer_colours(self.layers).values())


def accuracy_by_layer(
    effects: pd.DataFrame,
    contrasts: pd.DataFrame | None = None,
    draws: pd.DataFrame | None = None,
    *,
    title: str = "",
    level: float = 0.95,
) -> Sheet:
    """The largest accuracy drop over all strengths, per layer, a panel per chosen value.

    The paler bar is the control at the strength of its target, its dots the single random
    directions. Below, where the run has contrasts, stands what is beyond the strictest kind of
    controls: the mean over all strengths, because none was chosen; hollow where it may be chance.

    Args:
        effects: the run's table.
        contrasts: the run's table of targets against their controls.
        draws: the run's table of single control directions.
        title: model and template.
        level: of the tables' intervals.

    Raises:
        ValueError: no row of the table has status 'ok'.
    """
    arms, subtitle = drawn(effects)
    values, layers = in_order(arms), sorted(distinct(arms, "layer"))
    if "accuracy_drop_low" in arms:
        subtitle += f"; black: {level:.0%} intervals at that strength"
    dots = {} if draws is None or len(layers) > MOST_DRAWS else _by_target(draws, "strength")
    contrasts = None if contrasts is None else _strictest(contrasts)
    drops = _Drops(
        layers=layers,
        shared=shared_components(arms),
        worst=_worst(arms),
        dots=dots,
        against={} if contrasts is None else _by_target(contrasts),
        limits=_limits(arms, ["accuracy_drop", "accuracy_drop_low", "accuracy_drop_high"]),
        beyond=_limits(_random(contrasts), ["excess_drop", "low", "high"]),
    )
    wide = 0.17 * len(layers)
    width, across = side_by_side(values, max(1.6, wide), 0.95, least=max(1.1, min(wide, 2.5)))
    named = named_below(layers, records(arms))
    grid = Grid(
        title=title,
        subtitle=subtitle,
        across=across,
        down=drops.rows * ceil(len(values) / across),
        width=width,
        height=1.6,
        left=0.95,
        below=room_below(layers, records(arms)),
        above=0.27,
        keys=[_keys(drops)],
        notes=sharing_note(drops.shared, MARK if named else ""),
    )
    sheet = grid.sheet()
    for index, value in enumerate(values):
        _draw(grid, sheet, index, value, drops)
    return sheet


def _draw(grid: Grid, sheet: Sheet, index: int, value: str, drops: _Drops) -> None:
    """The panel of a value, and the one below it of what is beyond the controls."""
    block, column = divmod(index, grid.across)
    place = drops.rows * block * grid.across + column
    of_value = [drops.worst.get((value, layer), {}) for layer in drops.layers]
    targets = [arms["target"] for arms in of_value if arms]
    names = layer_names(drops.layers, targets, drops.shared)
    names = thinned(names, max(8, int(grid.width / 0.22)))
    panel = grid.panel(sheet, place)
    _frame(panel, names, drops.limits, labelled=column == 0)
    _bars(panel, of_value, drops.colours)
    _dots(panel, of_value, drops.dots)
    panel.name(title=value, x=LAYERS, y=_named("largest accuracy drop", column))
    if drops.against:
        below = grid.panel(sheet, place + grid.across)
        _frame(below, names, drops.beyond, labelled=column == 0)
        _excess(below, of_value, drops.against, drops.colours)
        below.name(x=LAYERS, y=_named("drop beyond controls", column))
    _record(sheet, value, of_value, drops)


def _record(sheet: Sheet, value: str, worst: list[Arms], drops: _Drops) -> None:
    """The numbers of a value's panels: bars, dots, and what is beyond the controls."""
    number = "accuracy_drop"
    place = ["mark", "value", *PLACE, "arm"]
    for arms in worst:
        bars = [{"mark": "bar", **row} for row in arms.values()]
        sheet.record(bars, [*place, "strength", "n", number, f"{number}_low", f"{number}_high"])
        of_draws = [
            {"mark": "dot", "value": value, **row} for row in _beside(drops.dots, arms, "strength")
        ]
        sheet.record(of_draws, [*place, "draw", "strength", number])
        beyond = [{"mark": "point", "value": value, **row} for row in _beside(drops.against, arms)]
        sheet.record(
            ({**row, "excess_low": row["low"], "excess_high": row["high"]} for row in beyond),
            [*place, "n", "excess_drop", "excess_low", "excess_high", "counts"],
        )


def _named(label: str, column: int) -> str:
    return f"{label}\n(share of problems)" if column == 0 else ""


def _keys(drops: _Drops) -> list[Key]:
    """What the legend says."""
    colour = drops.colours[len(drops.layers) // 2]
    keys = [
        Key("component, a colour per layer", "patch", colour),
        Key(f"{CONTROL_LABEL}, at the same strength (paler)", "patch", tint(colour)),
    ]
    if drops.dots:
        keys.append(Key("each random direction", "dot", "0.3"))
    if drops.against:
        keys.append(
            Key(
                f"hollow: may be chance (p above {ALPHA:g}, or the interval reaches 0)",
                "hollow",
                colour,
            )
        )
    return keys


def _random(table: pd.DataFrame | None) -> pd.DataFrame | None:
    """The rows of the random directions, among those of all controls."""
    return None if table is None or table.empty else table.loc[table["arm"] == "control"]


def _limits(table: pd.DataFrame | None, columns: list[str]) -> tuple[float, float]:
    """Ends of an axis of drops, which may be negative, and are not made to look large."""
    numbers = np.empty(0) if table is None else table.reindex(columns=columns).to_numpy(dtype=float)
    low, high = float(np.nanmin(numbers, initial=0)), float(np.nanmax(numbers, initial=0.25))
    return (low - 0.03 if low < 0 else 0.0), high + 0.03


def _worst(arms: pd.DataFrame) -> dict[tuple[Any, ...], Arms]:
    """By value and layer, both arms at the strength at which the target costs most."""
    worst: dict[tuple[Any, ...], Arms] = {}
    for key, rows in grouped(arms, "value", "layer").items():
        targets = [r for r in rows if r["arm"] == "target" and not np.isnan(r["accuracy_drop"])]
        if targets:
            strength = max(targets, key=lambda row: row["accuracy_drop"])["strength"]
            worst[key] = {row["arm"]: row for row in rows if row["strength"] == strength}
    return worst


def _bars(panel: Panel, worst: list[Arms], colours: list[Colour]) -> None:
    """Target and control of every layer side by side, with their intervals."""
    for arm, shift, shades in (
        ("target", -0.2, colours),
        ("control", 0.2, list(map(tint, colours))),
    ):
        known = [(place + shift, arms[arm]) for place, arms in enumerate(worst) if arm in arms]
        corners = [(at - 0.2, 0.0, at + 0.2, row["accuracy_drop"]) for at, row in known]
        panel.rectangles(corners, facecolors=[shades[round(at - shift)] for at, _ in known])
        lows, highs = (
            [row.get(f"accuracy_drop_{end}", np.nan) for _, row in known] for end in ("low", "high")
        )
        style = {"colors": ["black"], "linewidths": 0.9, "zorder": 2}
        panel.intervals([at for at, _ in known], lows, highs, **style)


def _dots(panel: Panel, worst: list[Arms], draws: Beside) -> None:
    """The drop of every random direction, at its layer's strength."""
    for place, arms in enumerate(worst):
        found = _beside(draws, arms, "strength")
        if found:
            x = place + 0.2 + np.linspace(-0.13, 0.13, len(found))
            y = [row["accuracy_drop"] for row in found]
            panel.points(x.tolist(), y, markersize=1.4, color="0.3", markeredgewidth=0, zorder=3)


def _excess(
    panel: Panel,
    worst: list[Arms],
    against: dict[tuple[Any, ...], list[Row]],
    colours: list[Colour],
) -> None:
    """Per layer what the direction costs beyond its controls, with its interval."""
    for place, (arms, colour) in enumerate(zip(worst, colours, strict=True)):
        for row in _beside(against, arms):
            panel.intervals([place], [row["low"]], [row["high"]], colors=[colour], linewidths=1.3)
            inside = colour if counts(row, EXCESS) else "white"
            style = {"markersize": 5, "color": colour, "markerfacecolor": inside}
            panel.points([place], [row["excess_drop"]], **style)


KEYS = ("layer", *DIRECTION)


def _strictest(contrasts: pd.DataFrame) -> pd.DataFrame:
    """Each target against the kind of drawn directions that it exceeds with the least certainty, as
    in the evidence; `counts` says whether it exceeds all kinds.
    """
    kinds: Beside = {}
    for row in records(contrasts):
        if row["arm"] in DRAWN:
            kinds.setdefault(_key(row), []).append(row)
    found = [
        {**strictest(rows), "counts": all(map(contrast_counts, rows)), "arm": "control"}
        for rows in kinds.values()
    ]
    return pd.DataFrame(found, columns=[*contrasts.columns, "counts"])


def _by_target(table: pd.DataFrame, *also: str) -> Beside:
    """The rows of the random directions, by what they are beside."""
    found: Beside = {}
    for row in records(table):
        if row["arm"] == "control":
            found.setdefault(_key(row, *also), []).append(row)
    return found


def _key(row: Row, *also: str) -> tuple[Any, ...]:
    """What tells one target from another."""
    return (*(row.get(name, "") for name in (*KEYS, *also)), *row["chosen_for"])


def _beside(found: dict[tuple[Any, ...], list[Row]], arms: Arms, *also: str) -> list[Row]:
    """The rows of the random directions beside one target."""
    target = arms.get("target")
    if target is None:
        return []
    return found.get(_key(target, *also), [])


def _frame(panel: Panel, names: list[str], limits: tuple[float, float], *, labelled: bool) -> None:
    """The axes of a panel over layers."""
    panel.limit((-0.6, len(names) - 0.4), limits)
    panel.tick_x(range(len(names)), names)
    panel.frame(x_grid=False, y_named=labelled)
    panel.level(0.0)
