"""The files of figures: formats, widths of pages, and the numbers beside each figure."""

import subprocess
import sys
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mech_arith.common.errors import UserError
from mech_arith.reports.figures import (
    accuracy_by_layer,
    best_correlation_map,
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
from mech_arith.reports.figures.layout import LEAST_POINTS, laid_out
from mech_arith.reports.figures.saving import file, numbers
from mech_arith.reports.figures.sheet import Panel, Sheet
from mech_arith.reports.papers import FORMATS, WIDTHS, Page, page, with_png
from tests.reports.test_figures import (
    FIGURES,
    TITLE,
    cells,
    check_readable,
    contrasts,
    correlations,
    counterfactual,
    curves,
    draws,
    effects,
    evidence,
    heatmaps_of,
    known,
    off_distribution,
    panel_of,
    single_positions,
    specificity,
    texts,
    whole,
    with_intervals,
)
from tests.thinned import thinned

VALUES = ("a", "b", "c", "b-c", "a-(b-c)")


def read(sheet: Figure) -> Any:
    """The numbers beside the figure, as a reader of the file has them."""
    return pd.read_csv(BytesIO(numbers(sheet)))


def wide(table: Any, row: str, column: str, number: str) -> np.ndarray:
    """One number as a matrix, the rows in the order in which they come first."""
    found = table.pivot(index=row, columns=column, values=number)
    return found.loc[list(dict.fromkeys(table[row]))].to_numpy(float)


def line(mark: Any) -> tuple[list[float], list[float]]:
    return np.asarray(mark.get_xdata()).tolist(), np.asarray(mark.get_ydata()).tolist()


def segments(panel: Panel) -> list[list[float]]:
    """The ends of all upright bars, in the order of drawing."""
    return [bar[:, 1].tolist() for ends in panel.ends for bar in ends.get_segments()]


def test_the_numbers_of_heatmaps_are_their_cells() -> None:
    table = correlations(3)
    sheet = correlation_heatmaps(table)
    found = read(sheet)
    for layer, panel in enumerate(heatmaps_of(sheet)):
        here = found[found["layer"] == layer]
        assert cells(panel) == pytest.approx(wide(here, "value", "component", "abs_r"))
        frames = here[here["framed"]].sort_values("value")
        assert len(frames) == len(VALUES)
    bars = sheet.panels[0].blocks[0].get_paths()
    heights = [float(np.asarray(bar.vertices)[:, 1].max()) for bar in bars]
    first = found[(found["layer"] == 0) & (found["value"] == "a")]
    assert heights == pytest.approx(first["explained_variance"].tolist())


def test_the_numbers_of_best_components_and_positions_are_their_cells() -> None:
    sheet = best_correlation_map(correlations(3))
    (panel,) = heatmaps_of(sheet)
    assert cells(panel) == pytest.approx(wide(read(sheet), "value", "layer", "abs_r"))
    sheet = position_maps(single_positions(3))
    found = read(sheet)
    for value in VALUES:
        of_value = found[found["value"] == value]
        drawn = cells(panel_of(sheet, value))
        assert drawn == pytest.approx(wide(of_value, "layer", "position_index", "abs_r"))


def test_a_number_that_is_not_there_leaves_its_field_empty() -> None:
    """A cell that edits nothing has no n, in a column of whole numbers."""
    table = evidence()
    nothing = table.assign(n=pd.array([pd.NA] * len(table), dtype="Int64"))
    assert read(evidence_maps(nothing))["n"].isna().all()


def test_the_numbers_of_the_evidence_are_its_cells_and_what_is_written_in_them() -> None:
    sheet = evidence_maps(known(3))
    found = read(sheet)
    columns = [
        *("abs_r", "abs_least_partial_r", "excess_valueless_drop", "excess_span_drop"),
        *("excess_random_drop", "iia", "slope"),
    ]
    for panel, column in zip(heatmaps_of(sheet), columns, strict=True):
        assert cells(panel) == pytest.approx(wide(found, "value", "layer", column))
    row = found[(found["value"] == "a-(b-c)") & (found["layer"] == 2)].iloc[0]
    assert (row["abs_r_low"], row["abs_r_high"]) == pytest.approx((0.8, 1.0))
    assert any(label.text.startswith(".80 to 1.00") for label in heatmaps_of(sheet)[0].labels)
    assert not found.loc[found["layer"] == 0, "r_counts"].any()


@pytest.mark.parametrize("response", ["edited_accuracy", "mean_shift"])
def test_the_numbers_of_curves_are_their_points_and_bands(response: str) -> None:
    table = with_intervals(effects(2))
    where = off_distribution(table, 1.5)
    about: Any = {"response": SHIFT} if response == "mean_shift" else {}
    sheet = dose_response(table, where, **about)
    found = read(sheet)
    for (value, layer, arm), rows in found.groupby(["value", "layer", "arm"]):
        panel = panel_of(sheet, f"{value}, layer {layer}:")
        at = 0 if arm == "control" else 1
        drawn = panel.lines[at]
        assert line(drawn) == (rows["strength"].tolist(), rows[response].tolist())
        outline = np.asarray(panel.bands[at].get_paths()[0].vertices)
        low, high = rows[f"{response}_low"], rows[f"{response}_high"]
        assert outline[: len(rows), 1].tolist() == low.tolist()
        assert outline[len(rows) : 2 * len(rows), 1].tolist() == high.tolist()[::-1]
    targets = found[(found["arm"] == "target") & (found["strength"] == 3.0)]
    assert set(targets["outside_range"]) == {1.0}
    assert set(found["n"]) == {200}


def test_the_numbers_of_maps_of_strengths_are_their_cells() -> None:
    table = effects(9, values=["b"])
    sheet = dose_response(table)
    found = read(sheet)
    for panel, arm in zip(heatmaps_of(sheet), ("target", "control"), strict=True):
        rows = found[found["arm"] == arm]
        assert cells(panel) == pytest.approx(wide(rows, "layer", "strength", "edited_accuracy"))
    assert "edited_accuracy_low" not in found  # a map shows no intervals


def test_the_numbers_of_one_strength_are_its_points_and_bars() -> None:
    sheet = dose_response(with_intervals(effects(3, values=["b"], strengths=[1.0])))
    found = read(sheet).sort_values(["layer", "arm"])  # the control is drawn first
    (panel,) = sheet.panels
    number = "edited_accuracy"
    assert [line(point)[1] for point in panel.lines] == [[n] for n in found[number]]
    assert segments(panel) == found[[f"{number}_low", f"{number}_high"]].to_numpy().tolist()


def test_the_numbers_of_drops_are_bars_dots_and_what_is_beyond_controls() -> None:
    table = with_intervals(effects(3, values=["b"]))
    sheet = accuracy_by_layer(table, contrasts(table), draws(table, 4))
    above, below = sheet.panels
    found = read(sheet)
    bars = found[found["mark"] == "bar"].sort_values(["arm", "layer"], ascending=[False, True])
    tops = [
        float(np.asarray(path.vertices)[:, 1].max())
        for block in above.blocks
        for path in block.get_paths()
    ]
    assert tops == pytest.approx(bars["accuracy_drop"].tolist())
    ends = bars[["accuracy_drop_low", "accuracy_drop_high"]].to_numpy().tolist()
    assert segments(above) == ends
    dots = [height for mark in above.lines for height in line(mark)[1]]
    assert dots == found.loc[found["mark"] == "dot", "accuracy_drop"].tolist()
    points = found[found["mark"] == "point"]
    assert [line(mark)[1][0] for mark in below.lines] == points["excess_drop"].tolist()
    assert segments(below) == points[["excess_low", "excess_high"]].to_numpy().tolist()
    filled = [mark.get_markerfacecolor() != "white" for mark in below.lines]
    assert filled == points["counts"].tolist()


def test_the_numbers_of_iia_are_its_points_and_bounds() -> None:
    table = evidence(3, ["b"])
    rows = counterfactual(table)
    others = rows.assign(arm="span", iia=0.7)  # in the table, not in the figure
    sheet = counterfactual_iia(pd.concat([rows, others]), table)
    found = read(sheet).sort_values(["arm", "layer"])
    (panel,) = sheet.panels
    *points, floor, ceiling = panel.lines
    assert [line(point)[1][0] for point in points] == found["iia"].tolist()
    ends = found[["iia_low", "iia_high"]].to_numpy().tolist()
    assert segments(panel) == ends
    targets = found[found["arm"] == "target"]
    assert line(floor)[1] == targets["floor"].tolist()
    assert line(ceiling)[1] == targets["ceiling"].tolist()


def test_the_numbers_of_specificity_are_its_cells() -> None:
    table = evidence(2)
    sheet = specificity_maps(specificity(table), table)
    found = read(sheet)
    for layer, panel in enumerate(heatmaps_of(sheet)):
        rows = found[found["layer"] == layer].set_index(["value", "changed"])
        drawn = cells(panel)
        in_order = ["a", "b", "c", "b-c", "a-(b-c)"]
        expected = [[rows["slope"][of, changed] for changed in in_order] for of in in_order]
        assert drawn == pytest.approx(np.array(expected))


def test_the_numbers_of_locality_are_its_lines_and_its_band() -> None:
    sheet = locality_example(curves(1, ["b"]))
    found = read(sheet)
    actual, predicted, _ = sheet.panels[0].lines
    for drawn, kind in ((actual, "f_a"), (predicted, "f_p")):
        rows = found[found["kind"] == kind]
        assert line(drawn) == (rows["x"].tolist(), rows["y"].tolist())
    sheet = locality_distance(curves(1, ["b"]))
    found = read(sheet)
    (panel,) = sheet.panels
    assert line(panel.lines[0]) == (found["x"].tolist(), found["y"].tolist())
    outline = np.asarray(panel.bands[0].get_paths()[0].vertices)
    assert outline[: len(found), 1].tolist() == found["low"].tolist()


def test_a_figure_without_numbers_has_no_file_of_them(tmp_path: Path) -> None:
    (path,) = save_figures({"plain": Figure(figsize=(2, 1))}, tmp_path)
    assert path.name == "plain.png"


@pytest.mark.slow
def test_all_formats_are_written_and_the_same_tables_make_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mech_arith.reports.figures import draw_cell; "
        "from mech_arith.reports.papers import page; from tests.reports.test_figures import whole; "
        "draw_cell(whole(), Path(sys.argv[1]), title='x', "
        "on=page(['png', 'pdf', 'svg'], 'neurips', title=True))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "other")], check=True)
    on = page(["png", "pdf", "svg"], "neurips", title=True)
    paths = draw_cell(whole(), tmp_path / "own", title="x", on=on)
    assert {path.suffix for path in paths} == {".png", ".pdf", ".svg", ".csv"}
    assert len({path.stem for path in paths}) * 4 == len(paths)
    for path in paths:
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name
    assert paths == draw_cell(whole(), tmp_path / "own", title="x", on=on)


def test_what_is_kept_of_one_page_is_not_taken_for_another(tmp_path: Path) -> None:
    tables = {"correlations": correlations(2)}
    pages = [page(["png"], width, title=title) for width in (None, 5) for title in (True, False)]
    found = []
    for number, on in enumerate(pages):
        draw_cell(tables, tmp_path / str(number), title=TITLE, on=on)
        found.append((tmp_path / str(number) / "correlations.png").read_bytes())
    assert len(set(found)) == 4


def test_text_in_vector_files_can_be_edited() -> None:
    sheet = FIGURES["counterfactual, 4 layers"]()
    svg = file(sheet, "svg").decode()
    for text in ("layer (0-based)", "a-(b-c)", TITLE):
        assert f">{text}</text>" in svg
    assert "'DejaVu Sans', Verdana, sans-serif" in svg
    pdf = file(sheet, "pdf")
    assert b"/Subtype /TrueType" in pdf or b"/CIDFontType2" in pdf  # fonttype 42
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


def test_text_in_vector_files_stands_where_it_stands_in_pixels() -> None:
    sheet = Sheet(4.0, 2.0)
    for across in ("left", "center", "right"):
        sheet.write(across, 2, 0.5, size=10.0, across=across)
    svg = file(sheet, "svg").decode()
    for across, anchor in (("left", "start"), ("center", "middle"), ("right", "end")):
        (tag,) = [line for line in svg.split("\n") if f">{across}</text>" in line]
        assert f"text-anchor: {anchor}" in tag
        assert 'x="144"' in tag
        y = float(tag.split(' y="')[1].split('"')[0])
        assert y == pytest.approx(1.5 * 72 + 0.73 * 10 / 2, abs=0.1)  # from above


IN_COLUMNS = [name for name in FIGURES if "4 layers" in name or "one" in name or "words" in name]
"""Few layers fit a column; many are for a page."""


@pytest.mark.parametrize(
    ("name", "width"), thinned(product(IN_COLUMNS, ("acl", "neurips", "nature_wide")), 22)
)
def test_figures_fit_the_columns_of_papers(name: str, width: str) -> None:
    with laid_out(page(["pdf"], width, title=False)):
        sheet = FIGURES[name]()
    check_readable(sheet)
    assert sheet.get_size_inches()[0] == pytest.approx(WIDTHS[width])
    assert min(label.size for label in sheet.lettering.labels) >= LEAST_POINTS
    assert TITLE not in texts(sheet)


def test_intervals_can_be_seen_at_the_width_of_a_column() -> None:
    with laid_out(page(["pdf"], "icml", title=False)):
        sheet = FIGURES["counterfactual, 4 layers"]()
    for panel in sheet.panels:
        (low, high) = segments(panel)[-1]
        bottom, top = panel.y
        points = 72 * sheet.scale * panel.box[3] * (high - low) / (top - bottom)
        assert points > panel.lines[-3].get_markersize()  # it sticks out of its marker
        assert all(width >= 1 for ends in panel.ends for width in ends.get_linewidth())


@pytest.mark.parametrize(
    ("name", "width", "said"),
    [
        ("evidence, long names", 2.0, "a figure needs 2.42 inches and the page has 2.00"),
        ("specificity, 30 layers", 5.5, "a figure of 5.50 inches is 17.3 inches high"),
    ],
)
def test_what_does_not_fit_is_said(
    name: str, width: float, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with laid_out(Page(("pdf",), width, title=False)):
        FIGURES[name]()
    (record,) = caplog.records
    assert record.getMessage().startswith(said)
    assert "figures.width" in record.getMessage()


def test_a_page_with_titles_has_them_in_lines_that_fit() -> None:
    with laid_out(page(["pdf"], "acl", title=True)):
        sheet = correlation_heatmaps(correlations(1), title="a long name " * 8)
    check_readable(sheet)
    assert sheet.get_size_inches()[0] == pytest.approx(WIDTHS["acl"])


def test_a_page_has_more_dots_per_inch(tmp_path: Path) -> None:
    draw_cell({"correlations": correlations(1)}, tmp_path, title=TITLE, on=Page(width=5.0))
    with Image.open(tmp_path / "correlations.png") as image:
        assert image.size[0] == 1500


@pytest.mark.parametrize(
    ("formats", "width", "said"),
    [
        (["jpg"], None, "unknown figure format 'jpg'; expected one of: png, pdf, svg"),
        ("eps", None, "unknown figure format 'eps'"),
        (3, None, "unknown figure format '3'"),
        ([], None, "expected at least one of the figure formats"),
        (["png"], "nips", "unknown figure width 'nips'; expected one of: neurips, iclr, "),
        (["png"], 0.5, "expected a figure width from 2 to 40 inches, got 0.5; give inches or "),
        (["png"], float("nan"), "expected a figure width from 2 to 40 inches, got nan"),
        (["png"], True, "expected a figure width from 2 to 40 inches, got True"),
        (["png"], [3], r"unknown figure width '\[3\]'"),
    ],
)
def test_an_unknown_format_or_width_is_one_line(formats: Any, width: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        page(formats, width, title=True)
    assert "\n" not in str(caught.value)


def test_widths_are_names_or_inches() -> None:
    assert page(FORMATS, "nature", title=True).width == pytest.approx(3.504, abs=1e-3)
    assert page(FORMATS, "3.5", title=True).width == page(FORMATS, 3.5, title=True).width == 3.5
    assert page(["pdf", "png", "pdf"], None, title=True).formats == ("pdf", "png")
    assert with_png(page("pdf", None, title=True)).formats == ("png", "pdf")
