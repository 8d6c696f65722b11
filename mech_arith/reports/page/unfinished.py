"""What a cell without a result was asked for: from the config that Hydra left, or its overrides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mech_arith.common.progress import counted
from mech_arith.common.runs.records import read_record
from mech_arith.engine.sites import describe_heads, describe_layers
from mech_arith.interventions.edits import ACTIVATIONS
from mech_arith.models.kinds import LayerPart
from mech_arith.reports.page.listing import Listed

HYDRAS_CONFIG = Path(".hydra") / "config.yaml"
"""In a cell's directory from its first moment on."""

PLACES = {
    "model": "model.name",
    "template": "template.name",
    "expression": "template.expression",
    "hypothesis": "hypothesis.name",
    "layers": "layers.part",
    "tracing": "tracing.method",
    "point": "tracing.point",
    "positions": "tracing.positions",
    "heads": "tracing.heads",
    "edit": "intervention.edit",
    "design": "problems.design",
    "seed": "problems.seed",
}
"""Fields of a cell, and where they stand in its config."""

APART = "problems.decorrelate"
"""The value that a design keeps apart from the others."""

VIA = "intervention.via"
"""What an edit is made on."""

GROUPS = {
    **{field: field for field in ("model", "template", "hypothesis", "layers")},
    "edit": "intervention",
}
"""Fields that are named as the option of their group is."""


def unfinished(cell: Listed) -> tuple[dict[str, Any], str | None]:
    """The fields that are known of a cell without a result, and its config as text.

    One that has begun has recorded them. One that never started has no config; what its overrides
    do not speak of stays unknown.
    """
    text, config = _config(cell.directory / HYDRAS_CONFIG)
    if (record := read_record(cell.directory)) is not None and record.cell:
        return record.cell, text
    given = dict(
        override.lstrip("+").split("=", 1) for override in cell.overrides or () if "=" in override
    )
    asked = {
        name: given.get(place, given.get(GROUPS.get(name, ""))) for name, place in PLACES.items()
    }
    in_config = {name: _at(config, place) for name, place in PLACES.items()}
    fields = {
        name: found
        for name in PLACES
        if (found := asked[name] if in_config[name] is None else in_config[name]) is not None
    }
    if "template.expression" in given and "template.name" not in given:
        fields["template"] = "custom"
    if isinstance(path := _at(config, "model.path"), str):
        fields["model"] = f"{fields.get('model')}:{Path(path).name}"
    if (value := given.get(APART, _at(config, APART))) is not None:
        fields["design"] = f"{fields.get('design')} {value}"
    fields |= _layers(config)
    if (heads := fields.get("heads")) is not None:
        fields["heads"] = describe_heads(heads)
    if (via := given.get(VIA, _at(config, VIA))) not in (None, ACTIVATIONS):
        edit = fields.get("edit", "none")
        fields["edit"] = edit if edit == "none" else f"{edit} by {via}"
    style, shots = _at(config, "prompt.style"), _at(config, "prompt.shots")
    if style is not None:  # null for a model that has one way to be asked
        fields["prompt"] = f"{style}, {counted(shots, 'shot')}"
    return {
        name: _seed(found) if name == "seed" else str(found) for name, found in fields.items()
    }, text


def _layers(config: Any) -> dict[str, str]:
    """The layers by their bounds; how deep the model is, is not known."""
    asked = _at(config, "layers")
    if not isinstance(asked, Mapping) or asked.get("part") not in set(LayerPart):
        return {}
    names = {"start": "start", "stop": "stop", "step": "step", "list": "numbers"}
    given = {ours: asked[name] for name, ours in names.items() if name in asked}
    return {"layers": describe_layers(LayerPart(asked["part"]), n_layers=None, **given)}


def _config(path: Path) -> tuple[str | None, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None, None
    try:
        return text, yaml.safe_load(text)
    except yaml.YAMLError:
        return text, None


def _at(config: Any, place: str) -> Any:
    """What stands at a dotted place; None if nothing does."""
    for name in place.split("."):
        if not isinstance(config, Mapping):
            return None
        config = config.get(name)
    return config


def _seed(found: Any) -> Any:
    return int(found) if str(found).isdecimal() else str(found)
