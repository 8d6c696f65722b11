"""Pages that MkDocs makes: the dictionary of columns and the API from the code; the notebooks."""

import base64
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mech_arith.evidence.columns import CELL, SWEPT, TABLES, Column, Kind

DOCS = Path(__file__).resolve().parent

KINDS = {
    Kind.TEXT: "text",
    Kind.TEXTS: "list of texts",
    Kind.WHOLE: "whole number",
    Kind.NUMBER: "number",
    Kind.FLAG: "true or false",
    Kind.NUMBERED: "names with whole numbers",
}

COLUMNS = """\
# Every column

After this page you can look up any column of any table. It is made from the code when the
documentation is built, so it names every column there is.

A table has the same columns of the same types in every cell. What is not known, or does not apply,
is null. A number without a unit is a plain number; `share of problems` runs from 0 to 1.
"""


def columns_page() -> str:
    """Markdown: a section per table, a row per column."""
    parts = [COLUMNS]
    parts += [_section(f"{name}.parquet", columns) for name, columns in TABLES.items()]
    parts.append(
        _section("Columns that a sweep's tables begin with", CELL)
        + f"\n\nThen comes a text column `{SWEPT}<key>` for each swept key: the override as typed."
    )
    return "\n\n".join(parts) + "\n"


def _section(title: str, columns: Iterable[Column]) -> str:
    rows = [f"| `{c.name}` | {KINDS[c.kind]} | {c.unit} | {_cell(c.meaning)} |" for c in columns]
    return "\n".join(
        [f"## {title}", "", "| column | type | unit | meaning |", "|---|---|---|---|", *rows]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def api_pages() -> dict[str, str]:
    """Path -> Markdown: a page per room, as api.yml lists them."""
    rooms = yaml.safe_load((DOCS / "api.yml").read_text(encoding="utf-8"))
    return {
        f"api/{title.lower().replace(' ', '-')}.md": "\n".join(
            [
                f"# {title}",
                *(
                    f"\n## `{module}`\n\n::: {module}\n    options:\n      show_root_heading: false"
                    for module in modules
                ),
            ]
        )
        for title, modules in rooms.items()
    }


def notebook_pages() -> dict[str, str | bytes]:
    """Path -> Markdown of each notebook with its stored outputs, and the images beside it."""
    made: dict[str, str | bytes] = {}
    for path in sorted((DOCS / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        parts, images = [], 0
        for cell in cells:
            source = "".join(cell["source"])
            parts.append(source if cell["cell_type"] == "markdown" else _fenced("python", source))
            for output in cell.get("outputs", ()):
                data = output.get("data", {})
                if "image/png" in data:
                    images += 1
                    name = f"{path.stem}-{images}.png"
                    made[f"notebooks/{name}"] = base64.b64decode("".join(data["image/png"]))
                    parts.append(f"![Output of the cell above]({name})")
                else:
                    parts.append(_fenced("text", "".join(data["text/plain"])))
        download = f"[Download the notebook]({path.name})"
        title, *rest = parts[0].split("\n", 1)
        parts[0] = "\n\n".join([title, download, *(text.strip() for text in rest)])
        made[f"notebooks/{path.stem}.md"] = "\n\n".join(parts) + "\n"
    return made


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def on_config(config: Any) -> Any:
    """The API's pages, at the end of the navigation."""
    pages = [
        {text.partition("\n")[0].removeprefix("# "): path} for path, text in api_pages().items()
    ]
    config.nav.append({"API": pages})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    made = {"columns.md": columns_page(), **api_pages(), **notebook_pages()}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_post_build(config: Any) -> None:
    """Refuse pages that would fetch something: they are read from disk, without a network."""
    from mkdocs.exceptions import PluginError

    fetched = re.compile(
        r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"?(https?://[^\" >]*)"
    )
    for path in Path(config.site_dir).rglob("*.html"):
        if found := fetched.search(path.read_text(encoding="utf-8")):
            raise PluginError(
                f"expected pages that fetch nothing, got {found[1]} in {path}; put the file into "
                "docs/, as javascripts/iframe-worker.js is"
            )
