import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import rgb_to_hsv, same_color, to_rgba
from matplotlib.figure import Figure
from PIL import Image

from mech_arith.engine.sites import COMPONENT_COLUMNS
from mech_arith.evidence.best import best_rows, of_least_rank
from mech_arith.evidence.verdicts import judged, slope_counts
from mech_arith.reports.figures import (
    accuracy_by_layer,
    best_correlation_map,
    cell_figures,
    correlation_heatmaps,
    counterfactual_iia,
    dose_response,
    draw_cell,
    evidence_maps,
    locality_distance,
    locality_example,
    position_maps,
    save_figures,
    specificity_maps,
)
from mech_arith.reports.figures.effects import SHIFT
from mech_arith.reports.figures.ranks import iia_by_rank, iia_by_rank_and_method
from mech_arith.reports.figures.rule import Claim, counts
from mech_arith.reports.figures.sheet import DPI, Panel, Sheet
from mech_arith.reports.figures.standard.heads import head_maps
from mech_arith.reports.figures.style import FRAME, layer_colours, tint, two_digits
from tests.thinned import thinned

TITLE = "arith_encoder, a-(b-c)"
VALUES = ("a", "b", "c", "b-c", "a-(b-c)")
STRENGTHS = tuple(np.linspace(-3, 3, 11).tolist())
TOKENS = ("[CLS]", *"123-(456-789)")


def correlations(
    n_layers: int = 4,
    *,
    positions: Sequence[tuple[str, int, str]] = (("all", -1, ""),),
    values: Sequence[str] = VALUES,
    n_components: int = 10,
) -> pd.DataFrame:
    """Every value in a component of its own, on top of noise."""
    rng = np.random.default_rng(0)
    rows = []
    for layer in range(n_layers):
        for position, index, token in positions:
            explained = np.sort(rng.dirichlet(np.ones(n_components)))[::-1]
            r = rng.uniform(-0.4, 0.4, (n_components, len(values)))
            r[np.arange(len(values)) % n_components, np.arange(len(values))] = 0.95
            for component, value in np.ndindex(*r.shape):
                rows.append(
                    {
                        "layer": layer,
                        "point": "resid_post",
                        "position": position,
                        "head": "",
                        "position_index": index,
                        "token": token,
                        "component": component,
                        "rank": 1,
                        "value": values[value],
                        "r": r[component, value],
                        "abs_r": abs(r[component, value]),
                        "r_fit": r[component, value] + rng.uniform(-0.02, 0.02),
                        "explained_variance": explained[component],
                    }
                )
    return pd.DataFrame(rows)


def single_positions(
    n_layers: int = 4, tokens: Sequence[str] = TOKENS, **rest: Any
) -> pd.DataFrame:
    positions = [(str(index), index, token) for index, token in enumerate(tokens)]
    return correlations(n_layers, positions=positions, **rest)


def effects(
    n_layers: int = 4,
    *,
    values: Sequence[str] = VALUES,
    positions: Sequence[str] = ("all",),
    strengths: Sequence[float] = STRENGTHS,
) -> pd.DataFrame:
    """Accuracy falls with the strength, faster in higher layers, and hardly for controls."""
    rows = []
    for layer, (p, position), (k, value), strength, arm in (
        (layer, place, chosen, strength, arm)
        for layer in range(n_layers)
        for place in enumerate(positions)
        for chosen in enumerate(values)
        for strength in strengths
        for arm in ("target", "control")
    ):
        force = 0.1 * (layer + 1) * (p + 1) * (1 if arm == "target" else 0.1)
        accuracy = 0.97 * float(np.exp(-force * strength**2))
        rows.append(
            {
                "layer": layer,
                "point": "resid_post",
                "position": position,
                "head": "",
                "component": k,
                "rank": 1,
                "arm": arm,
                "chosen_for": (value,),
                "target_value": "",
                "edit": "shift",
                "strength": strength,
                "strength_unit": "sd",
                "n": 200,
                "baseline_accuracy": 0.97,
                "edited_accuracy": accuracy,
                "accuracy_drop": 0.97 - accuracy,
                "mean_shift": 300 * force * strength * (-1) ** k,
                "status": "ok",
            }
        )
    return pd.DataFrame(rows)


def off_distribution(table: pd.DataFrame, reach: float) -> pd.DataFrame:
    """Where the edits led: at the strength `reach` half of them leave the observed range."""
    targets = table.loc[table["arm"] == "target"]
    return targets.assign(outside_range=(targets["strength"].abs() / reach / 2).clip(upper=1))


def with_intervals(table: pd.DataFrame, reach: float = 0.08) -> pd.DataFrame:
    """The same with the ends of its numbers' intervals."""
    ends: dict[str, Any] = {}
    for name, unit in (("edited_accuracy", 1), ("accuracy_drop", 1), ("mean_shift", 300)):
        ends |= {f"{name}_low": table[name] - reach * unit, f"{name}_high": table[name] + reach}
    return table.assign(**ends)


def contrasts(table: pd.DataFrame) -> pd.DataFrame:
    """A row per target: the upper half of the layers is beyond its controls."""
    targets = table.loc[table["arm"] == "target"]
    targets = targets.drop_duplicates(["layer", "position", "component"])
    drop = 0.8 * targets["layer"] / max(1, targets["layer"].max())
    ends = {"low": drop - 0.07, "high": drop + 0.07}
    return targets.assign(arm="control", excess_drop=drop, p_max=0.2 * (drop < 0.4), **ends)


def draws(table: pd.DataFrame, count: int = 5) -> pd.DataFrame:
    """Single random directions around their mean."""
    controls = table.loc[table["arm"] == "control"]
    return pd.concat(
        [
            controls.assign(accuracy_drop=controls["accuracy_drop"] + 0.01 * draw, draw=draw)
            for draw in range(count)
        ],
        ignore_index=True,
    )


def evidence(
    n_layers: int = 4, values: Sequence[str] = VALUES, positions: Sequence[str] = ("all",)
) -> pd.DataFrame:
    """A row per layer, position and value; the higher the layer, the surer."""
    rows = []
    for layer in range(n_layers):
        for p, position in enumerate(positions):
            for k, value in enumerate(values):
                sure = (layer + 1) / n_layers
                rows.append(
                    {
                        "layer": layer,
                        "point": "resid_post",
                        "position": position,
                        "head": "",
                        "component": k,
                        "rank": 1,
                        "value": value,
                        "r_fit": (-1) ** k * sure * (0.9 + p / 20),
                        "r": (-1) ** k * sure * 0.9,
                        "r_low": (-1) ** k * sure * 0.9 - 0.1,
                        "r_high": (-1) ** k * sure * 0.9 + 0.1,
                        "p_holm": 0.1 if layer == 0 else 0.001,
                        "least_partial_r": sure * 0.5,
                        "least_partial_given": values[k - 1],
                        "excess_drop": sure * 0.5 - 0.2,
                        "excess_low": sure * 0.5 - 0.3,
                        "excess_high": sure * 0.5 - 0.1,
                        "excess_p_max": 0.2 if layer == 0 else 0.001,
                        "iia": sure * 0.9,
                        "iia_low": sure * 0.9 - 0.05,
                        "iia_high": sure * 0.9 + 0.05,
                        "iia_p": 0.2 if layer == 0 else 0.001,
                        "floor": 0.03,
                        "ceiling": 0.97,
                    }
                )
                rows[-1]["iia_p_holm"] = rows[-1]["iia_p"]
                rows[-1] |= {f"excess_random_{e}": rows[-1][f"excess_{e}"] for e in ENDS}
                rows[-1] |= judged(rows[-1])
    return pd.DataFrame(rows)


ENDS = ("drop", "low", "high", "p_max")


def known(n_layers: int) -> pd.DataFrame:
    """Evidence with all the columns that a run may have."""
    table = evidence(n_layers)
    stricter = {
        f"excess_{arm}_{name}": table[f"excess_{name}"] - 0.1
        for arm in ("valueless", "span")
        for name in ("drop", "low", "high")
    }
    slope = {"slope": table["iia"] + 0.1, "slope_low": table["iia"] - 0.05}
    ends = {"slope_high": table["iia"] + 0.2, "slope_random": 0.5, "untrained_abs_r": 0.2}
    found = table.assign(**stricter, **slope, **ends)
    return found.assign(slope_counts=[slope_counts(row) for row in found.to_dict("records")])


