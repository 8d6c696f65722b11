"""Verdicts on published claims, from the directories of finished cells."""

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mech_arith.common.errors import UserError
from mech_arith.common.paths import conf_dir
from mech_arith.common.plugins import using_plugins
from mech_arith.common.registry import without_additions
from mech_arith.evidence.results import RunResult, load_run
from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import Part
from mech_arith.reports.page.listing import Listed, list_cells
from mech_arith.reports.typeset import Estimate, Heading, Table, rounded
from mech_arith.statistics.independent import Measured

FEWEST = 3
"""Seeds of problems that a verdict takes."""

HELD, FAILED, MIXED, UNTESTED = "held", "did not hold", "held in {} of {} seeds", "not tested: {}"


@dataclass(frozen=True)
class Claim:
    """What a paper says, as its preset has it."""

    name: str
    says: str
    source: str
    number: str | None = None
    models: Sequence[str] = ()

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Claim":
        """Of the config of a run or of a preset, which may be of another version."""
        return cls(**{each.name: said[each.name] for each in fields(cls) if each.name in said})


@dataclass(frozen=True)
class Verdict:
    """What became of one part of a claim in one model."""

    claim: Claim
    model: str
    seeds: Sequence[int]
    says: str
    verdict: str
    number: Estimate
    """The mean over seeds; its ends are the lowest and the highest of the seeds' intervals."""
    beside: Mapping[str, float]
    """Means over seeds."""
    where: str


@dataclass
class _Cells:
    """The cells of one claim in one model."""

    claim: Claim
    model: str
    by_seed: dict[int, list[RunResult]] = field(default_factory=dict)
    listed: list[Listed] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    """Of the first cell."""
    asked: dict[str, Path] = field(default_factory=dict)
    """What was asked -> the first directory of a cell that asked it."""


@without_additions()
def verdicts(places: Sequence[Path]) -> tuple[list[Verdict], dict[str, str]]:
    """Of every claim that finished cells put to the test, and the commands that ran the cells.

    Args:
        places: directories of sweeps or runs, or of many of them.

    Returns:
        The verdicts, claims in the order of their names, and for each claim and model a line of the
        shell that runs its cells, with what they were run with.

    Raises:
        UserError: no cell of a preset is there, or a claim has no test of its name.
    """
    groups = _groups(places)
    found, commands = list[Verdict](), dict[str, str]()
    for _, cells in sorted(groups.items()):
        _check_alike(cells)
        found += _of_group(cells)
        commands[_command(cells)] = _made_with(cells)
    return found, commands


def _groups(places: Sequence[Path]) -> dict[tuple[str, str], _Cells]:
    groups: dict[tuple[str, str], _Cells] = {}
    for listed in list_cells(places, places[0]):
        if not listed.whole:
            continue
        run = load_run(listed.directory)
        config = yaml.safe_load(run.config_yaml) or {}
        said = config.get("claim")
        if not said or not said.get("name"):
            continue
        claim, model = _todays(Claim.of(said)), str(run.summary["cell"]["model"])
        cells = groups.setdefault(
            (claim.name, model), _Cells(claim, model, plugins=config.get("plugins") or [])
        )
        cells.asked.setdefault(_asked(config), run.directory)
        of_seed = cells.by_seed.setdefault(int(run.summary["cell"]["seed"]), [])
        _check_new(run, of_seed)
        of_seed.append(run)
        cells.listed.append(listed)
    if not groups:
        shown = ", ".join(str(place) for place in places)
        raise UserError(
            f"expected finished cells of a claim in {shown}, found none; run a preset, as "
            "python -m mech_arith -m +experiment=papers/zhu_2024"
        )
    return groups


ALIKE = {
    "template": ("expression", "wording"),
    "prompt": ("style", "shots", "system"),
    "problems": ("n", "operands", "constraints", "fit_share", "design", "decorrelate"),
    "intervention": ("n_problems", "sources"),
}
"""Parts of the config in which the cells of one verdict agree."""


def _asked(config: Mapping[str, Any]) -> str:
    """Those parts of a cell's config."""
    parts = [(config.get(part) or {}).get(key) for part, keys in ALIKE.items() for key in keys]
    return json.dumps(parts, sort_keys=True, default=str)


def _check_alike(cells: _Cells) -> None:
    """Raise a UserError if seeds were not asked the same: their numbers are no draws of one."""
    if len(cells.asked) > 1:
        one, other, *_ = cells.asked.values()
        raise UserError(
            f"expected cells of {cells.claim.name} that differ in their seed, got another "
            f"template, prompt or number of problems in {one} and in {other}; give one sweep of "
            "each claim"
        )


TOLD_BY = ("tracing", "point", "positions", "layers", "edit")
"""Fields by which a claim's cells of one seed differ."""


def _check_new(run: RunResult, others: Sequence[RunResult]) -> None:
    """Raise a UserError if another run asks the same: their numbers would be mixed."""
    for other in others:
        pair = [one.summary["cell"] for one in (run, other)]
        if all(pair[0].get(name) == pair[1].get(name) for name in TOLD_BY):
            raise UserError(
                f"expected each cell of a claim once, got it in {other.directory} and in "
                f"{run.directory}; give one sweep of each claim"
            )


def _todays(claim: Claim) -> Claim:
    """A claim as its preset has it now; one of the user's own as the run has it."""
    preset = conf_dir() / "experiment" / "papers" / f"{claim.name}.yaml"
    if not preset.is_file():
        return claim
    return Claim.of(yaml.safe_load(preset.read_text(encoding="utf-8"))["claim"])


