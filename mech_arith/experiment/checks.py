"""Checks of a config that need nothing but its numbers. names.py checks its names."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from typing import Any

from mech_arith.common.errors import UserError
from mech_arith.experiment.config import (
    InferenceConfig,
    InterventionConfig,
    RunConfig,
    ScreenConfig,
    ScreenMethod,
)
from mech_arith.interventions import FIRST_DRAWS
from mech_arith.interventions.edits import WEIGHTS
from mech_arith.models.kinds import EACH, HEADS_AT, PROMPT_DATE, SITES_EACH
from mech_arith.reports.papers import page

ALL_POINTS = "all"
MAX_SHOTS = 1000
MAX_DRAWS = 1000
MAX_UNTIL_DECIDED = 100_000
"""Directions of a kind where draws stop early: few targets need them all."""
DRAWN_KINDS = ("random", "span", "valueless")
MAX_TWINS = 100
MAX_POINTS = 1000
MAX_THREADS = 1024
MIN_SAMPLE, MAX_STEPS = 10, 1000
MIN_RESAMPLES, MAX_RESAMPLES = 100, 1_000_000


def check_numbers(config: RunConfig) -> None:
    """Refuse numbers that are out of bounds, or do not go together.

    Raises:
        UserError: one line that says what was expected, what came and what to do.
    """
    wanted = {"trained": "a model trained here", "hf_dir": "a Hugging Face causal LM"}
    if config.model.name in wanted and config.model.path is None:
        raise UserError(
            f"expected model.path, the directory of {wanted[config.model.name]}, got none; "
            "set model.path=DIR"
        )
    _check_paths(config)
    if not 0 <= config.prompt.shots <= MAX_SHOTS:
        raise UserError(f"expected prompt.shots from 0 to {MAX_SHOTS}, got {config.prompt.shots}")
    try:
        date.fromisoformat(config.prompt.date)
    except ValueError:
        raise UserError(
            f"expected prompt.date as YYYY-MM-DD, got {config.prompt.date!r}; set for example "
            f"prompt.date={PROMPT_DATE}"
        ) from None
    page(config.figures.format, config.figures.width, title=config.figures.title)
    _check_problems(config)
    _check_heads(config)
    _check_screen(config)
    _check_intervention(config.intervention)
    _check_locality(config)
    _check_inference(config.inference)
    if config.tolerance is not None and not 0 <= config.tolerance < math.inf:
        raise UserError(f"expected tolerance >= 0 or null, got {config.tolerance}")
    if config.batch_size != "auto" and not is_count(config.batch_size):
        raise UserError(f"expected batch_size 'auto' or >= 1, got {config.batch_size!r}")
    if config.wandb.project == "":
        raise UserError("expected a W&B project, got an empty name; set wandb.project")
    if config.threads is not None and not 1 <= config.threads <= MAX_THREADS:
        raise UserError(
            f"expected threads from 1 to {MAX_THREADS} or null, got {config.threads}; change it"
        )
    for key, number in _numbers(asdict(config)):
        if not math.isfinite(number):
            raise UserError(f"expected a finite number in {key}, got {number}; change it")


def _numbers(entry: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number with a fraction, under its dotted key: in options and lists too."""
    if isinstance(entry, float):
        yield key, entry
    elif isinstance(entry, dict):
        for name, inner in entry.items():
            yield from _numbers(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(entry, list | tuple):
        for inner in entry:
            yield from _numbers(inner, key)


def _check_paths(config: RunConfig) -> None:
    paths = {
        "model.path": config.model.path,
        "store.path": config.store.path,
        "intervention.save_model": config.intervention.save_model,
    }
    for key, path in paths.items():
        # An empty path would be the current directory.
        if path is not None and not path.strip():
            raise UserError(f"expected a directory in {key}, got {path!r}; set {key}=DIR")


def _check_screen(config: RunConfig) -> None:
    screen, asked = config.screen, config.intervention
    if screen.method is ScreenMethod.none:
        return
    if screen.keep < 1:
        raise UserError(f"expected screen.keep >= 1, got {screen.keep}; set how many sites to keep")
    if screen.sample < MIN_SAMPLE:
        raise UserError(
            f"expected screen.sample >= {MIN_SAMPLE}, got {screen.sample}; on fewer sites nobody "
            "can tell whether the screen is to be trusted"
        )
    if not 1 <= screen.steps <= MAX_STEPS:
        raise UserError(f"expected screen.steps from 1 to {MAX_STEPS}, got {screen.steps}")
    listed = screen.points if isinstance(screen.points, list) else []
    if screen.points not in (None, ALL_POINTS) and not listed:
        raise UserError(
            f"expected screen.points {ALL_POINTS}, null or a list of points, got "
            f"{screen.points!r}; set for example screen.points=[z,mlp_out]"
        )
    if len(set(map(str, listed))) < len(listed):
        raise UserError(f"expected distinct screen.points, got {listed}; drop the repeated ones")
    for key, given in (
        ("intervention.save_model", asked.save_model),
        ("intervention.via", asked.via if asked.via == "weights" else None),
    ):
        if given is not None:
            raise UserError(
                f"expected screen=none with {key}={given}, got {screen.method.value}; screen "
                "first, and edit weights at a site that was kept"
            )
    if config.locality.enabled:
        raise UserError(
            f"expected screen=none with locality.enabled=true, got {screen.method.value}; screen "
            "first, and test locality at a site that was kept"
        )


def screened_points(screen: ScreenConfig) -> tuple[str, ...] | None:
    """The points of a screen's candidates, none for all; None for the one that is traced."""
    if screen.method is ScreenMethod.none or screen.points is None:
        return None
    return () if screen.points == ALL_POINTS else tuple(map(str, screen.points))


def _check_heads(config: RunConfig) -> None:
    tracing = config.tracing
    heads, point = tracing.heads, tracing.point
    points = screened_points(config.screen)
    if heads is None:
        return
    listed = isinstance(heads, list) and len(heads) > 0
    if heads != EACH and not (listed and all(is_count(head, least=0) for head in heads)):
        raise UserError(
            f"expected tracing.heads {EACH}, null or a list of query heads, counted from 0, "
            f"got {heads!r}; set for example tracing.heads=[0,3]"
        )
    if heads != EACH and len(set(heads)) < len(heads):
        raise UserError(f"expected distinct tracing.heads, got {heads}; drop the repeated ones")
    if point != HEADS_AT and (points is None or (points and HEADS_AT not in points)):
        raise UserError(
            f"expected tracing.point={HEADS_AT} with tracing.heads, got {point!r}, which heads "
            "have no part of their own in; set one or the other"
        )


def _check_problems(config: RunConfig) -> None:
    n, share, components = config.problems.n, config.problems.fit_share, config.tracing.n_components
    if not 0 < share < 1:
        raise UserError(
            f"expected problems.fit_share above 0 and below 1, got {share}; use for example 0.5"
        )
    if not 0 <= config.tracing.untrained_twins <= MAX_TWINS:
        raise UserError(
            f"expected tracing.untrained_twins from 0 to {MAX_TWINS}, got "
            f"{config.tracing.untrained_twins}; each is a network with random weights to trace"
        )
    if components < 1:
        raise UserError(f"expected tracing.n_components >= 1, got {components}")
    n_fit = round(n * share)
    needed = max(2, components)
    if n_fit < needed or n - n_fit < 2:
        raise UserError(
            f"expected at least {needed} problems to fit {components} components and 2 to "
            f"report on, got problems.n={n} with fit_share={share} ({n_fit} to fit); raise "
            "problems.n or lower tracing.n_components"
        )


def _check_intervention(intervention: InterventionConfig) -> None:
    strengths, n_edited = intervention.strengths, intervention.n_problems
    if intervention.edit != "none" and not strengths:
        raise UserError(
            "expected at least one strength, got none; set intervention.strengths, or choose "
            "intervention=none"
        )
    bad = [strength for strength in strengths if not math.isfinite(strength)]
    if bad:
        raise UserError(f"expected finite intervention.strengths, got {bad}; change them")
    if len(set(strengths)) < len(strengths):
        raise UserError(
            f"expected distinct intervention.strengths, got {strengths}; drop the repeated ones"
        )
    if n_edited is not None and n_edited < 2:
        raise UserError(f"expected intervention.n_problems >= 2 or null, got {n_edited}")
    sources = intervention.sources
    _check_controls(intervention)
    if not 1 <= sources <= MAX_DRAWS:
        raise UserError(
            f"expected intervention.sources from 1 to {MAX_DRAWS}, got {sources}; change it"
        )


def _check_controls(intervention: InterventionConfig) -> None:
    """How many directions are drawn, and where that stops."""
    controls = intervention.controls
    stop_after = controls.stop_after
    most = MAX_DRAWS if stop_after is None else MAX_UNTIL_DECIDED
    for name in DRAWN_KINDS:
        count = getattr(controls, name)
        if not 0 <= count <= most:
            raise UserError(
                f"expected intervention.controls.{name} from 0 to {most}, got {count}; change it"
            )
    if stop_after is None:
        return
    key = "intervention.controls.stop_after"
    if not is_count(stop_after):
        raise UserError(
            f"expected {key} null or a whole number of 1 or more, got {stop_after!r}; set for "
            "example 10"
        )
    if intervention.via == WEIGHTS:
        raise UserError(
            f"expected {key}=null with intervention.via={WEIGHTS}, got {stop_after}: each edited "
            "model is run with all its controls; set one or the other"
        )
    kinds = {name: getattr(controls, name) for name in DRAWN_KINDS}
    if max(kinds.values()) <= FIRST_DRAWS:
        drawn = ", ".join(f"{name}={n}" for name, n in kinds.items())
        raise UserError(
            f"expected more than {FIRST_DRAWS} directions of a kind with {key}={stop_after}, got "
            f"{drawn}: the first {FIRST_DRAWS} are drawn in any case; set for example "
            "intervention.controls.random=999"
        )
    for name, n in kinds.items():
        if FIRST_DRAWS < n < stop_after:
            raise UserError(
                f"expected {key} up to intervention.controls.{name}={n}, got {stop_after}: so "
                "many never come; lower it"
            )


def _check_locality(config: RunConfig) -> None:
    locality = config.locality
    if not locality.enabled:
        return
    if config.tracing.positions in SITES_EACH:
        raise UserError(
            "expected one site per layer for the locality test, got tracing.positions="
            f"{config.tracing.positions}; choose last or others, or locality.enabled=false"
        )
    for name, least in (("coordinate_points", 6), ("value_points", 3)):
        count = getattr(locality, name)
        if not least <= count <= MAX_POINTS:
            raise UserError(
                f"expected locality.{name} from {least} to {MAX_POINTS}, got {count}; change it"
            )
    if not 0 < locality.coordinate_span < math.inf:
        raise UserError(
            f"expected locality.coordinate_span above 0, got {locality.coordinate_span}"
        )
    if locality.n_problems is not None and locality.n_problems < 2:
        raise UserError(f"expected locality.n_problems >= 2, got {locality.n_problems}")


def _check_inference(inference: InferenceConfig) -> None:
    if not 0 < inference.level < 1:
        raise UserError(
            f"expected inference.level above 0 and below 1, got {inference.level}; use for "
            "example 0.95"
        )
    for name in ("resamples", "permutations"):
        count = getattr(inference, name)
        if not MIN_RESAMPLES <= count <= MAX_RESAMPLES:
            raise UserError(
                f"expected inference.{name} from {MIN_RESAMPLES} to {MAX_RESAMPLES}, got "
                f"{count}; change it"
            )


def is_count(number: Any, *, least: int = 1) -> bool:
    """Whether a config's entry is a whole number of at least `least`."""
    return isinstance(number, int) and not isinstance(number, bool) and number >= least