def counterfactual(table: pd.DataFrame) -> pd.DataFrame:
    """IIA of the evidence, and of random directions."""
    target = table.assign(arm="target", edit="set", strength=1.0, n=200)
    low = {"iia": 0.05, "iia_low": 0.02, "iia_high": 0.1}
    half = target.assign(strength=0.5, iia=0.5)
    return pd.concat([half, target, target.assign(arm="control", **low)], ignore_index=True)


def specificity(table: pd.DataFrame) -> pd.DataFrame:
    """Every direction carries its own value, and a little of the next, the wrong way."""
    rows = []
    for row in table.to_dict(orient="records"):
        for index, changed in enumerate(dict.fromkeys(table["value"])):
            slope = 0.95 if changed == row["value"] else -0.2 * (index % 2)
            place = {name: row[name] for name in COMPONENT_COLUMNS}
            ends = {"slope_low": slope - 0.1, "slope_high": slope + 0.1}
            rows.append(
                place | {"direction_of": (row["value"],), "changed": changed, "slope": slope} | ends
            )
    return pd.DataFrame(rows)


def curves(n_layers: int = 4, values: Sequence[str] = VALUES) -> pd.DataFrame:
    tables = []
    for layer in range(n_layers):
        for k, value in enumerate(values):
            x = np.linspace(100, 999, 20)
            head = {
                "layer": layer,
                "component": k,
                "rank": 1,
                "value": value,
                "original": 500.0,
                "observed_low": -18.0,
                "observed_high": 18.0,
            }
            actual = (-1) ** k * (x - 550) / 25
            predicted = actual + 1e-5 * (x - 500) ** 2
            for kind, y in (("f_p", predicted), ("f_a", actual)):
                tables.append(pd.DataFrame({"kind": kind, "problem": 0, "x": x, "y": y} | head))
            x = np.linspace(-800, 800, 11)
            y = 1.2 + 4 * (x / 800) ** 2
            distance = {"kind": "distance", "problem": -1, "x": x, "y": y}
            tables.append(pd.DataFrame(distance | {"low": 0.6 * y, "high": 1.5 * y} | head))
    return pd.concat(tables, ignore_index=True)


def texts(sheet: Sheet) -> list[str]:
    """All text that is drawn."""
    return [label.text for label in sheet.lettering.labels]


def check_readable(sheet: Sheet) -> None:
    """Every text lies inside the figure, and none on another."""
    found = sheet.lettering.boxes(DPI)
    names = [label.text for label, _ in found]
    boxes = np.array([box for _, box in found], dtype=float)
    inside = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2:] <= DPI * sheet.get_size_inches()).all(1)
    assert np.all(inside), [
        name for name, ok in zip(names, np.asarray(inside).tolist(), strict=True) if not ok
    ]
    low, high = boxes[:, :2], boxes[:, 2:]
    crossing = (low[:, None] < high[None]).all(2) & (low[None] < high[:, None]).all(2)
    crossing = np.asarray(crossing) & ~np.eye(len(names), dtype=bool)
    assert not crossing.any(), [(names[i], names[j]) for i, j in np.argwhere(crossing) if i < j]


def of_ranks(table: pd.DataFrame, ranks: Sequence[int] = (1, 2, 4, 8)) -> pd.DataFrame:
    """The same of subspaces of several ranks: the larger, the more answers follow."""
    shares = {rank: (place + 1) / len(ranks) for place, rank in enumerate(ranks)}
    numbers = ["iia", "iia_low", "iia_high"]
    return pd.concat(
        [
            table.assign(
                rank=rank,
                n=200,
                iia_random=0.1 * share,
                **{name: share * table[name] for name in numbers},
            )
            for rank, share in shares.items()
        ],
        ignore_index=True,
    )


def of_heads(table: pd.DataFrame, heads: Sequence[int] = range(4)) -> pd.DataFrame:
    """The same at several heads, the later the clearer; numbers are a little other ones in each."""
    numbers = [name for name in ("r_fit", "r", "abs_r", "iia", "ceiling") if name in table]
    shares = {head: (place + 1) / len(heads) for place, head in enumerate(heads)}
    return pd.concat(
        [
            table.assign(head=str(head), point="z", **{n: share * table[n] for n in numbers})
            for head, share in shares.items()
        ],
        ignore_index=True,
    )


LONG = ("price", "count", "discount", "price*count", "(price*count)-discount")


def drops_of(table: pd.DataFrame) -> Sheet:
    return accuracy_by_layer(table, contrasts(table), draws(table), title=TITLE)


