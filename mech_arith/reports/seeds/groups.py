"""Which cells of a sweep differ in their model's seed alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mech_arith.common.errors import UserError
from mech_arith.common.runs.directories import find_runs
from mech_arith.common.runs.records import RECORD, read_record
from mech_arith.evidence.results import load_summary


@dataclass(frozen=True)
class SeedCell:
    """A finished cell of one trained model."""

    directory: Path
    model: str
    seed: int | None
    """Of the model's training; None where it is not known."""
    weights: str
    """SHA-256."""
    fields: dict[str, Any]
    """The cell in words, but for its model."""
    rest: dict[str, Any]
    """All that determines the numbers, by dotted keys, but for the weights and their seed."""


@dataclass(frozen=True)
class Groups:
    """Cells by what they have in common."""

    groups: tuple[tuple[SeedCell, ...], ...]
    """Two cells or more each, of different weights."""
    alone: tuple[tuple[SeedCell, str], ...]
    """Cells without their like, and in what they differ from the nearest other."""


def seed_groups(directory: Path) -> Groups:
    """Put together the finished cells under `directory` that differ in the weights alone.

    Raises:
        UserError: there are none, there is one seed only, or all cells differ in more.
    """
    cells = [_seed_cell(path) for path in find_runs(directory)]
    if not cells:
        raise UserError(
            f"expected finished runs in {directory}, found none; run a sweep over model.path first"
        )
    by_rest: dict[str, dict[str, SeedCell]] = {}
    for cell in cells:
        key = json.dumps([cell.rest, cell.fields], sort_keys=True)
        by_rest.setdefault(key, {}).setdefault(cell.weights, cell)
    found = [tuple(of_weights.values()) for of_weights in by_rest.values()]
    alone = tuple((group[0], _nearest(group[0], cells)) for group in found if len(group) == 1)
    groups = tuple(group for group in found if len(group) > 1)
    if not groups:
        raise _no_groups(directory, cells, alone)
    return Groups(groups, alone)


def _no_groups(
    directory: Path, cells: Sequence[SeedCell], alone: Sequence[tuple[SeedCell, str]]
) -> UserError:
    if len({cell.weights for cell in cells}) == 1:
        return UserError(
            f"expected models of two seeds or more in {directory}, got one, {cells[0].model}; "
            "train others and sweep over model.path"
        )
    cell, differences = alone[0]
    return UserError(
        f"expected cells that differ in the seed of their model alone in {directory}, got "
        f"{cell.directory.name}, which differs from the nearest other in {differences}; sweep over "
        "model.path with all else equal"
    )


def _seed_cell(directory: Path) -> SeedCell:
    """What a finished cell says of itself.

    Raises:
        UserError: it does not say enough.
    """
    summary, record = load_summary(directory), read_record(directory)
    if record is None:
        raise UserError(f"expected a readable {RECORD} in {directory}, found none; run it again")
    training = dict(summary["provenance"].get("training") or {})
    seed = training.pop("seed", None)
    rest = {name: part for name, part in record.determines.items() if name != "weights"}
    return SeedCell(
        directory=directory,
        model=summary["cell"]["model"],
        seed=seed,
        weights=summary["provenance"]["weights_digest"],
        fields={name: field for name, field in summary["cell"].items() if name != "model"},
        rest=dict(_flat(rest | {"training": training})),
    )


def _nearest(cell: SeedCell, cells: Sequence[SeedCell]) -> str:
    """In what a cell differs from the other that it differs from least, in words."""
    others = [other for other in cells if other.weights != cell.weights]
    found = [_differences(cell.rest, other.rest) for other in others]
    return ", ".join(min(found, key=len)) if found else "its weights, of which there are no others"


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return [
        key if key == "code" else f"{key} ({one.get(key)} and {other.get(key)})" for key in keys
    ]


def _flat(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and plain entries."""
    for key, value in entry.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
