import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mech_arith.reports.figures import lettering
from mech_arith.reports.figures.lettering import BOX, drawable, font_of, width_of
from mech_arith.reports.figures.sheet import DPI, Sheet

HAN, FACE = "\u6f22", "\N{SLIGHTLY SMILING FACE}"


def forget() -> None:
    for known in (lettering.font_of, lettering._coverage, lettering._mask, lettering._open):
        known.cache_clear()
    lettering._REPORTED.clear()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    forget()
    yield
    forget()


def font(path: Path, *characters: str) -> Path:
    """A font in which each of the characters is a black square, as large as the letters."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(point)
    pen.closePath()
    names = [".notdef", *(f"u{ord(character):04X}" for character in characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"u{ord(c):04X}" for c in characters})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": f"Test {path.stem}", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def installed(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(path) for path in paths])


def drawn(text: str) -> np.ndarray:
    """What matplotlib makes of it, without a word: 0 for black."""
    sheet = Sheet(2.0, 1.0)
    sheet.write(text, 1, 0.5, size=20.0)
    canvas = FigureCanvasAgg(sheet)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., 0]


def test_a_character_is_drawn_in_an_installed_font_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    han, face = font(tmp_path / "han.ttf", HAN), font(tmp_path / "face.ttf", FACE)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    installed(monkeypatch, tmp_path / "broken.ttf", han, face)
    assert font_of("a") == Path(font_manager.findfont("DejaVu Sans"))
    assert font_of(HAN) == han
    assert font_of(FACE) == face
    assert drawable(f"{HAN}a{FACE}") == f"{HAN}a{FACE}"
    black = drawn(HAN) < 50
    assert black.sum() == pytest.approx((0.8 * 20 / 72 * DPI) ** 2, rel=0.1)  # a filled square
    assert (drawn(f"x{HAN}{FACE}") < 50).sum() > 2 * black.sum()
    assert not caplog.records


def test_what_no_font_has_is_a_box_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    installed(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert drawable(f"{HAN}+{FACE}") == f"{BOX}+{BOX}"
        drawn(f"{HAN} and more \u5b57")
        drawn(FACE)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"figures show {HAN} (U+6F22), {FACE} (U+1F642) as boxes: matplotlib can draw no installed "
        "font that has them; install one, e.g. Debian's fonts-noto-cjk"
    )
    assert "\n" not in record.getMessage()


def test_a_character_of_a_font_that_draws_nothing_is_a_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of fonts of coloured pictures, which matplotlib opens and cannot draw."""
    path = font(tmp_path / "empty.ttf", HAN)
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "han"])
    builder.setupCharacterMap({ord(HAN): "han"})
    builder.setupGlyf(dict.fromkeys([".notdef", "han"], TTGlyphPen(None).glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", "han"], (900, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Empty", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    installed(monkeypatch, path)
    assert drawable(HAN) == BOX


def test_joiners_and_selectors_are_not_drawn() -> None:
    assert drawable("a\ufe0fb\u200dc") == "abc"
    assert drawable("caf\u00e9 \u2212 \u00b7") == "caf\u00e9 \u2212 \u00b7"


def test_dollars_and_backslashes_are_no_formula() -> None:
    assert (drawn("$x^2$ \\alpha") < 50).any()
    assert width_of("$x$", 10.0) > width_of("x", 10.0) + width_of("$", 10.0)


@pytest.mark.parametrize("form", ["pdf", "svg"])
def test_text_in_vector_files_stays_text(tmp_path: Path, form: str) -> None:
    sheet = Sheet(2.0, 1.0)
    sheet.write("one\ntwo", 1, 0.5, size=20.0)
    sheet.savefig(tmp_path / f"figure.{form}")
    written = (tmp_path / f"figure.{form}").read_bytes()
    assert b"<image" not in written
    assert b"/Subtype /Image" not in written