FIGURES = {
    "heatmaps, 4 layers": lambda: correlation_heatmaps(correlations(4), title=TITLE),
    "heatmaps, 30 layers": lambda: correlation_heatmaps(correlations(30), title=TITLE),
    "best, 30 layers": lambda: best_correlation_map(correlations(30), title=TITLE),
    "heatmaps, 6 layers": lambda: correlation_heatmaps(correlations(6), title=TITLE),
    "heatmaps, four operands": lambda: correlation_heatmaps(
        correlations(4, values=["a", "b", "c", "d", "c-d", "b-(c-d)", "a-(b-(c-d))"]),
        title="arith_decoder, a-(b-(c-d))",
    ),
    "heatmaps, 1 layer": lambda: correlation_heatmaps(
        correlations(1, values=["a", "b", "a//b"], n_components=3), title="arith_decoder, a//b"
    ),
    "best, 4 layers": lambda: best_correlation_map(correlations(4), title=TITLE),
    "best, 6 layers": lambda: best_correlation_map(correlations(6), title=TITLE),
    "best of positions": lambda: best_correlation_map(single_positions(6), title=TITLE),
    "positions, 4 layers": lambda: position_maps(single_positions(4), title=TITLE),
    "positions, 6 layers": lambda: position_maps(single_positions(6), title=TITLE),
    "positions, words": lambda: position_maps(
        single_positions(12, ["<bos>", "A", " shop", " has", " $7", "\n"], n_components=2),
        title="gpt2, a+b",
    ),
    "positions, long prompt": lambda: position_maps(
        single_positions(30, [*"What is 3+5? "] * 8, values=["a", "a+b"], n_components=2),
        title="smollm2_135m, a+b",
    ),
    "dose, 4 layers": lambda: dose_response(effects(4), title=TITLE),
    "dose, 6 layers": lambda: dose_response(effects(6), title=TITLE),
    "dose, 30 layers": lambda: dose_response(effects(30, values=["a", "b"]), title="smollm2, a+b"),
    "dose, one strength, 30 layers": lambda: dose_response(
        with_intervals(effects(30, strengths=[1.0])), title=TITLE
    ),
    "shift, 4 layers": lambda: dose_response(
        with_intervals(effects(4)), response=SHIFT, title=TITLE
    ),
    "shift, 30 layers": lambda: dose_response(effects(30), response=SHIFT, title=TITLE),
    "dose, long names": lambda: dose_response(effects(6, values=LONG), title=TITLE),
    "drops, long names": lambda: drops_of(effects(6, values=LONG)),
    "dose, 7 values": lambda: dose_response(
        effects(2, values=["a", "b", "c", "d", "a-b", "a-b-c", "a-b-c-d"]), title=TITLE
    ),
    "dose, shaded, 4 layers": lambda: dose_response(
        effects(4), off_distribution(effects(4), 1.5), title=TITLE
    ),
    "dose, shaded, one value": lambda: dose_response(
        effects(30, values=["a"]), off_distribution(effects(30, values=["a"]), 1.5), title=TITLE
    ),
    "dose, one of each": lambda: dose_response(effects(1, values=["a"]), title=TITLE),
    "drops, 4 layers": lambda: accuracy_by_layer(effects(4), title=TITLE),
    "drops, 6 layers": lambda: accuracy_by_layer(effects(6), title=TITLE),
    "drops, 30 layers": lambda: accuracy_by_layer(effects(30, values=["a", "b"]), title=TITLE),
    "dose, intervals, 4 layers": lambda: dose_response(with_intervals(effects(4)), title=TITLE),
    "dose, one strength": lambda: dose_response(
        with_intervals(effects(6, strengths=[1.0])).assign(
            edit="interchange", strength_unit="share of the way"
        ),
        title=TITLE,
    ),
    "drops, intervals, 4 layers": lambda: drops_of(with_intervals(effects(4))),
    "drops, intervals, 6 layers": lambda: drops_of(with_intervals(effects(6))),
    "drops, intervals, 30 layers": lambda: drops_of(with_intervals(effects(30, values=["a", "b"]))),
    "evidence, 4 layers": lambda: evidence_maps(evidence(4), title=TITLE),
    "evidence, 6 layers": lambda: evidence_maps(evidence(6), title=TITLE),
    "evidence, 30 layers": lambda: evidence_maps(evidence(30), title=TITLE),
    "evidence, all that may be known, 4 layers": lambda: evidence_maps(known(4), title=TITLE),
    "evidence, all that may be known, 30 layers": lambda: evidence_maps(known(30), title=TITLE),
    "evidence, one of each": lambda: evidence_maps(evidence(1, ["a"]), title=TITLE),
    "evidence, long names": lambda: evidence_maps(evidence(6, LONG), title="gpt2, words"),
    "evidence, traced alone": lambda: evidence_maps(
        evidence(4).drop(columns=["excess_drop", "iia"]), title=TITLE
    ),
    "counterfactual, 4 layers": lambda: counterfactual_iia(
        counterfactual(evidence(4)), evidence(4), title=TITLE
    ),
    "counterfactual, 30 layers": lambda: counterfactual_iia(
        counterfactual(evidence(30, LONG)), evidence(30, LONG), title=TITLE
    ),
    "specificity, 4 layers": lambda: specificity_maps(
        specificity(evidence(4)), evidence(4), title=TITLE
    ),
    "specificity, 6 layers, long names": lambda: specificity_maps(
        specificity(evidence(6, LONG)), evidence(6, LONG), title=TITLE
    ),
    "specificity, 30 layers": lambda: specificity_maps(
        specificity(evidence(30)), evidence(30), title=TITLE
    ),
    "example, 6 layers": lambda: locality_example(curves(6), title=TITLE),
    "example, one panel": lambda: locality_example(curves(1, ["b"]), title=TITLE),
    "ranks, 4 layers": lambda: iia_by_rank(of_ranks(evidence(4)), title=TITLE),
    "ranks, 30 layers": lambda: iia_by_rank(of_ranks(evidence(30)), title=TITLE),
    "evidence of rank 2, 4 layers": lambda: evidence_maps(of_ranks(known(4), [2, 8]), title=TITLE),
    "heads, 4 layers": lambda: head_maps(of_heads(evidence(4)), title=TITLE),
    "heads, 30 layers": lambda: head_maps(of_heads(evidence(30), range(32)), title=TITLE),
    "heads, one of each": lambda: head_maps(of_heads(evidence(1, ["a"]), [7]), title=TITLE),
    "heads, long names, 12 layers": lambda: head_maps(of_heads(evidence(12, LONG)), title="words"),
    "heads, traced alone": lambda: head_maps(
        of_heads(evidence(4)).drop(columns=["iia", "ceiling"]), title=TITLE
    ),
    "evidence of heads, 6 layers": lambda: evidence_maps(of_heads(known(6), [10, 11]), title=TITLE),
    "best of heads": lambda: best_correlation_map(of_heads(correlations(8)), title=TITLE),
    "counterfactual of heads, 8 layers": lambda: counterfactual_iia(
        counterfactual(of_heads(evidence(8), [11])), of_heads(evidence(8), [11]), title=TITLE
    ),
    "drops of heads, 8 layers": lambda: accuracy_by_layer(of_heads(effects(8), [11]), title=TITLE),
    "dose of heads, 4 layers": lambda: dose_response(of_heads(effects(4)), title=TITLE),
    "dose of heads, one strength, 8 layers": lambda: dose_response(
        with_intervals(of_heads(effects(8, strengths=[1.0]), [11])), title=TITLE
    ),
    "example of heads, 4 layers": lambda: locality_example(of_heads(curves(4), [3]), title=TITLE),
    "distance, 4 layers": lambda: locality_distance(curves(4), title=TITLE),
    "distance, 12 layers": lambda: locality_distance(curves(12, ["b"]), title=TITLE),
}


@pytest.mark.parametrize("name", thinned(FIGURES, 17))
def test_labels_neither_overlap_nor_leave_the_figure(name: str) -> None:
    check_readable(FIGURES[name]())


@pytest.mark.parametrize("name", [name for name in FIGURES if "4 layers" in name])
def test_every_figure_says_what_it_shows(name: str) -> None:
    sheet = FIGURES[name]()
    assert TITLE in texts(sheet)
    if not name.startswith(("heatmaps", "best", "positions", "specificity")):
        assert keys_of(sheet)


def keys_of(sheet: Sheet) -> list[str]:
    """What stands in the legend: at the left of the marks under the panels."""
    bottom = min(panel.box[1] for panel in sheet.panels)
    foot = [label for label in sheet.lettering.labels if label.transform is sheet.dpi_scale_trans]
    return [label.text for label in foot if label.across == "left" and label.y < bottom]


def test_the_check_sees_an_overlap() -> None:
    sheet = Sheet(6.0, 4.0)
    sheet.write("one", 3, 2, size=10.0)
    check_readable(sheet)
    sheet.write("another", 3.1, 2, size=10.0)
    with pytest.raises(AssertionError, match="another"):
        check_readable(sheet)


def test_the_check_sees_what_leaves_the_figure() -> None:
    sheet = Sheet(6.0, 4.0)
    sheet.write("far to the right", 5.9, 2, size=10.0)
    with pytest.raises(AssertionError, match="far to the right"):
        check_readable(sheet)


def pixels(sheet: Figure) -> np.ndarray:
    """The figure as it is drawn, the highest row first, 0 for black."""
    canvas = FigureCanvasAgg(sheet)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].min(2)


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("across", ["left", "center", "right"])
def test_text_is_drawn_where_it_is_said_to_be(*, upright: bool, across: str) -> None:
    sheet = Sheet(4.0, 4.0)
    sheet.write("Lily, 123\nof two lines", 2, 2, size=10.0, upright=upright, across=across)
    ((_, (left, low, right, high)),) = sheet.lettering.boxes(DPI)
    rows, columns = np.nonzero(pixels(sheet) < 200)
    bottom = 4 * DPI - 1 - rows
    assert left <= columns.min() <= left + 2
    assert right - 2 <= columns.max() + 1 <= right
    assert low <= bottom.min() <= low + 2
    assert high - 2 <= bottom.max() + 1 <= high


@pytest.mark.parametrize("upright", [False, True])
def test_text_looks_as_matplotlib_draws_it(*, upright: bool) -> None:
    """Not turned, mirrored or in another size: compared pixel by pixel, up to a shift."""
    ours, theirs = Sheet(4.0, 4.0), Figure(figsize=(4, 4), dpi=DPI)
    ours.write("Fg .25 to 1", 2, 2, size=12.0, upright=upright)
    theirs.text(0.5, 0.5, "Fg .25 to 1", fontsize=12.0, rotation=90 if upright else 0)
    inks = []
    for image in (pixels(ours), pixels(theirs)):
        rows, columns = np.nonzero(image < 128)
        inks.append(image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] < 128)
    height, width = (min(ink.shape[axis] for ink in inks) for axis in (0, 1))
    assert abs(inks[0].shape[0] - inks[1].shape[0]) <= 1
    assert abs(inks[0].shape[1] - inks[1].shape[1]) <= 2
    same = [ink[:height, :width] for ink in inks]
    assert (same[0] == same[1]).mean() > 0.85


def heatmaps_of(sheet: Figure) -> list[Panel]:
    assert isinstance(sheet, Sheet)
    return [panel for panel in sheet.panels if panel.cells is not None]


def cells(panel: Panel) -> np.ndarray:
    assert panel.cells is not None
    return panel.cells


def texts_of(panel: Panel) -> list[str]:
    return [label.text for label in panel.labels]


def corners(blocks: Any) -> list[list[float]]:
    """Left, bottom, right, top of each rectangle of a collection."""
    ends = [path.vertices for path in blocks.get_paths()]
    return [[*end.min(0).tolist(), *end.max(0).tolist()] for end in ends]


def frames(panel: Panel) -> list[list[float]]:
    """The cells that are framed."""
    return [
        corner for blocks in panel.blocks if blocks.get_zorder() == 3 for corner in corners(blocks)
    ]


