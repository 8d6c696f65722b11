"""The run's schema, and the checks of it that need nothing but the numbers themselves.

Names (of edits, points, values, ...) are checked in plan.py, where what they name is known.
"""

import copy
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mech_arith.common.errors import UserError
from mech_arith.common.plugins import load_plugins
from mech_arith.models.kinds import PROMPT_DATE
from mech_arith.reports.papers import PNG, page

MAX_SHOTS = 1000
MAX_DRAWS = 1000
MAX_TWINS = 100
MIN_RESAMPLES, MAX_RESAMPLES = 100, 1_000_000


class WandbMode(Enum):
    """Where W&B runs go."""

    online = "online"
    offline = "offline"
    disabled = "disabled"


class Device(Enum):
    """Where the model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Dtype(Enum):
    """In which numbers a language model computes; `auto` is the model's own choice."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Engine(Enum):
    """How edited passes are run."""

    auto = "auto"
    full = "full"


Numbers = list[int]
"""A name of its own: a field may be called `list`."""


@dataclass
class ModelConfig:
    """A model: one trained here, or a pretrained language model; by name or by its directory."""

    name: str = "arith_decoder"
    kind: str = "arithmetic"
    path: str | None = None
    hub: str | None = None
    revision: str | None = None
    dtype: str | None = None
    device_map: str | None = None


@dataclass
class PromptConfig:
    """How a language model is asked."""

    style: str | None = None
    shots: int = 4
    system: str | None = None
    date: str = PROMPT_DATE


@dataclass
class StoreConfig:
    """Where cells find what others have computed."""

    enabled: bool = True
    path: str | None = None


@dataclass
class TemplateConfig:
    """An expression with a wording."""

    name: str = "custom"
    expression: str = "???"
    wording: str = "{expression}"


@dataclass
class ProblemsConfig:
    """How problems are drawn."""

    n: int = 1000
    seed: int = 0
    operands: dict[str, Any] = field(default_factory=dict)
    constraints: list[str] = field(default_factory=list)
    fit_share: float = 0.5
    design: str = "uniform"
    decorrelate: str | None = None


@dataclass
class LayersConfig:
    """Which layers: a list of them, or else a named part, or bounds of its own."""

    part: str = "all"
    start: int | None = None
    stop: int | None = None
    step: int = 1
    list: Numbers | None = None


@dataclass
class TracingConfig:
    """How activations are turned into coordinates."""

    method: str = "pca"
    n_components: int = 10
    rank: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    positions: str = "all"
    point: str = "resid_post"
    position_map: bool = True
    untrained_twins: int = 0


@dataclass
class ControlsConfig:
    """What else is moved as far as the target, to compare it with."""

    random: int = 20
    span: int = 20
    valueless: int = 20
    other: bool = True
    shuffled: bool = True


@dataclass
class InterventionConfig:
    """Which coordinates are edited, and how."""

    edit: str = "scale"
    strengths: list[float] = field(default_factory=list)
    components: Any = "best"
    values: list[str] | None = None
    n_problems: int | None = None
    centre: bool = True
    controls: ControlsConfig = field(default_factory=ControlsConfig)
    sources: int = 3
    via: str = "activations"
    save_model: str | None = None


@dataclass
class InferenceConfig:
    """How sure the numbers are said to be."""

    level: float = 0.95
    resamples: int = 1000
    permutations: int = 1000


@dataclass
class LocalityConfig:
    """The paper's locality test."""

    enabled: bool = False
    n_problems: int | None = None
    coordinate_points: int = 20
    coordinate_span: float = 1.2
    value_points: int = 19


@dataclass
class WandbConfig:
    """The W&B run that each cell leaves."""

    mode: WandbMode | None = None
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class FiguresConfig:
    """How figures are saved. A PNG file is always among them."""

    format: Any = field(default_factory=lambda: [PNG])
    width: Any = None
    title: bool = True


