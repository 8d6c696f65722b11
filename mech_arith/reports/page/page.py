"""The page: one file of HTML that asks nothing of the network.

What comes from configs and logs travels as compressed JSON and is put into the page as text, never
as HTML. Of 500 cells a browser decodes only what it shows: the overview, and the cells opened.
"""

import base64
import gzip
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distribution, version
from importlib.resources import files
from typing import Any

from mech_arith.engine.sites import WITHIN_LAYER
from mech_arith.evidence.columns import Column, shown_columns
from mech_arith.reports.page.files import COMPARISON, TABLES
from mech_arith.reports.page.listing import Listed

CHUNK = 20
"""Cells that are compressed together: configs are alike, and small data compresses badly."""

SCRIPTS = (
    "base",
    "commands",
    "charts",
    "overview",
    "comparison",
    "ranks",
    "hypotheses",
    "figures",
    "evidence",
    "differences",
    "cell",
    "main",
)
"""In the order in which they need each other."""


@dataclass(frozen=True)
class Entry:
    """A cell as the page shows it."""

    cell: Listed
    command: str | None
    fields: dict[str, Any]
    """Of `summary["cell"]`; without a result, those that are known of it."""
    overview: dict[str, Any]
    """See `cells.cell_overview`; empty without a result."""
    page: dict[str, Any]
    """See `cells.cell_page`; without a result, the config alone if there is one."""


def render(
    title: str, entries: Sequence[Entry], differences: Mapping[str, Any] | None = None
) -> str:
    """The page as HTML.

    Args:
        title: of the page.
        entries: every cell.
        differences: of two runs, if they are compared; see `differences.plain_differences`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mech_arith.reports.page", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages = [entry.page for entry in entries]
    overview = {
        "title": title,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": version("mech-arith"),
        "chunk": CHUNK,
        "differences": differences,
        "columns": [_column(column) for column in shown_columns()],
        "site": list(WITHIN_LAYER),
        "cells": [_overview(entry) for entry in entries],
    }
    return environment.get_template("page.html").render(
        title=title,
        tables=COMPARISON[:-1] if differences else [*TABLES.values()],
        nonce=secrets.token_urlsafe(16),
        styles=[_library("itables", "html/dt_bundle.css"), _asset("page.css")],
        scripts=[_asset(f"{name}.js") for name in SCRIPTS],
        packed={
            "overview": _packed_json(overview),
            "datatables": _packed(_library("itables", "html/dt_bundle.js")),
            "plotly": _packed(_library("plotly", "package_data/plotly.min.js")),
        },
        chunks=[
            _packed_json(pages[start : start + CHUNK]) for start in range(0, len(pages), CHUNK)
        ],
    )


def _overview(entry: Entry) -> dict[str, Any]:
    cell = entry.cell
    return {
        "id": cell.name,
        "status": cell.status,
        "note": cell.note,
        "error": cell.error,
        "command": entry.command,
        "fields": entry.fields,
        **entry.overview,
    }


def _column(column: Column) -> dict[str, Any]:
    """A column as the page needs it: what it shows, and what stands beside it."""
    names = ("name", "low", "high", "p", "counts", "null", "why")
    flags = ("is_size", "is_text", "is_headline", "is_drawn", "is_compared")
    return {
        **{name: getattr(column, name) for name in (*names, *flags)},
        "title": column.label,
        "about": column.about or column.meaning.removesuffix("."),
        "shown": column.shown,
        "beside": [[one.word, one.column] for one in column.beside],
        "said": [column.said.word, column.said.column] if column.said else None,
    }


def as_json(data: Any) -> str:
    """Data as the page holds it.

    Raises:
        ValueError: a number in it is not finite.
        TypeError: something in it is not plain.
    """
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


def _packed_json(data: Any) -> str:
    return _packed(as_json(data))


def _packed(text: str) -> str:
    """Compressed, in characters that mean nothing to HTML."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _asset(name: str) -> str:
    return (files("mech_arith.reports.page") / "assets" / name).read_text(encoding="utf-8")


def _library(package: str, path: str) -> str:
    """A file that a Python package carries for browsers; the package itself is not imported."""
    found = distribution(package).locate_file(f"{package}/{path}")
    with open(str(found), encoding="utf-8") as file:
        return file.read()