def test_heatmaps_hold_the_report_split_and_frame_the_fit_splits_best() -> None:
    table = correlations(2)
    here = (table["layer"] == 1) & (table["value"] == "b")
    table.loc[here, "abs_r"] = np.linspace(0.1, 1.0, 10)  # best on the report split: component 9
    table.loc[here, "r_fit"] = np.linspace(-0.9, 0.0, 10)  # on the fit split: component 0
    _, second = heatmaps_of(correlation_heatmaps(table))
    assert cells(second)[1] == pytest.approx(np.linspace(0.1, 1.0, 10))
    written = texts_of(second)[10:20]
    assert written == [".10", ".20", ".30", ".40", ".50", ".60", ".70", ".80", ".90", "1.00"]
    assert frames(second)[1] == pytest.approx([-0.47, 0.53, 0.47, 1.47])


def test_heatmaps_show_the_explained_variance() -> None:
    table = correlations(1)
    bars, *_ = correlation_heatmaps(table).panels
    heights = [top for _, _, _, top in corners(bars.blocks[0])]
    assert heights == pytest.approx(table.groupby("component")["explained_variance"].first())


def test_a_number_that_could_not_be_had_is_a_dash() -> None:
    table = correlations(1)
    table.loc[table["value"] == "c", ["r", "abs_r", "r_fit"]] = np.nan
    (panel,) = heatmaps_of(correlation_heatmaps(table, title=TITLE))
    assert set(texts_of(panel)[20:30]) == {"\N{EN DASH}"}
    (panel,) = heatmaps_of(best_correlation_map(table, title=TITLE))
    assert texts_of(panel)[2] == "\N{EN DASH}"


def test_numbers_can_be_read_on_their_cells() -> None:
    for panel in heatmaps_of(correlation_heatmaps(correlations(1))):
        shades = np.asarray(panel.blocks[0].get_facecolor())[:, :3] @ [0.2126, 0.7152, 0.0722]
        for label, shade in zip(panel.labels, shades, strict=True):
            light = to_rgba(label.colour)[0]
            assert abs(light - shade) > 0.35, (label.text, shade)


@pytest.mark.parametrize("column", ["point", "position", "head"])
def test_heatmaps_are_of_one_point_position_and_head(column: str) -> None:
    table = pd.concat([correlations(1), correlations(1).assign(**{column: "other"})])
    with pytest.raises(ValueError, match=f"expected correlations at one {column}, got .*'other'"):
        correlation_heatmaps(table)


def test_the_best_map_chooses_on_the_fit_split() -> None:
    table = correlations(1, values=["a"], n_components=2)
    table["r_fit"], table["abs_r"] = [0.9, -0.95], [0.8, 0.7]
    (panel,) = heatmaps_of(best_correlation_map(table))
    assert texts_of(panel) == [".70\nc1"]


def test_the_best_map_names_positions_where_there_are_several() -> None:
    table = single_positions(1, ["x", "y"], values=["a"], n_components=1)
    table["r_fit"], table["abs_r"] = [0.1, 0.9], [0.1, 0.8]
    (panel,) = heatmaps_of(best_correlation_map(table))
    assert texts_of(panel) == [".80\nc0\nat 1"]