@dataclass
class RunConfig:
    """One cell. Composed by Hydra from conf/."""

    model: ModelConfig = field(default_factory=ModelConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    layers: LayersConfig = field(default_factory=LayersConfig)
    tracing: TracingConfig = field(default_factory=TracingConfig)
    intervention: InterventionConfig = field(default_factory=InterventionConfig)
    locality: LocalityConfig = field(default_factory=LocalityConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    figures: FiguresConfig = field(default_factory=FiguresConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    plugins: list[str] = field(default_factory=list)
    tolerance: float | None = None
    require_baseline: bool = False
    engine: Engine = Engine.auto
    device: Device = Device.auto
    dtype: Dtype = Dtype.auto
    batch_size: Any = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        """Check numbers against each other.

        Raises:
            UserError: one line that says what was expected, what came and what to do.
        """
        wanted = {"trained": "a model trained here", "hf_dir": "a Hugging Face causal LM"}
        if self.model.name in wanted and self.model.path is None:
            raise UserError(
                f"expected model.path, the directory of {wanted[self.model.name]}, got none; "
                "set model.path=DIR"
            )
        if not 0 <= self.prompt.shots <= MAX_SHOTS:
            raise UserError(f"expected prompt.shots from 0 to {MAX_SHOTS}, got {self.prompt.shots}")
        try:
            date.fromisoformat(self.prompt.date)
        except ValueError:
            raise UserError(
                f"expected prompt.date as YYYY-MM-DD, got {self.prompt.date!r}; set for example "
                f"prompt.date={PROMPT_DATE}"
            ) from None
        page(self.figures.format, self.figures.width, title=self.figures.title)
        self._check_problems()
        self._check_intervention()
        self._check_locality()
        self._check_inference()
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise UserError(f"expected tolerance >= 0 or null, got {self.tolerance}")
        if self.batch_size != "auto" and not is_count(self.batch_size):
            raise UserError(f"expected batch_size 'auto' or >= 1, got {self.batch_size!r}")
        if self.wandb.project == "":
            raise UserError("expected a W&B project, got an empty name; set wandb.project")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"expected threads >= 1 or null, got {self.threads}")

    def _check_problems(self) -> None:
        n, share, components = self.problems.n, self.problems.fit_share, self.tracing.n_components
        if not 0 < share < 1:
            raise UserError(
                f"expected problems.fit_share above 0 and below 1, got {share}; use for example 0.5"
            )
        if not 0 <= self.tracing.untrained_twins <= MAX_TWINS:
            raise UserError(
                f"expected tracing.untrained_twins from 0 to {MAX_TWINS}, got "
                f"{self.tracing.untrained_twins}; each is a network with random weights to trace"
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

    def _check_intervention(self) -> None:
        strengths, n_edited = self.intervention.strengths, self.intervention.n_problems
        if self.intervention.edit != "none" and not strengths:
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
        controls, sources = self.intervention.controls, self.intervention.sources
        for name in ("random", "span", "valueless"):
            count = getattr(controls, name)
            if not 0 <= count <= MAX_DRAWS:
                raise UserError(
                    f"expected intervention.controls.{name} from 0 to {MAX_DRAWS}, got {count}; "
                    "change it"
                )
        if not 1 <= sources <= MAX_DRAWS:
            raise UserError(
                f"expected intervention.sources from 1 to {MAX_DRAWS}, got {sources}; change it"
            )

    def _check_locality(self) -> None:
        locality = self.locality
        if not locality.enabled:
            return
        if self.tracing.positions == "each":
            raise UserError(
                "expected one set of positions for the locality test, got tracing.positions=each"
            )
        if locality.coordinate_points < 6 or locality.value_points < 3:
            raise UserError(
                "expected locality.coordinate_points >= 6 and value_points >= 3, got "
                f"{locality.coordinate_points} and {locality.value_points}"
            )
        if not 0 < locality.coordinate_span < math.inf:
            raise UserError(
                f"expected locality.coordinate_span above 0, got {locality.coordinate_span}"
            )
        if locality.n_problems is not None and locality.n_problems < 2:
            raise UserError(f"expected locality.n_problems >= 2, got {locality.n_problems}")

    def _check_inference(self) -> None:
        inference = self.inference
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


def quoted(text: str) -> str:
    """A text in the quotes of Hydra's grammar, so that no sign in it means anything."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"


def is_count(number: Any, *, least: int = 1) -> bool:
    """Whether a config's entry is a whole number of at least `least`."""
    return isinstance(number, int) and not isinstance(number, bool) and number >= least


def checked(config: DictConfig, overrides: Sequence[str]) -> RunConfig:
    """The config as typed values, after its numbers are checked and its plugins are imported.

    An expression from the command line is no longer the template that it replaces, unless it is
    given a name of its own. Plugins are named by their absolute paths from here on.

    Raises:
        UserError: something is missing, or does not fit; or a plugin cannot be imported.
    """
    given = {override.split("=")[0].lstrip("+") for override in overrides}
    if "template.expression" in given and "template.name" not in given:
        config.template.name = "custom"
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


def own_folders() -> list[str]:
    """The user's folders of options that the running cell was composed from."""
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
