"""A cell's tables and summary, logged as the entrypoint does, and read back from disk."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from mech_arith.reports.wandb import Run, TrackingSettings
from tests.waiting import PATIENCE_S

KEY = "0123456789abcdef" * 3

CONFIG = {"model": {"name": "arith_decoder"}, "problems": {"n": 1000}}

SUMMARY = {
    "cell": {"model": "arith_decoder", "seed": 0},
    "baseline_accuracy": 0.97,
    "baseline_r2": None,
    "best": {
        "b": {"abs_r": 0.96, "r": -0.96, "layer": 1, "component": 2, "position": "all", "head": ""},
        "a//b": {"abs_r": 0.5, "r": 0.5, "layer": 0, "component": 0, "position": "all", "head": ""},
    },
    "inference": {"n_tests": 12, "n_significant_holm": 3, "level": 0.95},
    "design": {"name": "uniform", "largest": 0.8, "correlations": {"b": {"a": {"fit": 0.1}}}},
    "excess_drop": {"b": {"excess_drop": 0.7, "excess_p_max": 0.01, "target_drop": 0.75}},
    "counterfactual": {"b": {"iia": 0.9, "floor": 0.1, "ceiling": 1.0, "wrong_way": 0.0}},
    "largest_drop": {"b": {"accuracy_drop": 0.8, "layer": 3, "control_drop": 0.01}},
    "verdicts": {"b": {"text": "b: held in layer 1", "used": [], "best": {"r": -0.96}}},
    "control": {"largest_drop": 0.05, "layer": 2, "strength": 3.0},
    "warnings": ["one"],
    "seconds": {"tracing": 1.5},
    "provenance": {"git_commit": None, "versions": {"torch": "2.13.0"}},
}

HEADLINE = {
    "baseline_accuracy": 0.97,
    "best/b/abs_r": 0.96,
    "best/b/r": -0.96,
    "best/b/layer": 1,
    "best/b/component": 2,
    "best/b/position": "all",
    "best/a_div_b/abs_r": 0.5,
    "best/a_div_b/r": 0.5,
    "best/a_div_b/layer": 0,
    "best/a_div_b/component": 0,
    "best/a_div_b/position": "all",
    "inference/n_tests": 12,
    "inference/n_significant_holm": 3,
    "design/name": "uniform",
    "design/largest": 0.8,
    "excess/b/excess_drop": 0.7,
    "excess/b/excess_p_max": 0.01,
    "counterfactual/b/iia": 0.9,
    "counterfactual/b/floor": 0.1,
    "counterfactual/b/ceiling": 1.0,
    "drop/b/accuracy_drop": 0.8,
    "drop/b/layer": 3,
    "drop/b/control_drop": 0.01,
    "verdict/b/text": "b: held in layer 1",
    "target/largest_drop": 0.8,
    "control/largest_drop": 0.05,
    "control/layer": 2,
    "control/strength": 3.0,
    "warnings": 1,
    "seconds/tracing": 1.5,
    "provenance/versions/torch": "2.13.0",
}

CURVES = (
    "best_abs_r",
    "drop_by_layer",
    "control_drop_by_layer",
    "drop_by_strength",
    "control_drop_by_strength",
    "excess_drop",
    "iia",
    "floor",
    "ceiling",
)

NAMES = {
    *("layer", "strength", "correlations", "effects", "evidence", "heatmap"),
    *(f"{curve}/{value}" for curve in CURVES for value in ("b", "a_div_b")),
    *(
        f"{arm}accuracy_drop/{value}/layer_{layer}"
        for value in ("b", "a_div_b")
        for layer in (0, 1)
        for arm in ("", "control_")
    ),
}
"""All metrics that `log_all` logs."""


def correlations() -> pd.DataFrame:
    """At positions 'all' component 1 is the better one on the fit split; a map goes beyond it."""
    return pd.DataFrame(
        [
            {
                "layer": layer,
                "position": position,
                "head": "",
                "value": value,
                "component": component,
                "rank": 1,
                "r_fit": fit,
                "abs_r": abs_r + layer / 10,
            }
            for layer in (0, 1)
            for value in ("b", "a//b")
            for position, component, fit, abs_r in (
                ("all", 0, 0.1, 0.22),
                ("all", 1, -0.3, 0.11),
                ("3", 0, 0.9, 0.9),
            )
        ]
    )


def effects(**changes: Any) -> pd.DataFrame:
    rows = [
        {
            "layer": layer,
            "point": "resid_post",
            "position": "all",
            "head": "",
            "component": layer + 1,
            "rank": 1,
            "arm": arm,
            "chosen_for": ("b", "a//b"),
            "strength": strength,
            "accuracy_drop": abs(strength) * (layer + 1) / (10 if arm == "target" else 100),
            "status": "ok",
        }
        for layer in (0, 1)
        for arm in ("target", "control", "span")
        for strength in (2.0, -1.0, 0.0)
    ]
    return pd.DataFrame([row | changes for row in rows])


def evidence() -> pd.DataFrame:
    """Position 'last' is the better one on the fit split."""
    return pd.DataFrame(
        [
            {
                "layer": layer,
                "position": position,
                "head": "",
                "rank": 1,
                "value": value,
                "r_fit": fit,
                "excess_drop": excess + layer / 10,
                "iia": 0.8,
                "floor": 0.1,
                "ceiling": 1.0,
            }
            for layer in (0, 1)
            for value in ("b", "a//b")
            for position, fit, excess in (("all", 0.3, 0.6), ("last", -0.4, 0.5))
        ]
    )


def settings(directory: Path, **changes: Any) -> TrackingSettings:
    names = {"project": "arithmetic", "group": "sweep", "name": "cell 0", "tags": ("x", "x", "")}
    given = {"mode": "offline", "directory": directory, "wait_s": PATIENCE_S} | names | changes
    return TrackingSettings(**given)


def log_all(run: Run, directory: Path) -> None:
    """What the entrypoint logs, in its order."""
    run.log_summary(SUMMARY)
    run.log_curves(correlations(), effects(), evidence(), positions="all")
    run.log_table("correlations", correlations())
    run.log_table("effects", effects())
    run.log_table("evidence", evidence())
    image = directory / "heatmap.png"
    Image.new("RGB", (4, 3)).save(image)
    run.log_images({"heatmap": image})


def tracked(directory: Path, **changes: Any) -> Path:
    """The folder of a finished run that holds everything."""
    with Run.start(settings(directory, **changes), CONFIG) as run:
        folder = run.directory
        log_all(run, directory)
    assert folder is not None
    return folder


def records(run_directory: Path) -> list[dict[str, Any]]:
    """The records of an offline run, read back with what `wandb leet inspect` calls."""
    from wandb.util import get_core_path

    (log,) = run_directory.glob("run-*.wandb")
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file"]
    command += [str(log), str(run_directory.parent)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in found.stdout.splitlines()]


def of_type(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in found if record["type"] == kind]


def exit_code(found: list[dict[str, Any]]) -> int:
    (ended,) = of_type(found, "exit")
    return ended["exit_code"]


def summary_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for summary in of_type(found, "summary"):
        merged |= summary["update"]
    return merged


def check_history(history: list[dict[str, Any]]) -> None:
    """Every row that `log_all` logs is there, once."""
    assert [item["strength"] for item in history if "strength" in item] == [-1, 0, 2]
    assert [item["layer"] for item in history if "layer" in item] == [0, 1]
    assert history[2]["control_accuracy_drop/a_div_b/layer_1"] == pytest.approx(0.04)
    assert history[4]["best_abs_r/b"] == pytest.approx(0.21)
    # Tables and images are several fields each, which some readers of a run put side by side.
    logged = {name.partition(".")[0] for item in history for name in item if name[0] != "_"}
    assert logged == NAMES
    assert len(history) == 3 + 2 + 3 + 1


def program(code: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code that uses this module in a process of its own; its log goes to stderr."""
    head = f"""
        import logging, sys, time
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).resolve().parent.parent)!r})
        from tests.wandb_runs import *
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code)],
        cwd=directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done