def test_position_maps_show_tokens_and_layer_0_on_top() -> None:
    table = single_positions(2, ["(", " ", "\n"], values=["a"], n_components=1)
    table["abs_r"] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    (panel,) = heatmaps_of(position_maps(table))
    assert cells(panel).tolist() == [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]
    labels = [name for _, name in panel.x_ticks]
    assert labels == ["(\n0", "\N{OPEN BOX}\n1", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n2"]
    assert panel.y_ticks == [(0, "0"), (1, "1")]
    bottom, top = panel.y
    assert bottom > top  # the first row is the highest


NOTE = "one component serves several values: layer 0 c3 (a, b-c)"


def test_figures_say_where_one_component_serves_several_values() -> None:
    traced = correlations(1, values=["a", "b", "b-c"])
    traced["r_fit"] = np.where(
        traced["value"] == "b", traced["component"] == 1, traced["component"] == 3
    )
    assert NOTE in texts(correlation_heatmaps(traced))
    best = best_correlation_map(traced)
    assert f"* {NOTE}" in texts(best)
    (panel,) = heatmaps_of(best)
    assert [text.split("\n")[1] for text in texts_of(panel)] == ["c3*", "c1", "c3*"]
    place = {"a": 3, "b": 1, "b-c": 3}
    found = evidence(1, list(place))
    found["component"] = [place[value] for value in found["value"]]
    assert f"* {NOTE}" in texts(evidence_maps(found))
    assert f"* {NOTE}" in texts(counterfactual_iia(counterfactual(found), found))
    edited = effects(1, values=list(place))
    edited["component"] = [place[value] for (value,) in edited["chosen_for"]]
    for draw in (dose_response, accuracy_by_layer):
        assert f"* {NOTE}" in texts(draw(edited))
    assert any(text == "b-c, layer 0: c3*" for text in texts(dose_response(edited)))
    bare = effects(1, values=["a", "b"])
    assert not any("serves" in text for text in texts(dose_response(bare)))


@pytest.mark.parametrize("chosen", [["a", "b-c"], ("a", "b-c"), np.array(["a", "b-c"])])
def test_a_direction_of_several_values_has_a_panel_for_each(chosen: Any) -> None:
    table = effects(1, values=["a"])
    table["chosen_for"] = pd.Series([chosen] * len(table), dtype=object)
    where = off_distribution(table, 1.5)
    sheet = dose_response(table, where)
    assert [panel.title for panel in sheet.panels] == ["a, layer 0: c0*", "b-c, layer 0: c0*"]
    drops = accuracy_by_layer(table, contrasts(table), draws(table))
    assert [panel.title for panel in drops.panels] == ["a", "", "b-c", ""]
    assert all(len(panel.lines) for panel in drops.panels)  # dots above, points below
    of = specificity(evidence(1, ["a", "b-c"])).head(2)
    of["direction_of"] = pd.Series([chosen] * 2, dtype=object)
    assert cells(
        specificity_maps(of, evidence(1, ["a", "b-c"]).assign(component=0)).panels[0]
    ).shape == (2, 2)


def panel_of(sheet: Sheet, title: str) -> Panel:
    """The panel whose title begins so."""
    return next(panel for panel in sheet.panels if panel.title.startswith(title))


def test_each_layer_has_a_panel_in_which_the_control_is_a_tint_of_its_target() -> None:
    table = effects(3, values=["b"])
    sheet = dose_response(table, title=TITLE)
    assert [panel.title for panel in sheet.panels] == [f"b, layer {k}: c0" for k in range(3)]
    heights = [panel.box[1] for panel in sheet.panels]
    assert heights == sorted(heights, reverse=True)  # layer 0 on top
    for layer, panel in enumerate(sheet.panels):
        control, target = panel.lines
        colour = layer_colours(range(3))[layer]
        assert to_rgba(target.get_color()) == colour
        assert to_rgba(control.get_color()) == pytest.approx(tint(colour))
        assert control.is_dashed()
        assert not target.is_dashed()
        rows = table[(table["layer"] == layer) & (table["arm"] == "target")]
        assert np.asarray(target.get_xdata()).tolist() == list(STRENGTHS)
        assert np.asarray(target.get_ydata()).tolist() == rows["edited_accuracy"].tolist()
    assert sheet.panels[-1].x_name == "strength of shift (sd)"
    assert any("share of exact answers" in text for text in texts(sheet))


def test_the_mean_shift_has_a_figure_of_its_own() -> None:
    table = effects(3, values=["b"])
    sheet = dose_response(table, response=SHIFT)
    rows = table[(table["layer"] == 2) & (table["arm"] == "target")]
    drawn = np.asarray(sheet.panels[2].lines[-1].get_ydata()).tolist()
    assert drawn == rows["mean_shift"].tolist()
    assert any("units of the answer" in text for text in texts(sheet))


def test_hues_of_targets_and_controls_can_be_told_apart() -> None:
    """In HSV: a tint has the hue of its colour, and no other layer's."""
    for count in (2, 4, 6, 8):
        colours = np.array([colour[:3] for colour in layer_colours(range(count)).values()])
        paler = np.array([tint((*colour, 1.0))[:3] for colour in colours])
        hues, of_controls = rgb_to_hsv(colours)[:, 0], rgb_to_hsv(paler)[:, 0]
        assert of_controls == pytest.approx(hues)
        assert np.abs(hues[:, None] - hues[None])[~np.eye(count, dtype=bool)].min() > 0.02


def test_many_layers_are_maps_with_their_controls_beside_them() -> None:
    table = effects(9, values=["b"], strengths=[-1.0, 2.0])
    target, control = heatmaps_of(dose_response(table))
    assert [target.title, control.title] == ["b\ncomponent", "b\nits control"]
    for panel, arm in ((target, "target"), (control, "control")):
        wide = table[table["arm"] == arm].pivot(
            index="layer", columns="strength", values="edited_accuracy"
        )
        assert cells(panel) == pytest.approx(wide.to_numpy())
    assert target.y[0] > target.y[1]  # layer 0 on top
    assert [name for _, name in target.x_ticks] == ["\N{MINUS SIGN}1", "2"]
    shifts = heatmaps_of(dose_response(table, response=SHIFT))
    assert [float(np.sign(cells(panel)[8, 0])) for panel in shifts] == [-1, -1]


def test_one_strength_stands_layer_by_layer() -> None:
    table = with_intervals(effects(3, values=["b"], strengths=[1.0]))
    (panel,) = dose_response(table).panels
    colours = layer_colours(range(3))
    drawn = [(to_rgba(point.get_color()), point.get_markerfacecolor()) for point in panel.lines]
    for layer in range(3):
        control, target = drawn[2 * layer : 2 * layer + 2]
        assert control == (pytest.approx(tint(colours[layer])), "white")
        assert target == (colours[layer], colours[layer])
    assert [name for _, name in panel.x_ticks] == ["0\nc0", "1\nc0", "2\nc0"]


def shaded(panel: Panel) -> list[tuple[float, float]]:
    """The stretches of the x axis under a shade."""
    found = [blocks for blocks in panel.blocks if blocks.get_zorder() == 0]
    return [(low, high) for blocks in found for low, _, high, _ in corners(blocks)]


OUT = "over half of the edits leave the observed range"


def test_strengths_that_lead_out_of_the_observed_range_are_shaded() -> None:
    table = effects(1, values=["b", "c"], strengths=[-2.0, -1.0, 0.0, 2.0])
    where = off_distribution(table, 1.5)  # half of the edits are outside at 1.5
    where.loc[where["chosen_for"].isin([("c",)]), "outside_range"] = 0.5
    sheet = dose_response(table, where)
    of_b, of_c = sheet.panels
    low, high = of_b.x
    (left, right) = shaded(of_b)
    assert left == pytest.approx((low, -1.5), abs=0.01)
    assert right == pytest.approx((1.5, high), abs=0.01)
    assert not shaded(of_c)  # half is not more than half
    assert OUT in keys_of(sheet)
    assert OUT not in keys_of(dose_response(table))
    assert OUT not in keys_of(dose_response(table, where.assign(outside_range=0.5)))


def test_the_shade_is_of_the_directions_that_are_drawn() -> None:
    """Of the panel's layer, and of no position but the one with the largest drop."""
    table = effects(2, values=["b"], positions=["0", "1"], strengths=[1.0, 2.0])
    where = off_distribution(table, 1.0).assign(outside_range=0.0)
    where.loc[where["position"] == "0", "outside_range"] = 1.0
    assert not any(shaded(panel) for panel in dose_response(table, where).panels)
    here = (where["position"] == "1") & (where["layer"] == 1) & (where["strength"] == 2.0)
    where.loc[here, "outside_range"] = 0.9
    first, second = dose_response(table, where).panels
    assert not shaded(first)
    assert len(shaded(second)) == 1


def test_strengths_outside_the_range_are_shaded_in_all_layouts() -> None:
    one = effects(2, values=["b"], strengths=[-3.0])
    where = off_distribution(one, 1.0)
    where.loc[where["layer"] == 0, "outside_range"] = 0.0
    (panel,) = dose_response(one, where).panels
    assert shaded(panel) == [(0.5, 1.5)]  # layer 1
    many = effects(9, values=["b"], strengths=[-3.0, 0.0])
    target, control = heatmaps_of(dose_response(many, off_distribution(many, 1.0)))
    assert target.hatched == [(layer, 0) for layer in range(9)]
    assert not control.hatched


def test_strengths_are_drawn_in_order() -> None:
    (panel,) = dose_response(effects(1, values=["b"], strengths=[2.0, -1.0, 0.0])).panels
    assert np.asarray(panel.lines[-1].get_xdata()).tolist() == [-1.0, 0.0, 2.0]


def test_of_several_positions_the_one_with_the_largest_drop_is_drawn() -> None:
    table = effects(1, values=["b"], positions=["0", "1"])
    sheet = dose_response(table)
    line = sheet.panels[0].lines[-1]
    drawn = table[(table["position"] == "1") & (table["arm"] == "target")]["edited_accuracy"]
    assert np.asarray(line.get_ydata()).tolist() == drawn.tolist()
    assert any("positions: the one with the largest drop" in text for text in texts(sheet))


def test_values_stand_in_the_order_of_their_making() -> None:
    sheet = accuracy_by_layer(effects(1, values=["a-(b-c)", "c", "b-c", "a"]))
    assert [panel.title for panel in sheet.panels] == ["a", "c", "b-c", "a-(b-c)"]


def test_failed_rows_are_counted_and_not_drawn() -> None:
    table = effects(1, values=["b"])
    table.loc[table["strength"] == STRENGTHS[0], ["status", "accuracy_drop"]] = ["failed", np.nan]
    sheet = dose_response(table)
    assert any("failed rows left out: 2" in text for text in texts(sheet))
    assert len(np.asarray(sheet.panels[0].lines[-1].get_xdata())) == len(STRENGTHS) - 1


@pytest.mark.parametrize("draw", [dose_response, accuracy_by_layer])
def test_nothing_but_failures_is_an_error(draw: Any) -> None:
    with pytest.raises(ValueError, match="expected effects with status 'ok', got none"):
        draw(effects(1).assign(status="failed"))


def heights(panel: Panel) -> list[float]:
    """Of the bars: of all targets, then of all controls."""
    return [
        top if top > 0 else bottom
        for blocks in panel.blocks
        for _, bottom, _, top in corners(blocks)
    ]


def test_bars_are_the_largest_drop_and_its_own_control() -> None:
    table = effects(2, values=["b"], strengths=[1.0, 2.0])
    control = (table["arm"] == "control") & (table["strength"] == 1.0)
    table.loc[control, "accuracy_drop"] = 0.9  # larger, but at another strength
    (panel,) = accuracy_by_layer(table).panels
    at_two = table[table["strength"] == 2.0]
    expected = [*at_two[at_two["arm"] == "target"]["accuracy_drop"]]
    assert heights(panel) == pytest.approx(
        [*expected, *at_two[at_two["arm"] == "control"]["accuracy_drop"]]
    )
    targets, controls = (blocks.get_facecolor() for blocks in panel.blocks)
    colours = list(layer_colours(range(2)).values())
    assert targets == pytest.approx(np.array(colours))
    assert controls == pytest.approx(np.array([tint(colour) for colour in colours]))


def test_only_targets_are_taken_for_targets() -> None:
    """The other arms stand in the tables; two values of one component are rows of their own."""
    table = effects(2, values=["b", "c"], strengths=[1.0]).assign(component=0)
    table.loc[table["chosen_for"].isin([("c",)]), ["edited_accuracy", "accuracy_drop"]] = [
        0.5,
        0.47,
    ]
    others = table.assign(arm="span", accuracy_drop=0.99, edited_accuracy=0.0)
    whole = pd.concat([table, others, others.assign(arm="shuffled")], ignore_index=True)
    b = table[table["chosen_for"].isin([("b",)])]
    wanted = [b.loc[b["arm"] == arm, "accuracy_drop"].tolist() for arm in ("target", "control")]
    of_b, of_c = accuracy_by_layer(whole).panels
    assert heights(of_b) == pytest.approx([*wanted[0], *wanted[1]])
    assert set(heights(of_c)) == {0.47}
    assert len(panel_of(dose_response(whole), "b").lines) == 4


def test_bars_and_bands_are_the_tables_intervals() -> None:
    table = with_intervals(effects(1, values=["b"]))
    (panel,) = accuracy_by_layer(table, level=0.9).panels
    worst = table.loc[table["arm"] == "target"].sort_values("accuracy_drop").iloc[-1]
    ((_, low), (_, high)) = panel.ends[0].get_segments()[0]
    assert (low, high) == pytest.approx((worst["accuracy_drop_low"], worst["accuracy_drop_high"]))
    sheet = dose_response(table, level=0.9)
    assert any("90% intervals" in text for text in texts(sheet))
    control, target = (band.get_paths()[0].get_extents() for band in sheet.panels[0].bands)
    ends = {
        arm: table.loc[table["arm"] == arm, ["edited_accuracy_low", "edited_accuracy_high"]]
        for arm in ("control", "target")
    }
    for band, arm in ((control, "control"), (target, "target")):
        assert (band.y0, band.y1) == pytest.approx(
            (ends[arm]["edited_accuracy_low"].min(), ends[arm]["edited_accuracy_high"].max())
        )
    many = dose_response(with_intervals(effects(9, values=["b"])))
    assert not any("intervals" in text for text in texts(many))


def test_a_band_ends_where_its_interval_is_not_known() -> None:
    table = with_intervals(effects(1, values=["b"], strengths=[0.0, 1.0, 2.0, 3.0, 4.0]))
    table.loc[table["strength"] == 2.0, "edited_accuracy_low"] = np.nan
    (panel,) = dose_response(table).panels
    pieces = [path.get_extents() for path in panel.bands[-1].get_paths()]
    assert [(piece.x0, piece.x1) for piece in pieces] == [(0.0, 1.0), (3.0, 4.0)]


def test_six_layers_have_bands_that_do_not_lie_over_each_other() -> None:
    sheet = dose_response(with_intervals(effects(6)), title=TITLE)
    assert len(sheet.panels) == 6 * len(VALUES)
    assert {len(panel.bands) for panel in sheet.panels} == {2}  # its own, and its control's


def test_what_is_beyond_the_control_is_hollow_where_it_may_be_chance() -> None:
    table = effects(4, values=["b"])
    found = contrasts(table).assign(
        excess_drop=[0.1, 0.2, 0.3, 0.2],
        p_max=[0.051, 0.05, np.nan, 0.05],
        low=[0.05, 0.05, 0.05, -0.01],
        high=0.5,
    )
    others = found.assign(arm="span", excess_drop=0.9)
    sheet = accuracy_by_layer(table, pd.concat([found, others]), draws(table, 4))
    above, below = sheet.panels
    dots = [line for line in above.lines if line.get_markersize() < 2]
    assert [len(np.asarray(line.get_xdata())) for line in dots] == [4] * 4
    points = [line for line in below.lines if line.get_marker() == "o"]
    assert [float(np.asarray(point.get_ydata())[0]) for point in points] == [0.1, 0.2, 0.3, 0.2]
    filled = [point.get_markerfacecolor() != "white" for point in points]
    assert filled == [False, True, False, False]


def test_a_number_stands_by_the_column_that_says_so_or_where_p_and_interval_agree() -> None:
    row = {"slope": 0.3, "low": 0.1, "p": 0.01, "yes": True, "no": False, "unknown": pd.NA}
    stands = [counts(row, Claim("slope", counts=name)) for name in ("yes", "no", "unknown", "gone")]
    assert stands == [True, False, False, False]
    assert counts(row, Claim("slope", "low", p="p"))
    assert not counts(row | {"low": -0.1}, Claim("slope", "low", p="p"))
    assert not counts(row | {"p": 0.051}, Claim("slope", "low", p="p"))
    assert not counts(row | {"p": None}, Claim("slope", "low", p="p"))
    assert counts(row, Claim("slope"))  # of which nothing says how sure it is


def test_the_evidence_says_what_may_be_chance() -> None:
    table = evidence(2, ["b", "c"])
    r, partial, excess, iia = heatmaps_of(evidence_maps(table, title=TITLE))
    assert cells(r).tolist() == [[0.45, 0.9]] * 2  # |R|, of negative R too
    written = [texts_of(panel) for panel in (r, partial, excess, iia)]
    assert written[0][:2] == ["(.45)", ".35 to .55"]
    assert written[0][4:6] == [".90", ".80 to 1.00"]
    assert written[1][4:6] == [".50", "given c"]
    assert written[2][:2] == ["(.05)", "\N{MINUS SIGN}.05 to .15"]
    assert written[2][4:6] == [".30", ".20 to .40"]
    assert written[3][4:6] == [".90", ".85 to .95\nfl. .03 c. .97"]
    pale = [label.colour for label in r.labels[:1]]
    assert pale == ["0.25"]


def test_the_evidence_shows_all_that_is_known_and_the_slope_beside_its_floor() -> None:
    table = known(2).loc[lambda rows: rows["value"] == "b"]
    shown = heatmaps_of(evidence_maps(table))
    panels = {panel.title.split("\n")[0]: panel for panel in shown}
    assert [panel.title.split("\n")[0] for panel in shown] == [
        "|R|",
        "least |R|, another",
        "drop beyond directions",
        "drop beyond directions",
        "drop beyond",
        "IIA: answers that",
        "slope: how far answers",
    ]
    assert texts_of(panels["|R|"])[:2] == ["(.45)", ".35 to .55\nun. .20"]
    slope = panels["slope: how far answers"]
    assert texts_of(slope) == ["(.55)", ".40 to .65\nra. .50", "1.00", ".85 to 1.10\nra. .50"]
    without = heatmaps_of(evidence_maps(table.drop(columns=["slope_random", "untrained_abs_r"])))
    assert texts_of(without[-1])[:2] == ["(.55)", ".40 to .65"]


def test_the_evidence_of_many_layers_is_hatched() -> None:
    r, partial, *_ = heatmaps_of(evidence_maps(evidence(30, ["b"])))
    assert not texts_of(r)
    assert r.hatched == [(0, layer) for layer in range(3)]  # p of layer 0; 0 inside up to layer 2
    assert not partial.hatched  # has no p-value and no interval


def test_an_interval_across_zero_is_one_of_r_without_its_sign() -> None:
    table = evidence(1, ["b"]).assign(r=-0.05, r_low=-0.2, r_high=0.1)
    r, *_ = heatmaps_of(evidence_maps(table))
    assert texts_of(r)[:2] == ["(.05)", ".00 to .20"]


def test_the_evidence_is_of_the_position_that_is_best_on_the_fit_split() -> None:
    table = evidence(1, ["b"], positions=["0", "1"])
    table.loc[table["position"] == "1", "r"] = 0.5  # worse on the report split, and yet it is it
    r, *_ = heatmaps_of(evidence_maps(table))
    assert cells(r).tolist() == [[0.5]]


def test_what_was_not_asked_has_no_map_and_what_is_missing_no_number() -> None:
    table = evidence(2, ["b", "c"]).drop(columns=["iia", "least_partial_r"])
    table.loc[table["value"] == "c", "excess_random_drop"] = None
    _, excess = heatmaps_of(evidence_maps(table))
    assert np.isnan(cells(excess)[1]).all()
    assert texts_of(excess).count("\N{EN DASH}") == 2


def test_iia_stands_between_its_floor_and_ceiling() -> None:
    table = evidence(2, ["b"])
    sheet = counterfactual_iia(counterfactual(table), table, title=TITLE)
    (panel,) = sheet.panels
    drawn = [np.asarray(line.get_ydata()).tolist() for line in panel.lines]
    assert drawn == [[0.05], [0.05], [0.45], [0.9], [0.03, 0.03], [0.97, 0.97]]
    ends = [
        [float(segment[:, 1].min()), float(segment[:, 1].max())]
        for bar in panel.ends
        for segment in bar.get_segments()
    ]
    assert ends[2:] == [pytest.approx([0.4, 0.5]), pytest.approx([0.85, 0.95])]
    colours = list(layer_colours(range(2)).values())
    shades = [to_rgba(line.get_color()) for line in panel.lines[:4]]
    assert shades == [*(pytest.approx(tint(colour)) for colour in colours), *colours]


def test_specificity_is_a_matrix_of_directions_and_values() -> None:
    table = evidence(2, ["b", "c"])
    rows = specificity(table)
    of_b = rows["direction_of"].isin([("b",)])
    # a has no place of its own
    rows.loc[of_b, "direction_of"] = pd.Series([("b", "a")] * of_b.sum(), rows.index[of_b])
    _, panel = heatmaps_of(specificity_maps(rows, table, title=TITLE))
    assert cells(panel).tolist() == [[0.95, -0.2], [0.0, 0.95]]
    assert texts_of(panel)[:4] == [
        ".95",
        ".85 to 1.05",
        "\N{MINUS SIGN}.20",
        "\N{MINUS SIGN}.30 to \N{MINUS SIGN}.10",
    ]


@pytest.mark.parametrize("draw", [counterfactual_iia, specificity_maps])
def test_edits_of_other_components_than_the_evidences_are_an_error(draw: Any) -> None:
    table = evidence(1, ["b"])
    rows = counterfactual(table) if draw is counterfactual_iia else specificity(table)
    with pytest.raises(ValueError, match="of the components in the evidence, got none"):
        draw(rows, table.assign(component=7))


def test_no_evidence_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected a table of evidence with rows, got none"):
        evidence_maps(evidence().iloc[:0])


def test_a_directions_number_names_its_panel_where_no_value_chose_it() -> None:
    table = effects(1, values=["a"])
    sheet = accuracy_by_layer(table.assign(chosen_for=[()] * len(table)))
    assert [panel.title for panel in sheet.panels] == ["component 0"]


def bands(panel: Panel) -> list[tuple[float, float]]:
    """The stretches of the y axis under a shade."""
    return [(low, high) for blocks in panel.blocks for _, low, _, high in corners(blocks)]


def test_locality_names_what_was_moved_by_its_rank() -> None:
    for draw in (locality_example, locality_distance):
        (panel,) = draw(curves(1, ["b"]).assign(rank=4), title=TITLE).panels
        assert panel.title == "layer 0, subspace of rank 4"
        (panel,) = draw(curves(1, ["b"]).drop(columns="rank"), title=TITLE).panels
        assert panel.title == "layer 0, component 0"
    both = pd.concat([curves(1, ["b"]), curves(1, ["b"]).assign(rank=4)], ignore_index=True)
    (panel,) = locality_distance(both, title=TITLE).panels
    assert panel.title == "layer 0, component 0 and subspace of rank 4"
    assert {row["rank"] for row in locality_distance(both).rows} == {1, 4}


def test_the_locality_example_shows_both_functions_the_range_and_the_original() -> None:
    (panel,) = locality_example(curves(1, ["b"]), title=TITLE).panels
    actual, predicted, original = panel.lines
    assert np.asarray(original.get_xdata()).tolist() == [500.0, 500.0]
    assert np.asarray(actual.get_ydata())[0] == pytest.approx((100 - 550) / 25)
    assert np.asarray(predicted.get_ydata())[0] == pytest.approx((100 - 550) / 25 + 1.6)
    bottom, top = panel.y
    assert bands(panel) == [pytest.approx((bottom, -18.0)), pytest.approx((18.0, top))]
    assert "units of activation" in panel.y_name
    assert panel.title == "layer 0, component 0"


def test_the_observed_range_may_come_from_outside_the_table() -> None:
    ends = ["original", "observed_low", "observed_high", "low", "high"]
    bare = curves(1, ["b"]).drop(columns=ends)
    (panel,) = locality_example(bare).panels
    assert not panel.blocks
    assert len(panel.lines) == 2
    bottom, top = panel.y
    (panel,) = locality_example(bare, (-5.0, 5.0)).panels
    assert bands(panel) == [pytest.approx((bottom, -5.0)), pytest.approx((5.0, top))]
    (panel,) = locality_example(bare, (-99.0, 99.0)).panels
    assert not panel.blocks
    assert panel.y == (bottom, top)


def test_the_locality_distance_has_a_median_and_a_band() -> None:
    (panel,) = locality_distance(curves(1, ["b"]), title=TITLE).panels
    assert np.asarray(panel.lines[0].get_ydata())[5] == pytest.approx(1.2)
    (band,) = panel.bands
    assert band.get_paths()[0].get_extents().height == pytest.approx(5.2 * 1.5 - 1.2 * 0.6)


@pytest.mark.parametrize("draw", [locality_example, locality_distance])
def test_no_locality_curves_is_an_error(draw: Any) -> None:
    with pytest.raises(ValueError, match=r"expected locality curves of kind .*, got none"):
        draw(curves(1).iloc[:0])


@pytest.mark.parametrize("draw", [correlation_heatmaps, best_correlation_map, position_maps])
def test_no_correlations_is_an_error(draw: Any) -> None:
    with pytest.raises(ValueError, match="expected a table of correlations with rows, got none"):
        draw(correlations(1).iloc[:0])


def whole() -> dict[str, pd.DataFrame]:
    return {
        "correlations": pd.concat([correlations(2), single_positions(2)], ignore_index=True),
        "effects": effects(2),
        "off_distribution": off_distribution(effects(2), 1.5),
        "locality_curves": curves(2),
        "contrasts": contrasts(effects(2)),
        "control_draws": draws(effects(2)),
        "evidence": evidence(2),
        "counterfactual": counterfactual(evidence(2)),
        "specificity": specificity(evidence(2)),
    }


def test_a_cell_has_a_figure_for_every_table() -> None:
    tables = whole()
    before = {name: table.copy() for name, table in tables.items()}
    figures = cell_figures(tables, title=TITLE)
    assert list(figures) == [
        "counterfactual",
        "specificity",
        "correlations",
        "best_correlations",
        "positions",
        "dose_response",
        "mean_shift",
        "accuracy_by_layer",
        "evidence",
        "locality_example",
        "locality_distance",
    ]
    assert len(heatmaps_of(figures["correlations"])) == 2  # the named position, not the single ones
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, before[name])