def _of_group(cells: _Cells) -> Iterator[Verdict]:
    """One verdict for each part of the claim."""
    parts: dict[str, dict[int, Part]] = {}
    for seed, runs in sorted(cells.by_seed.items()):
        with using_plugins(cells.plugins):
            for part in CLAIMS.find(cells.claim.name)(runs):
                parts.setdefault(part.says, {})[seed] = part
    for says, by_seed in parts.items():
        yield Verdict(
            claim=cells.claim,
            model=cells.model,
            seeds=list(by_seed),
            says=says,
            verdict=judged(list(by_seed.values())),
            number=_together([part.number for part in by_seed.values() if part.number]),
            beside=_means([part.beside for part in by_seed.values()]),
            where=_places([part.where for part in by_seed.values() if part.where]),
        )


def judged(parts: Sequence[Part]) -> str:
    """One word for all seeds: a part holds where it holds in every one of them."""
    if len(parts) < FEWEST:
        return UNTESTED.format(f"{len(parts)} of the {FEWEST} seeds that a verdict takes")
    open_parts = [part for part in parts if part.holds is None]
    if open_parts:
        return UNTESTED.format("; ".join(dict.fromkeys(part.why for part in open_parts)))
    n = sum(bool(part.holds) for part in parts)
    return {len(parts): HELD, 0: FAILED}.get(n, MIXED.format(n, len(parts)))


def _together(numbers: Sequence[Measured]) -> Estimate:
    """The mean; the interval reaches from the lowest end of all to the highest."""
    if not numbers:
        return Estimate(None)
    mean = float(np.mean([one.number for one in numbers]))
    return Estimate(mean, min(one.low for one in numbers), max(one.high for one in numbers))


MOST_PLACES = 3
"""Places of seeds that are named one by one."""


def _places(where: Sequence[str]) -> str:
    """Each place once, those of most seeds first."""
    counted = Counter(where).most_common()
    named = [place for place, _ in counted[:MOST_PLACES]]
    left = len(counted) - len(named)
    return "; ".join([*named, *([f"{left} more"] if left else [])])


def _means(beside: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    names = dict.fromkeys(name for of_seed in beside for name in of_seed)
    means = {}
    for name in names:
        known = [of_seed.get(name) for of_seed in beside]
        numbers = [float(x) for x in known if x is not None and np.isfinite(x)]
        if numbers:
            means[name] = float(np.mean(numbers))
    return means


def _command(cells: _Cells) -> str:
    """What all cells were asked for, and their seeds."""
    overrides = [list(listed.overrides or ()) for listed in cells.listed]
    common = [
        one
        for one in overrides[0]
        if all(one in others for others in overrides) and not one.startswith("problems.seed=")
    ]
    seeds = ",".join(str(seed) for seed in sorted(cells.by_seed))
    return shlex.join(["python", "-m", "mech_arith", "-m", *common, f"problems.seed={seeds}"])


def _made_with(cells: _Cells) -> str:
    """Versions and devices of the runs."""
    runs = [run for of_seed in cells.by_seed.values() for run in of_seed]
    made = [run.summary["provenance"] for run in runs]
    versions = dict.fromkeys(
        f"mech-arith {one['versions']['mech-arith']}, torch {one['versions']['torch']}, "
        f"{one['device']}, {one['dtype']}"
        for one in made
    )
    return "; ".join(versions)


COLUMNS = {
    "claim": Heading("claim", "claim"),
    "paper": Heading("paper", "in the paper"),
    "part": Heading("part", "tested here"),
    "model": Heading("model", "model here"),
    "seeds": Heading("seeds", "seeds"),
    "where": Heading("where", "where"),
    "number": Heading("number", "number", ("low", "high")),
    "beside": Heading("beside", "beside"),
    "verdict": Heading("verdict", "verdict"),
}

FOR_READERS = ("claim", "paper", "part", "where", "number", "beside", "verdict")
"""Columns of a table that is read: `where` names the model too."""


def table(found: Sequence[Verdict], *, is_read: bool) -> Table:
    """One row for each part of each claim.

    Args:
        found: the verdicts.
        is_read: whether by people: then the first row of a claim alone says it.
    """
    shown = FOR_READERS if is_read else tuple(COLUMNS)
    lines: list[list[Any]] = []
    last = None
    for one in found:
        said = (one.claim.name, one.model)
        entries = _entries(one)
        if is_read:
            entries["where"] = f"{one.model}: {one.where}" if one.where else one.model
            if said == last:
                entries["claim"] = entries["paper"] = ""
        lines.append([entries[name] for name in shown])
        last = said
    return Table([COLUMNS[name] for name in shown], lines)


def _entries(one: Verdict) -> dict[str, Any]:
    claim = one.claim
    models = ", ".join(model.rpartition("/")[2] for model in claim.models)
    return {
        "claim": f"{claim.says} {claim.source}",
        "paper": f"{claim.number or 'no number found'} ({models or 'a model of the authors'})",
        "part": one.says,
        "model": one.model,
        "seeds": len(one.seeds),
        "where": one.where,
        "number": one.number,
        "beside": "; ".join(f"{n} {rounded(Estimate(x))[0]}" for n, x in one.beside.items()),
        "verdict": one.verdict,
    }
