"""The prices of a sweep's cells, for people and for programs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mech_arith.common.progress import counted, duration
from mech_arith.engine.sites import in_runs
from mech_arith.experiment.pricing.price import Price
from mech_arith.experiment.pricing.work import Number

WIDE = 120
"""Columns of a terminal from which on a cell's overrides stand beside its numbers."""

MEANT = (
    "Problems: edited, of all that are drawn. Sites: layers x points x heads x positions that are "
    "edited. Edits: subspaces x strengths x sources of one problem, controls included. Rows: "
    "edited passes. "
    "Memory: weights and activations. Store: what the cell adds on disk. Time: of one cell, "
    "without the start of its process."
)


@dataclass(frozen=True)
class SweepPrice:
    """The prices of all cells, and how they would be run."""

    prices: Sequence[Price]
    n_starts: int
    """Processes that are started."""
    start_s: float
    """Seconds that one takes."""
    rate: str
    """In words."""

    @property
    def refused(self) -> list[int]:
        """Numbers of the cells that would be refused."""
        return [i for i, price in enumerate(self.prices) if price.refused is not None]

    @property
    def to_run(self) -> list[Price]:
        """The cells that are priced and still to be run."""
        return [p for p in self.prices if p.refused is None and not p.is_done]

    @property
    def seconds(self) -> Number:
        """Of all cells, one after another."""
        return sum(p.seconds for p in self.to_run) + self.n_starts * self.start_s

    def sums(self) -> dict[str, Number]:
        """Over the cells that are to be run; of memory the most."""
        cells = self.to_run
        added = ("edited", "sites", "edits", "rows", "macs", "store_bytes", "engine_s", "other_s")
        found: dict[str, Number] = {name: sum(getattr(p, name) for p in cells) for name in added}
        found["problems"] = sum(p.fit + p.report for p in cells)
        found["memory_bytes"] = max((p.memory_bytes for p in cells), default=0.0)
        return {**found, "seconds": self.seconds}


def as_json(sweep: SweepPrice) -> str:
    """All of it, for programs; seconds, bytes and multiply-adds as numbers."""
    cells = [{**asdict(p), "seconds": p.seconds} for p in sweep.prices]
    total: dict[str, Any] = {**sweep.sums(), "starts": sweep.n_starts, "start_s": sweep.start_s}
    return json.dumps({"cells": cells, "total": total, "rate": sweep.rate}, indent=2)


def show(sweep: SweepPrice, console: Console | None = None) -> None:
    """The table, what it sums up to, and what there is to know before it is paid for."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=140, file=console.file)
    cells = [(i, p) for i, p in enumerate(sweep.prices) if p.refused is None]
    several = len(sweep.prices) > 1
    if cells:
        console.print(_table(sweep, cells, wide=several and console.width >= WIDE))
        if several and console.width < WIDE:
            for number, price in cells:
                _line(console, f"{number}: {price.name}")
        _line(console, MEANT, style="dim")
        for text in _sentences(sweep):
            _line(console, text)
    for said, style in (("warning", "yellow"), ("refused", "red")):
        for text, numbers in _alike(sweep.prices, said).items():
            where = f" ({counted_cells(numbers)})" if several else ""
            _line(console, f"[{style}]{said}{where}:[/{style}] ", text)


def _table(sweep: SweepPrice, cells: Sequence[tuple[int, Price]], *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("cell", justify="right")
    if wide:
        table.add_column("", overflow="fold")
    for name in ("problems", "sites", "edits", "rows", "mult-adds", "memory", "store", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    several = len(sweep.prices) > 1
    for number, price in cells:
        own = [str(number), *([Text(price.name)] if wide else [])]
        sites = short(price.sites)
        if price.candidates > price.sites:
            sites += f"/{short(price.candidates)}"
        table.add_row(
            *own,
            f"{short(price.edited)}/{short(price.fit + price.report)}",
            sites,
            short(price.edits),
            short(price.rows),
            short(price.macs),
            size(price.memory_bytes),
            size(price.store_bytes),
            "done" if price.is_done else duration(price.seconds),
        )
    if several:
        table.add_section()
        total = sweep.sums()
        table.add_row(
            *["all", *([""] if wide else [])],
            f"{short(total['edited'])}/{short(total['problems'])}",
            *(short(total[name]) for name in ("sites", "edits", "rows", "macs")),
            size(total["memory_bytes"]),
            size(total["store_bytes"]),
            duration(total["seconds"]),
            style="bold",
        )
    return table


def _sentences(sweep: SweepPrice) -> list[str]:
    """What the total is made of."""
    total, stages = sweep.sums(), dict[str, Number]()
    for price in sweep.to_run:
        for stage, seconds in price.stages.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    whole = sum(stages.values())
    found = []
    if whole:
        shares = sorted(((s / whole, name) for name, s in stages.items()), reverse=True)
        most = ", ".join(f"{name} {share:.0%}" for share, name in shares if share >= 0.01)
        found.append(
            f"Time: {duration(total['engine_s'])} in the model ({most}), "
            f"{duration(total['other_s'])} beside it, and {counted(sweep.n_starts, 'start')} of "
            f"{sweep.start_s:g} s."
        )
    found.append(f"Rate: {sweep.rate}.")
    kept = _by_text((i, f"{', '.join(p.kept)}") for i, p in enumerate(sweep.prices) if p.kept)
    for text, numbers in kept.items():
        where = f"; {counted_cells(numbers)}" if len(sweep.prices) > 1 else ""
        found.append(
            f"The store has: {text}{where}. What it has of whole stages is not in the time."
        )
    done = [i for i, p in enumerate(sweep.prices) if p.is_done]
    if done:
        found.append(f"Done before, and kept: {counted_cells(done)}.")
    return found


def _alike(prices: Sequence[Price], said: str) -> Mapping[str, list[int]]:
    """What cells say -> the numbers of those that say so."""
    if said == "refused":
        return _by_text((i, p.refused) for i, p in enumerate(prices) if p.refused is not None)
    return _by_text((i, text) for i, p in enumerate(prices) for text in p.warnings)


def _by_text(pairs: Any) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, text in pairs:
        found.setdefault(text, []).append(number)
    return found


def counted_cells(numbers: Sequence[int]) -> str:
    """'cell 3', 'cells 0-4, 7'."""
    return f"cell{'s' * (len(numbers) > 1)} {in_runs(sorted(numbers))}"


def _line(console: Console, text: str, plain: str = "", *, style: str | None = None) -> None:
    """A line that is wrapped at words; `plain` is what rich must not read as its own markup."""
    if plain:
        console.print(Text.from_markup(text).append(plain), soft_wrap=False)
    else:
        console.print(Text(text), style=style, soft_wrap=False)


UNITS = ("", "k", "M", "G", "T", "P", "E")


def short(number: Number) -> str:
    """Three digits at most, and a unit of 1,000: 47200 is '47.2k'."""
    return _scaled(number, "").replace(" ", "")


def size(n_bytes: Number) -> str:
    """Bytes by units of 1,000: '538 MB'."""
    return _scaled(n_bytes, "B")


def _scaled(number: Number, unit: str) -> str:
    power = 0
    while abs(number) >= 999.5 and power < len(UNITS) - 1:
        number, power = number / 1000, power + 1
    digits: Callable[[Number], str] = lambda x: f"{x:.3g}" if power else f"{x:.0f}"  # noqa: E731
    return f"{digits(number)} {UNITS[power]}{unit}"