def test_a_cell_that_edits_other_components_alone_has_no_figures_of_the_best_ones() -> None:
    tables = whole()
    tables["counterfactual"]["component"] = 9
    tables["specificity"]["direction_of"] = [()] * len(tables["specificity"])
    figures = cell_figures(tables, title=TITLE)
    assert "dose_response" in figures
    assert not {"counterfactual", "specificity"} & set(figures)


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (correlations(2), ["correlations", "best_correlations"]),
        (single_positions(2), ["best_correlations", "positions"]),
        (
            correlations(2, positions=[("5", 5, "x")]),  # one position, asked for by its index
            ["correlations", "best_correlations"],
        ),
        (
            correlations(2, positions=[("a//b", -1, ""), ("last", -1, "")]),
            ["correlations_a//b", "correlations_last", "best_correlations"],
        ),
    ],
)
def test_a_cell_without_edits_has_fewer(table: pd.DataFrame, names: list[str]) -> None:
    tables = {"correlations": table, "effects": pd.DataFrame()}
    assert list(cell_figures(tables, title=TITLE)) == names


def test_figures_are_saved_under_names_that_files_can_have(tmp_path: Path) -> None:
    figures = {"best": best_correlation_map(correlations(1)), "map a//b": Figure(figsize=(2, 1))}
    paths = save_figures(figures, tmp_path / "figures")
    assert [path.name for path in paths] == ["best.png", "best.csv", "map_a_b.png"]
    assert sorted((tmp_path / "figures").iterdir()) == sorted(paths)
    with Image.open(paths[2]) as image:
        assert image.format == "PNG"
        assert image.size == (300, 150)


