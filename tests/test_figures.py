import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from mech_arith.figures import (
    accuracy_by_layer,
    best_correlation_map,
    cell_figures,
    correlation_heatmaps,
    counterfactual_agreement,
    dose_response,
    evidence_maps,
    locality_distance,
    locality_example,
    position_maps,
    save_figures,
    specificity_maps,
)
from mech_arith.figures.style import CONTROL, layer_colours, two_digits

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
                        "position_index": index,
                        "token": token,
                        "component": component,
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
                "component": k,
                "arm": arm,
                "chosen_for": (value,),
                "towards": "",
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


def manifold(table: pd.DataFrame, reach: float) -> pd.DataFrame:
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
                        "component": k,
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
                        "agreement": sure * 0.9,
                        "agreement_low": sure * 0.9 - 0.05,
                        "agreement_high": sure * 0.9 + 0.05,
                        "agreement_p": 0.2 if layer == 0 else 0.001,
                        "floor": 0.03,
                        "ceiling": 0.97,
                    }
                )
    return pd.DataFrame(rows)


def counterfactual(table: pd.DataFrame) -> pd.DataFrame:
    """Agreement of the evidence, and of random directions."""
    target = table.assign(arm="target", edit="set", strength=1.0, n=200)
    low = {"agreement": 0.05, "agreement_low": 0.02, "agreement_high": 0.1}
    half = target.assign(strength=0.5, agreement=0.5)
    return pd.concat([half, target, target.assign(arm="control", **low)], ignore_index=True)


def specificity(table: pd.DataFrame) -> pd.DataFrame:
    """Every direction carries its own value, and a little of the next, the wrong way."""
    rows = []
    for row in table.to_dict(orient="records"):
        for index, changed in enumerate(dict.fromkeys(table["value"])):
            slope = 0.95 if changed == row["value"] else -0.2 * (index % 2)
            place = {name: row[name] for name in ("layer", "point", "position", "component")}
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


def texts(figure: Figure) -> list[Text]:
    """All text that is drawn. Axes also keep tick labels that lie beyond their limits."""
    beyond = set()
    for axes in figure.axes:
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            low, high = sorted(limits)
            current = axis.get_major_ticks(len(axis.get_majorticklocs()))
            for tick in [*axis.majorTicks, *axis.minorTicks]:
                if tick not in current or not low <= tick.get_loc() <= high:
                    beyond |= {tick.label1, tick.label2}
    return [
        text
        for text in figure.findobj(Text)
        if isinstance(text, Text)
        and text.get_visible()
        and text.get_text().strip()
        and text not in beyond
    ]


