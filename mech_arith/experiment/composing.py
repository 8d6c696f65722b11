"""Configs of many cells: those that choose the same files are composed once."""

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf


class Composing:
    """Hydra's configs of the cells of one sweep.

    Hydra takes a fifth of a second to read and merge its files for a cell. Values such as
    `problems.seed=3` are put into the merged files at the end, in the order of the overrides. So
    cells that differ in such values alone share what comes before.
    """

    def __init__(self, loader: ConfigLoaderImpl, config: DictConfig) -> None:
        """Nothing is composed yet.

        Args:
            loader: Hydra's own.
            config: the sweep's.
        """
        self._loader = loader
        self._config = config
        self._known: dict[tuple[str, ...], DictConfig] = {}
        """By all overrides but the values that are put in at the end."""

    def of(self, overrides: Sequence[str]) -> DictConfig:
        """A cell's config: what `load_sweep_config` composes."""
        parsed = [_parsed(text) for text in overrides]
        own = [one for one in parsed if _is_value(one)]
        shared = tuple(text for text, one in zip(overrides, parsed, strict=True) if one not in own)
        if shared not in self._known:
            self._known[shared] = self._loader.load_sweep_config(self._config, list(shared))
        base = self._known[shared]
        names = {_root(one) for one in own}
        chosen = base.hydra.runtime.choices
        if any(
            _root(one) in names and one.key_or_group not in chosen for one in map(_parsed, shared)
        ):  # Of overrides of one mapping the order counts.
            return self._loader.load_sweep_config(self._config, list(overrides))
        return self._with(base, own, [one for one in parsed if not one.is_hydra_override()])

    def _with(
        self, base: DictConfig, own: Sequence[Override], task: Sequence[Override]
    ) -> DictConfig:
        """A copy with the cell's own values, and with all its overrides as Hydra writes them."""
        config = copy.deepcopy(base)
        ConfigLoaderImpl._apply_overrides_to_config(list(own), config)
        config.hydra.overrides.task = [one.input_line for one in task]
        job: Any = config.hydra.job
        job.override_dirname = get_overrides_dirname(
            overrides=list(task),
            kv_sep=job.config.override_dirname.kv_sep,
            item_sep=job.config.override_dirname.item_sep,
            exclude_keys=job.config.override_dirname.exclude_keys,
        )
        OmegaConf.copy_cache(from_config=self._config, to_config=config)
        return config


@cache
def _parsed(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def _is_value(override: Override) -> bool:
    """Whether it changes a value below a key of the config: names of groups have no dot."""
    key = override.key_or_group
    return (
        override.type is OverrideType.CHANGE
        and override.package is None
        and "." in key
        and "/" not in key
        and not override.is_hydra_override()
    )


def _root(override: Override) -> str:
    return override.key_or_group.partition(".")[0]