def test_two_figures_never_share_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected figures with different file names"):
        save_figures({"a/b": Figure(), "a+b": Figure()}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def drawn_in(
    tables: dict[str, pd.DataFrame], directory: Path, title: str = TITLE
) -> dict[str, bytes]:
    draw_cell(tables, directory, title=title)
    return {path.stem: path.read_bytes() for path in directory.glob("*.png")}


@pytest.mark.slow
def test_what_another_cell_has_drawn_is_not_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes, and only the figures of the tables that differ are made."""
    first = drawn_in(whole(), tmp_path / "first")
    assert first == {
        path.stem: path.read_bytes()
        for path in save_figures(cell_figures(whole(), title=TITLE), tmp_path / "each")
        if path.suffix == ".png"
    }
    drawn: list[str] = []
    draw = Sheet.draw
    monkeypatch.setattr(Sheet, "draw", lambda *given: (drawn.append("sheet"), draw(*given)))
    assert drawn_in(whole(), tmp_path / "again") == first
    assert not drawn
    other = whole()
    other["effects"]["edited_accuracy"] *= 0.5
    found = drawn_in(other, tmp_path / "other")
    assert [name for name in first if found[name] != first[name]] == ["dose_response"]
    assert len(drawn) == 3  # of the table that differs: accuracy, mean shift, drops
    assert drawn_in(whole(), tmp_path / "named", title="another model") != first


def test_the_order_and_the_type_of_rows_are_part_of_what_was_drawn(tmp_path: Path) -> None:
    table = correlations(1, values=["a", "b"])
    first = drawn_in({"correlations": table}, tmp_path / "first")
    turned = drawn_in({"correlations": table.iloc[::-1]}, tmp_path / "turned")
    assert first["correlations"] != turned["correlations"]


@pytest.mark.slow
def test_no_global_state_of_matplotlib_is_used() -> None:
    code = "import sys, mech_arith.reports.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, ".00"),
        (-0.001, ".00"),
        (-0.5, "\N{MINUS SIGN}.50"),
        (-1.5, "\N{MINUS SIGN}1.50"),
        (0.07, ".07"),
        (0.996, "1.00"),
        (1.0, "1.00"),
    ],
)
def test_two_digits(share: float, text: str) -> None:
    assert two_digits(share) == text


def test_layer_colours_are_all_different() -> None:
    colours = layer_colours([3, 1, 2, 2])
    assert list(colours) == [1, 2, 3]
    assert len(set(colours.values())) == 3
    assert list(layer_colours([0])) == [0]


def test_the_map_of_heads_shows_each_number_at_its_layer_and_head() -> None:
    table = of_heads(evidence(3, ["a", "b"]), [10, 2])
    table.loc[(table["head"] == "2") & (table["layer"] == 1), "iia"] = np.nan
    sheet = head_maps(table, title=TITLE)
    panels = {panel.title: panel for panel in sheet.panels}
    assert [title for title in panels if title] == [
        f"{value}\n{number}" for value in "ab" for number in ("|R|", "IIA", "ceiling of IIA")
    ]
    for row in table.to_dict(orient="records"):
        at = row["layer"], [2, 10].index(int(row["head"]))
        for title, number in (("|R|", "r"), ("IIA", "iia"), ("ceiling of IIA", "ceiling")):
            shown = panels[f"{row['value']}\n{title}"].cells[at]
            np.testing.assert_equal(shown, abs(row[number]))
    # Of the lowest layer nothing counts, of the others all does.
    first = texts_of(panels["a\n|R|"])
    assert first[:2] == ["(.30)", "(.15)"]
    assert not any("(" in text for text in first[2:])
    assert [name for _, name in panels["a\n|R|"].x_ticks] == ["2", "10"]
    assert len(sheet.rows) == 12
    assert {"value", "layer", "head", "component", "r", "iia", "ceiling"} <= set(sheet.rows[0])


def contrasts_of_heads(table: pd.DataFrame) -> pd.DataFrame:
    """For a head 2 of layer 1 carries more than the others, for b it carries less; all else may be
    chance.
    """
    differs = (table["layer"] == 1) & (table["head"] == "2")
    return table[["value", *COMPONENT_COLUMNS]].assign(
        others_iia=0.1,
        difference=np.where(table["value"] == "a", 0.3, -0.3),
        low=np.where(table["value"] == "a", 0.2, -0.4),
        high=np.where(table["value"] == "a", 0.4, -0.2),
        p_max=np.where(differs, 0.001, 0.2),
    )


def framed_in(sheet: Sheet) -> dict[str, list[tuple[int, int]]]:
    """By the title of a map, the rows and columns of its cells with a frame."""
    found = {}
    for panel in sheet.panels:
        for block in panel.blocks:
            cells = [
                (round((below + above) / 2), round((left + right) / 2))
                for left, below, right, above in corners(block)
            ]
            if cells and same_color(block.get_edgecolor(), FRAME):
                found[panel.title] = cells
    return found


def test_a_head_that_carries_more_than_the_others_is_framed() -> None:
    table = of_heads(evidence(3, ["a", "b"]), [10, 2])
    sheet = head_maps(table, contrasts_of_heads(table), title=TITLE)
    assert framed_in(sheet) == {"a\nIIA": [(1, 0)]}  # layer 1, head 2 stands before 10
    assert "framed: more than the layer's other heads" in " ".join(texts(sheet))
    rows = pd.DataFrame(sheet.rows)
    assert set(rows["difference"]) == {0.3, -0.3}
    plain = head_maps(table, title=TITLE)
    assert framed_in(plain) == {}
    assert "framed" not in " ".join(texts(plain))


def test_of_several_positions_a_head_shows_the_one_that_is_best_on_the_fit_split() -> None:
    table = of_heads(evidence(1, ["a"], positions=("0", "1")), [0, 1])
    table.loc[table["position"] == "1", "r"] = 0.2  # worse on the report split, and yet it is it
    sheet = head_maps(table, title=TITLE)
    (panel,) = [panel for panel in sheet.panels if panel.title == "a\n|R|"]
    assert panel.cells.tolist() == [[0.2, 0.2]]
    assert "positions: the best of the fit split" in " ".join(texts(sheet))


def test_without_heads_there_is_no_map_of_them() -> None:
    assert "heads" not in cell_figures(
        {"correlations": correlations(2), "evidence": evidence(2)}, title="t"
    )
    with pytest.raises(ValueError, match="expected evidence at heads, got none; trace them with"):
        head_maps(evidence(2))


def test_methods_are_drawn_beside_each_other_as_they_are() -> None:
    few = of_ranks(evidence(2, ["b", "b-c"]))
    cells = {
        "pca": {"evidence": few, "counterfactual": counterfactual(few)},
        "das": {"evidence": few.assign(iia=0.5 * few["iia"])},
        "scale": {"evidence": evidence(2)},  # no answers at several ranks
    }
    sheet = iia_by_rank_and_method(cells, title=TITLE)
    rows = pd.DataFrame(sheet.rows)
    assert set(rows["method"]) == {"pca", "das"}
    best = best_rows(of_least_rank(few).to_dict(orient="records"))["b"]
    of_b = few.loc[(few["value"] == "b") & (few["layer"] == best["layer"])]
    lines = [np.asarray(line.get_ydata()).tolist() for line in sheet.panels[0].lines]
    assert of_b["iia"].tolist() in lines
    assert (0.5 * of_b["iia"]).tolist() in lines
    of_pca = rows.loc[(rows["method"] == "pca") & (rows["value"] == "b")]
    assert of_pca["iia"].tolist() == of_b["iia"].tolist()
    assert of_pca["rank"].tolist() == [1, 2, 4, 8]
    said = " ".join(texts(sheet))
    assert "pca" in said
    assert "das" in said
    with pytest.raises(ValueError, match="expected runs of several ranks with IIA, got none"):
        iia_by_rank_and_method({"scale": {"evidence": evidence(2)}})


def test_iia_against_rank_is_drawn_as_it_is() -> None:
    table = of_ranks(evidence(2, ["b", "b-c"]))
    sheet = iia_by_rank(table, counterfactual(of_ranks(evidence(2, ["b", "b-c"]))))
    of_b = table.loc[(table["value"] == "b") & (table["layer"] == 1)]
    lines = [np.asarray(line.get_ydata()).tolist() for line in sheet.panels[0].lines]
    for name in ("iia", "iia_random", "floor", "ceiling"):
        assert of_b[name].tolist() in lines
    rows = pd.DataFrame(sheet.rows)
    assert len(rows) == len(table)
    assert rows["rank"].tolist() == [1, 2, 4, 8] * 4
    assert set(rows["iia_random_low"].astype(float)) == {0.02}
    with pytest.raises(ValueError, match="expected evidence of several ranks with IIA, got none"):
        iia_by_rank(evidence(2))


def test_figures_of_one_number_a_layer_show_the_least_rank() -> None:
    table = pd.concat([effects(1, values=["b"]).assign(rank=rank) for rank in (4, 2)])
    table.loc[table["rank"] == 4, "accuracy_drop"] += 0.5
    sheet = dose_response(table)
    assert {row["component"] for row in sheet.rows} == {0}
    assert len(sheet.rows) == 2 * len(STRENGTHS)
    assert any("subspaces of rank 2 of 2, 4" in text for text in texts(sheet))
    assert "k2" in " ".join(texts(sheet))
    maps = evidence_maps(of_ranks(evidence(2), [2, 8]))
    assert {row["rank"] for row in maps.rows} == {2}
    assert any("subspaces of rank 2 of 2, 8" in text for text in texts(maps))
