"""From what Hydra has composed to typed values that have been checked."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mech_arith.common.errors import UserError
from mech_arith.common.plugins import load_plugins
from mech_arith.experiment.checks import check_numbers
from mech_arith.experiment.config import RunConfig


def checked(config: DictConfig, overrides: Sequence[str]) -> RunConfig:
    """The config as typed values, after its numbers are checked and its plugins are imported.

    An expression from the command line is no longer the template that it replaces, nor are steps
    the hypothesis, unless they are given a name of their own. Plugins are named by their absolute
    paths from here on.

    Raises:
        UserError: something is missing, or does not fit; or a plugin cannot be imported.
    """
    given = {override.split("=")[0].lstrip("+") for override in overrides}
    for section, key in (("template", "expression"), ("hypothesis", "steps")):
        if f"{section}.{key}" in given and f"{section}.name" not in given:
            config[section].name = "custom"
    own = copy.deepcopy(config)
    with read_write(own), open_dict(own):
        own.pop("hydra", None)
    try:
        settings = OmegaConf.to_object(own)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"expected a complete config, got: {reason}; set it, as in key=value"
        ) from None
    assert isinstance(settings, RunConfig)
    check_numbers(settings)
    for key in _added(own, settings):
        raise UserError(
            f"unknown key {key!r}; leave it out (python -m mech_arith --help shows all keys)"
        )
    settings.plugins = [str(p) for p in load_plugins(settings.plugins, _config_folders(config))]
    return settings


def _config_folders(config: DictConfig) -> list[Path]:
    """Folders that this config was composed from: ours, and the user's by --config-dir.

    Hydra knows them in every worker too, where there is no command line any more.
    """
    composed = config if "hydra" in config else HydraConfig.instance().cfg
    return [Path(source.path) for source in _sources(composed) if source.schema == "file"]


def composed_from() -> list[str]:
    """The user's own folders of options that the running cell was composed from."""
    sources = _sources(HydraConfig.instance().cfg)
    return [source.path for source in sources if source.provider == "command-line"]


def _sources(composed: Any) -> Any:
    found = OmegaConf.select(composed, "hydra.runtime.config_sources") if composed else None
    return found or ()


def _added(config: DictConfig, section: Any, prefix: str = "") -> Iterator[str]:
    """Keys that were added to sections whose keys are all known: +problems.m=3."""
    known = {entry.name for entry in fields(section)}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if name not in known:
            yield key
        elif is_dataclass(own := getattr(section, str(name))):
            yield from _added(value, own, f"{key}.")
