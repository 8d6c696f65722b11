"""Sweepers of others, such as Optuna's: what is refused before they launch a cell.

They choose cells one after another, so nothing of ours stands between them and a cell: it checks
its own config, and its directory, when it starts.
"""

from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from mech_arith.common.errors import UserError, unknown
from mech_arith.common.registry import without_additions
from mech_arith.experiment.overrides import as_typed, check_grammar

DIRECTIONS = ("minimize", "maximize")

OURS = "hydra_plugins.mech_arith_sweeper.CellSweeper"

BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
"""Hydra's own, which runs a product and looks for nothing."""

OWN_OPTIONS = ("resume", "together", "pack", "workers", "dry_run", "rate")
"""Options of our sweeper alone."""


def fit_sweeper(config: DictConfig) -> None:
    """Make a sweep's config one that its sweeper can take, if that is not ours.

    Args:
        config: of the sweep, with Hydra's part, which is changed: what hydra/launcher=local asks of
            our sweeper goes, and the choices of an experiment are read as those of a command line.

    Raises:
        UserError: an option of our sweeper, a search without a number to search by, or a first
            cell that would be refused.
    """
    sweeper = config.hydra.sweeper
    if sweeper._target_ == OURS:
        return
    name = str(config.hydra.runtime.choices["hydra/sweeper"])
    for key in OWN_OPTIONS:
        if key in sweeper:
            raise UserError(
                f"expected hydra/sweeper=cells with sweep.{key}, which other sweepers do not know, "
                f"got hydra/sweeper={name}; leave one of them out"
            )
    if sweeper._target_ == BASIC:
        return
    named: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    subdir = str(named["subdir"])
    if "${" not in subdir:
        raise UserError(
            f"expected a hydra.sweep.subdir for each cell, got {subdir!r} for all; leave it out or "
            "write ${hydra.job.num} in it"
        )
    params = [as_typed(f"{key}={text}") for key, text in (sweeper.get("params") or {}).items()]
    with open_dict(sweeper):
        sweeper.pop("max_batch_size", None)
        sweeper.params = dict(text.split("=", 1) for text in params)
    first = _first([*params, *config.hydra.overrides.task])
    _check_cell(config, first, name, sweeper.get("direction"))


def _first(texts: list[str]) -> list[str]:
    """The overrides of one cell: of what is searched the first choice, or the least number."""
    check_grammar(texts)
    parsed = OverridesParser.create().parse_overrides(texts)
    return [
        f"{one.get_key_element()}={_least(one)}" if one.is_sweep_override() else str(one.input_line)
        for one in parsed
    ]


def _least(override: Override) -> Any:
    value = override.value()
    if isinstance(value, IntervalSweep):
        return value.start
    return next(iter(override.sweep_string_iterator()))


@without_additions()
def _check_cell(config: DictConfig, overrides: list[str], name: str, directions: Any) -> None:
    """Refuse what the first cell would be refused for, or could not return.

    Raises:
        UserError: there is something.
    """
    from mech_arith.evidence.objective import objective_names
    from mech_arith.experiment.names import look_up
    from mech_arith.experiment.typed import checked

    composed = compose(str(config.hydra.job.config_name), overrides, return_hydra_config=True)
    settings = checked(composed, overrides)
    asked = objective_names(settings.objective)
    if not asked:
        raise UserError(
            f"expected an objective with hydra/sweeper={name}, which searches by a number, got "
            "none; set for example objective=abs_r/b-c"
        )
    look_up(settings)
    several = isinstance(directions, list | ListConfig)
    for one in directions if several else [] if directions is None else [directions]:
        if str(getattr(one, "name", one)) not in DIRECTIONS:
            raise unknown("hydra.sweeper.direction", one, DIRECTIONS)
    count = len(directions) if several else 1
    if directions is not None and count != len(asked):
        raise UserError(
            f"expected {count} of objective, one for each hydra.sweeper.direction, got {asked}; "
            "give as many of both, as in 'hydra.sweeper.direction=[maximize,minimize]'"
        )