def check_readable(figure: Figure) -> None:
    """Every text lies inside the figure, and none on another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = texts(figure)
    names = [text.get_text() for text in shown]
    boxes = np.array([text.get_window_extent().extents for text in shown])
    inside = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2:] <= canvas.get_width_height()).all(1)
    assert inside.all(), [name for name, ok in zip(names, inside, strict=True) if not ok]
    low, high = boxes[:, :2], boxes[:, 2:] - 0.5  # half a pixel of grace
    crossing = (low[:, None] < high[None]).all(2) & (low[None] < high[:, None]).all(2)
    np.fill_diagonal(crossing, val=False)
    assert not crossing.any(), [(names[i], names[j]) for i, j in np.argwhere(crossing) if i < j]


LONG = ("price", "count", "discount", "price*count", "(price*count)-discount")


def drops_of(table: pd.DataFrame) -> Figure:
    return accuracy_by_layer(table, contrasts(table), draws(table), title=TITLE)


FIGURES = {
    "heatmaps, 4 layers": lambda: correlation_heatmaps(correlations(4), title=TITLE),
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
    "dose, 7 values": lambda: dose_response(
        effects(2, values=["a", "b", "c", "d", "a-b", "a-b-c", "a-b-c-d"]), title=TITLE
    ),
    "dose, shaded, 4 layers": lambda: dose_response(
        effects(4), manifold(effects(4), 1.5), title=TITLE
    ),
    "dose, shaded, one value": lambda: dose_response(
        effects(30, values=["a"]), manifold(effects(30, values=["a"]), 1.5), title=TITLE
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
    "evidence, one of each": lambda: evidence_maps(evidence(1, ["a"]), title=TITLE),
    "evidence, long names": lambda: evidence_maps(evidence(6, LONG), title="gpt2, words"),
    "evidence, traced alone": lambda: evidence_maps(
        evidence(4).drop(columns=["excess_drop", "agreement"]), title=TITLE
    ),
    "counterfactual, 4 layers": lambda: counterfactual_agreement(
        counterfactual(evidence(4)), evidence(4), title=TITLE
    ),
    "counterfactual, 30 layers": lambda: counterfactual_agreement(
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
    "distance, 4 layers": lambda: locality_distance(curves(4), title=TITLE),
    "distance, 12 layers": lambda: locality_distance(curves(12, ["b"]), title=TITLE),
}


@pytest.mark.parametrize("name", FIGURES)
def test_labels_neither_overlap_nor_leave_the_figure(name: str) -> None:
    check_readable(FIGURES[name]())


@pytest.mark.parametrize("name", [name for name in FIGURES if "4 layers" in name])
def test_every_figure_says_what_it_shows(name: str) -> None:
    figure = FIGURES[name]()
    assert TITLE in [text.get_text() for text in texts(figure)]
    if not name.startswith(("heatmaps", "best", "positions", "specificity")):
        assert figure.legends


def test_the_check_sees_an_overlap() -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "one")
    check_readable(figure)
    figure.text(0.51, 0.5, "another")
    with pytest.raises(AssertionError, match="another"):
        check_readable(figure)


def heatmaps_of(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.images]


def cells(axes: Axes) -> np.ndarray:
    array = axes.images[0].get_array()
    assert array is not None
    return np.ma.filled(np.ma.asarray(array, dtype=float), np.nan)


def test_heatmaps_hold_the_report_split_and_frame_the_fit_splits_best() -> None:
    table = correlations(2)
    here = (table["layer"] == 1) & (table["value"] == "b")
    table.loc[here, "abs_r"] = np.linspace(0.1, 1.0, 10)  # best on the report split: component 9
    table.loc[here, "r_fit"] = np.linspace(-0.9, 0.0, 10)  # on the fit split: component 0
    _, second = heatmaps_of(correlation_heatmaps(table))
    assert cells(second)[1] == pytest.approx(np.linspace(0.1, 1.0, 10))
    written = [text.get_text() for text in second.texts][10:20]
    assert written == [".10", ".20", ".30", ".40", ".50", ".60", ".70", ".80", ".90", "1.00"]
    frames = [patch for patch in second.patches if isinstance(patch, Rectangle)]
    assert (frames[1].get_x(), frames[1].get_y()) == pytest.approx((-0.47, 0.53))


def test_heatmaps_show_the_explained_variance() -> None:
    table = correlations(1)
    bars, *_ = (axes for axes in correlation_heatmaps(table).axes if axes.containers)
    heights = [bar.get_height() for bar in bars.patches if isinstance(bar, Rectangle)]
    assert heights == pytest.approx(table.groupby("component")["explained_variance"].first())


def test_a_number_that_could_not_be_had_is_a_dash() -> None:
    table = correlations(1)
    table.loc[table["value"] == "c", ["r", "abs_r", "r_fit"]] = np.nan
    (axes,) = heatmaps_of(correlation_heatmaps(table, title=TITLE))
    assert {text.get_text() for text in axes.texts[20:30]} == {"\N{EN DASH}"}
    (axes,) = heatmaps_of(best_correlation_map(table, title=TITLE))
    assert axes.texts[2].get_text() == "\N{EN DASH}"


def test_numbers_can_be_read_on_their_cells() -> None:
    for axes in heatmaps_of(correlation_heatmaps(correlations(1))):
        shades = axes.images[0].to_rgba(cells(axes))[..., :3] @ [0.2126, 0.7152, 0.0722]
        for text, shade in zip(axes.texts, shades.flatten(), strict=True):
            light = to_rgba(text.get_color())[0]
            assert abs(light - shade) > 0.35, (text.get_text(), shade)


@pytest.mark.parametrize("column", ["point", "position"])
def test_heatmaps_are_of_one_point_and_position(column: str) -> None:
    table = pd.concat([correlations(1), correlations(1).assign(**{column: "other"})])
    with pytest.raises(ValueError, match=f"expected correlations at one {column}, got .*'other'"):
        correlation_heatmaps(table)


def test_the_best_map_chooses_on_the_fit_split() -> None:
    table = correlations(1, values=["a"], n_components=2)
    table["r_fit"], table["abs_r"] = [0.9, -0.95], [0.8, 0.7]
    (axes,) = heatmaps_of(best_correlation_map(table))
    assert axes.texts[0].get_text() == ".70\nc1"


def test_the_best_map_names_positions_where_there_are_several() -> None:
    table = single_positions(1, ["x", "y"], values=["a"], n_components=1)
    table["r_fit"], table["abs_r"] = [0.1, 0.9], [0.1, 0.8]
    (axes,) = heatmaps_of(best_correlation_map(table))
    assert axes.texts[0].get_text() == ".80\nc0 at 1"


def test_position_maps_show_tokens_and_the_lowest_layer_at_the_bottom() -> None:
    table = single_positions(2, ["(", " ", "\n"], values=["a"], n_components=1)
    table["abs_r"] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    (axes,) = heatmaps_of(position_maps(table))
    assert cells(axes).tolist() == [[0.4, 0.5, 0.6], [0.1, 0.2, 0.3]]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["(\n0", "\N{OPEN BOX}\n1", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n2"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "0"]


def panel(figure: Figure, title: str, ylabel: str = "") -> Axes:
    """The panel under a title, or under the panel under it."""
    found = [axes for axes in figure.axes if axes.get_title() == title]
    if ylabel:
        found = [axes for axes in figure.axes if axes.get_ylabel().startswith(ylabel)]
    return found[0]


def test_dose_response_draws_a_colour_per_layer_and_controls_grey() -> None:
    table = effects(3, values=["b"])
    figure = dose_response(table, title=TITLE)
    axes = panel(figure, "b")
    lines = [line for line in axes.lines if len(np.asarray(line.get_xdata())) == len(STRENGTHS)]
    colours = [to_rgba(line.get_color()) for line in lines]
    assert colours == [to_rgba(CONTROL)] * 3 + list(layer_colours(range(3)).values())
    target = table[(table["layer"] == 2) & (table["arm"] == "target")]
    assert np.asarray(lines[-1].get_xdata()).tolist() == list(STRENGTHS)
    assert np.asarray(lines[-1].get_ydata()).tolist() == target["edited_accuracy"].tolist()
    assert axes.get_xlabel() == "strength of shift (sd)"
    assert "share of exact answers" in axes.get_ylabel()
    below = panel(figure, "", "mean shift of prediction")
    assert "units of the answer" in below.get_ylabel()
    assert np.asarray(below.lines[-1].get_ydata()).tolist() == target["mean_shift"].tolist()


def shaded(axes: Axes) -> list[tuple[float, float]]:
    """The stretches of the x axis under a shade."""
    pieces = [path for band in axes.collections for path in band.get_paths()]
    ends = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in pieces]
    return [(float(low), float(high)) for low, high in ends]


def test_strengths_that_lead_out_of_the_observed_range_are_shaded() -> None:
    table = effects(1, values=["b", "c"], strengths=[-2.0, -1.0, 0.0, 2.0])
    where = manifold(table, 1.5)  # half of the edits are outside at 1.5
    where.loc[where["chosen_for"].isin([("c",)]), "outside_range"] = 0.5
    figure = dose_response(table, where)
    axes = panel(figure, "b")
    low, high = axes.get_xlim()
    (left, right) = shaded(axes)
    assert left == pytest.approx((low, -1.5), abs=0.01)
    assert right == pytest.approx((1.5, high), abs=0.01)
    assert not shaded(panel(figure, "c"))  # half is not more than half
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "over half of the edits leave the observed range" in names
    names = [
        text.get_text() for legend in dose_response(table).legends for text in legend.get_texts()
    ]
    assert "over half of the edits leave the observed range" not in names


def test_the_shade_is_of_the_directions_that_are_drawn() -> None:
    """Of all layers in the panel, and of no position but the one with the largest drop."""
    table = effects(2, values=["b"], positions=["0", "1"], strengths=[1.0, 2.0])
    where = manifold(table, 1.0).assign(outside_range=0.0)
    where.loc[where["position"] == "0", "outside_range"] = 1.0
    assert not shaded(panel(dose_response(table, where), "b"))
    drawn, second = where["position"] == "1", where["strength"] == 2.0
    where.loc[drawn & second, "outside_range"] = [0.9, 0.05]
    assert not shaded(panel(dose_response(table, where), "b"))
    where.loc[drawn & second, "outside_range"] = [0.9, 0.35]
    assert len(shaded(panel(dose_response(table, where), "b"))) == 1


def test_one_strength_may_be_shaded_too() -> None:
    table = effects(1, values=["b"], strengths=[-3.0])
    axes = panel(dose_response(table, manifold(table, 1.0)), "b")
    assert shaded(axes) == [pytest.approx(axes.get_xlim())]


def test_strengths_are_drawn_in_order() -> None:
    figure = dose_response(effects(1, values=["b"], strengths=[2.0, -1.0, 0.0]))
    line = panel(figure, "b").lines[-1]
    assert np.asarray(line.get_xdata()).tolist() == [-1.0, 0.0, 2.0]


def test_of_several_positions_the_one_with_the_largest_drop_is_drawn() -> None:
    table = effects(1, values=["b"], positions=["0", "1"])
    figure = dose_response(table)
    line = panel(figure, "b").lines[-1]
    drawn = table[(table["position"] == "1") & (table["arm"] == "target")]["edited_accuracy"]
    assert np.asarray(line.get_ydata()).tolist() == drawn.tolist()
    assert any("position with the largest drop" in text.get_text() for text in figure.texts)


def test_values_stand_in_the_order_of_their_making() -> None:
    figure = accuracy_by_layer(effects(1, values=["a-(b-c)", "c", "b-c", "a"]))
    assert [axes.get_title() for axes in figure.axes] == ["a", "c", "b-c", "a-(b-c)"]


def test_failed_rows_are_counted_and_not_drawn() -> None:
    table = effects(1, values=["b"])
    table.loc[table["strength"] == STRENGTHS[0], ["status", "accuracy_drop"]] = ["failed", np.nan]
    figure = dose_response(table)
    assert any("failed rows left out: 2" in text.get_text() for text in figure.texts)
    assert len(np.asarray(panel(figure, "b").lines[-1].get_xdata())) == len(STRENGTHS) - 1


@pytest.mark.parametrize("draw", [dose_response, accuracy_by_layer])
def test_nothing_but_failures_is_an_error(draw: Any) -> None:
    with pytest.raises(ValueError, match="expected effects with status 'ok', got none"):
        draw(effects(1).assign(status="failed"))


def test_bars_are_the_largest_drop_and_its_own_control() -> None:
    table = effects(2, values=["b"], strengths=[1.0, 2.0])
    control = (table["arm"] == "control") & (table["strength"] == 1.0)
    table.loc[control, "accuracy_drop"] = 0.9  # larger, but at another strength
    (axes,) = accuracy_by_layer(table).axes
    heights = [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)]
    at_two = table[table["strength"] == 2.0]
    expected = [*at_two[at_two["arm"] == "target"]["accuracy_drop"]]
    assert heights == pytest.approx(
        [*expected, *at_two[at_two["arm"] == "control"]["accuracy_drop"]]
    )
    colours = [to_rgba(bar.get_facecolor()) for bar in axes.patches]
    assert colours[2:] == [to_rgba(CONTROL)] * 2
    assert len(set(colours[:2])) == 2


def test_only_targets_are_taken_for_targets() -> None:
    """The other arms stand in the tables; two values of one component are rows of their own."""
    table = effects(2, values=["b", "c"], strengths=[1.0]).assign(component=0)
    table.loc[table["chosen_for"].isin([("c",)]), ["edited_accuracy", "accuracy_drop"]] = [
        0.5,
        0.47,
    ]
    others = table.assign(arm="span", accuracy_drop=0.99, edited_accuracy=0.0)
    whole = pd.concat([table, others, others.assign(arm="shuffled")], ignore_index=True)
    of_b = panel(accuracy_by_layer(whole), "b")
    heights = [bar.get_height() for bar in of_b.patches if isinstance(bar, Rectangle)]
    b = table[table["chosen_for"].isin([("b",)])]
    wanted = [b.loc[b["arm"] == arm, "accuracy_drop"].tolist() for arm in ("target", "control")]
    assert heights == pytest.approx([*wanted[0], *wanted[1]])
    of_c = panel(accuracy_by_layer(whole), "c")
    assert {bar.get_height() for bar in of_c.patches if isinstance(bar, Rectangle)} == {0.47}
    assert len(panel(dose_response(whole), "b").lines) == 1 + 4


def test_bars_and_bands_are_the_tables_intervals() -> None:
    table = with_intervals(effects(1, values=["b"]))
    (axes,) = accuracy_by_layer(table, level=0.9).axes
    worst = table.loc[table["arm"] == "target"].sort_values("accuracy_drop").iloc[-1]
    ((_, low), (_, high)) = axes.collections[0].get_segments()[0]
    assert (low, high) == pytest.approx((worst["accuracy_drop_low"], worst["accuracy_drop_high"]))
    figure = dose_response(table, level=0.9)
    assert any("90% intervals" in text.get_text() for text in figure.texts)
    control, target = (band.get_paths()[0].get_extents() for band in panel(figure, "b").collections)
    ends = {
        arm: table.loc[table["arm"] == arm, ["edited_accuracy_low", "edited_accuracy_high"]]
        for arm in ("control", "target")
    }
    for band, arm in ((control, "control"), (target, "target")):
        assert (band.y0, band.y1) == pytest.approx(
            (ends[arm]["edited_accuracy_low"].min(), ends[arm]["edited_accuracy_high"].max())
        )
    many = dose_response(with_intervals(effects(9, values=["b"])))
    assert not panel(many, "b").collections
    assert not any("intervals" in text.get_text() for text in many.texts)


def test_what_is_beyond_the_control_is_hollow_where_it_may_be_chance() -> None:
    table = effects(3, values=["b"])
    found = contrasts(table).assign(excess_drop=[0.1, 0.2, 0.3], p_max=[0.051, 0.05, np.nan])
    others = found.assign(arm="span", excess_drop=0.9)
    figure = accuracy_by_layer(table, pd.concat([found, others]), draws(table, 4))
    above, below = figure.axes
    dots = [line for line in above.lines if line.get_markersize() < 2]
    assert [len(np.asarray(line.get_xdata())) for line in dots] == [4] * 3
    points = [line for line in below.lines if line.get_marker() == "o"]
    assert [float(np.asarray(point.get_ydata())[0]) for point in points] == [0.1, 0.2, 0.3]
    filled = [point.get_markerfacecolor() != "white" for point in points]
    assert filled == [False, True, False]


def test_the_evidence_says_what_may_be_chance() -> None:
    table = evidence(2, ["b", "c"])
    r, partial, excess, agreement = heatmaps_of(evidence_maps(table, title=TITLE))
    assert cells(r).tolist() == [[0.45, 0.9]] * 2  # |R|, of negative R too
    written = [[text.get_text() for text in axes.texts] for axes in (r, partial, excess, agreement)]
    assert written[0][4:6] == ["(.45)", ".35 to .55"]
    assert written[0][8:10] == [".90", ".80 to 1.00"]
    assert written[1][8:10] == [".50", "given c"]
    assert written[2][4:6] == ["(.05)", "\N{MINUS SIGN}.05 to .15"]
    assert written[2][8:10] == [".30", ".20 to .40"]
    assert written[3][8:10] == [".90", ".85 to .95\nfl. .03 c. .97"]


def test_the_evidence_of_many_layers_is_hatched() -> None:
    r, partial, *_ = heatmaps_of(evidence_maps(evidence(30, ["b"])))
    assert [text for text in texts_of(r) if text] == []
    hatched = [patch.get_xy() for patch in r.patches if isinstance(patch, Rectangle)]
    assert hatched == [(-0.5, -0.5)]  # layer 0
    assert not partial.patches  # has no p-value


def texts_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_an_interval_across_zero_is_one_of_r_without_its_sign() -> None:
    table = evidence(1, ["b"]).assign(r=-0.05, r_low=-0.2, r_high=0.1)
    r, *_ = heatmaps_of(evidence_maps(table))
    assert texts_of(r)[1:] == ["(.05)", ".00 to .20"]


def test_the_evidence_is_of_the_position_that_is_best_on_the_fit_split() -> None:
    table = evidence(1, ["b"], positions=["0", "1"])
    table.loc[table["position"] == "1", "r"] = 0.5  # worse on the report split, and yet it is it
    r, *_ = heatmaps_of(evidence_maps(table))
    assert cells(r).tolist() == [[0.5]]


def test_what_was_not_asked_has_no_map_and_what_is_missing_no_number() -> None:
    table = evidence(2, ["b", "c"]).drop(columns=["agreement", "least_partial_r"])
    table.loc[table["value"] == "c", "excess_drop"] = None
    _, excess = heatmaps_of(evidence_maps(table))
    assert np.isnan(cells(excess)[1]).all()
    assert texts_of(excess)[2:4] == ["\N{EN DASH}"] * 2


def test_agreement_stands_between_its_floor_and_ceiling() -> None:
    table = evidence(2, ["b"])
    figure = counterfactual_agreement(counterfactual(table), table, title=TITLE)
    (axes,) = figure.axes
    drawn = [np.asarray(line.get_ydata()).tolist() for line in axes.lines]
    assert drawn == [[0.05], [0.05], [0.45], [0.9], [0.03, 0.03], [0.97, 0.97]]
    ends = [
        [float(segment[:, 1].min()), float(segment[:, 1].max())]
        for bar in axes.collections
        for segment in bar.get_segments()
    ]
    assert ends[2:] == [pytest.approx([0.4, 0.5]), pytest.approx([0.85, 0.95])]


def test_specificity_is_a_matrix_of_directions_and_values() -> None:
    table = evidence(2, ["b", "c"])
    rows = specificity(table)
    of_b = rows["direction_of"].isin([("b",)])
    rows.loc[of_b, "direction_of"] = pd.Series([("b", "a")] * of_b.sum(), rows.index[of_b])
    # a has no place of its own
    _, axes = heatmaps_of(specificity_maps(rows, table, title=TITLE))
    assert cells(axes).tolist() == [[0.95, -0.2], [0.0, 0.95]]
    assert texts_of(axes)[4:8] == [
        ".95",
        ".85 to 1.05",
        "\N{MINUS SIGN}.20",
        "\N{MINUS SIGN}.30 to \N{MINUS SIGN}.10",
    ]


@pytest.mark.parametrize("draw", [counterfactual_agreement, specificity_maps])
def test_edits_of_other_components_than_the_evidences_are_an_error(draw: Any) -> None:
    table = evidence(1, ["b"])
    rows = counterfactual(table) if draw is counterfactual_agreement else specificity(table)
    with pytest.raises(ValueError, match="of the components in the evidence, got none"):
        draw(rows, table.assign(component=7))


def test_no_evidence_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected a table of evidence with rows, got none"):
        evidence_maps(evidence().iloc[:0])


def test_a_directions_number_names_its_panel_where_no_value_chose_it() -> None:
    table = effects(1, values=["a"])
    figure = accuracy_by_layer(table.assign(chosen_for=[()] * len(table)))
    assert [axes.get_title() for axes in figure.axes] == ["component 0"]


def bands(axes: Axes) -> list[tuple[float, float]]:
    """The stretches of the y axis under a shade."""
    shades = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [(shade.get_y(), shade.get_y() + shade.get_height()) for shade in shades]


def test_the_locality_example_shows_both_functions_the_range_and_the_original() -> None:
    figure = locality_example(curves(1, ["b"]), title=TITLE)
    (axes,) = figure.axes
    actual, predicted, original = axes.lines
    assert np.asarray(original.get_xdata()).tolist() == [500.0, 500.0]
    assert np.asarray(actual.get_ydata())[0] == pytest.approx((100 - 550) / 25)
    assert np.asarray(predicted.get_ydata())[0] == pytest.approx((100 - 550) / 25 + 1.6)
    bottom, top = axes.get_ylim()
    assert bands(axes) == [pytest.approx((bottom, -18.0)), pytest.approx((18.0, top))]
    assert "units of activation" in axes.get_ylabel()
    assert axes.get_title() == "layer 0, component 0"


def test_the_observed_range_may_come_from_outside_the_table() -> None:
    bare = curves(1, ["b"])[["layer", "component", "value", "kind", "problem", "x", "y"]]
    (axes,) = locality_example(bare).axes
    assert not axes.patches
    assert len(axes.lines) == 2
    bottom, top = axes.get_ylim()
    (axes,) = locality_example(bare, (-5.0, 5.0)).axes
    assert bands(axes) == [pytest.approx((bottom, -5.0)), pytest.approx((5.0, top))]
    (axes,) = locality_example(bare, (-99.0, 99.0)).axes
    assert not axes.patches
    assert axes.get_ylim() == (bottom, top)


def test_the_locality_distance_has_a_median_and_a_band() -> None:
    (axes,) = locality_distance(curves(1, ["b"]), title=TITLE).axes
    assert np.asarray(axes.lines[0].get_ydata())[5] == pytest.approx(1.2)
    (band,) = axes.collections
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
        "manifold": manifold(effects(2), 1.5),
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
        "correlations",
        "best_correlations",
        "positions",
        "evidence",
        "dose_response",
        "accuracy_by_layer",
        "counterfactual",
        "specificity",
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
    assert paths == [tmp_path / "figures" / "best.png", tmp_path / "figures" / "map_a_b.png"]
    assert sorted((tmp_path / "figures").iterdir()) == sorted(paths)
    with Image.open(paths[1]) as image:
        assert image.format == "PNG"
        assert image.size == (300, 150)


def test_two_figures_never_share_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected figures with different file names"):
        save_figures({"a/b": Figure(), "a+b": Figure()}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_global_state_of_matplotlib_is_used() -> None:
    code = "import sys, mech_arith.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
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
