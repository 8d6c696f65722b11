"""The schema of a run's config: every key, its type and its default. conf/ says what each means."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from mech_arith.models.kinds import PROMPT_DATE, Metric
from mech_arith.problems.hypotheses import TREE
from mech_arith.reports.papers import PNG


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


class ScreenMethod(Enum):
    """How sites are chosen before they are traced and edited."""

    none = "none"
    attribution = "attribution"
    integrated = "integrated"


class ScreenMetric(Enum):
    """What a screen's effects are measured on."""

    log_prob = Metric.LOG_PROB.value
    logit_difference = Metric.LOGIT_DIFFERENCE.value


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
    style: str | None = None
    verify: bool = False


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
    operands: dict[str, int] = field(default_factory=lambda: {"min": 100, "max": 999})
    """What problems.operands is by default."""


@dataclass
class HypothesisConfig:
    """How the answer is taken to be computed: by steps, or else by a rule that makes them."""

    name: str = TREE
    rule: str | None = TREE
    steps: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    rivals: list[Any] = field(default_factory=list)


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
    heads: Any = None
    position_map: bool = True
    untrained_twins: int = 0


@dataclass
class ScreenConfig:
    """Which of the sites are traced and edited: all, or those with the largest scores."""

    method: ScreenMethod = ScreenMethod.none
    keep: int = 10
    sample: int = 50
    points: Any = None
    metric: ScreenMetric = ScreenMetric.logit_difference
    steps: int = 8


@dataclass
class ControlsConfig:
    """What else is moved as far as the target, to compare it with."""

    random: int = 20
    span: int = 20
    valueless: int = 20
    other: bool = True
    shuffled: bool = True
    stop_after: Any = None


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
class ClaimConfig:
    """What a paper says, where a cell puts it to the test; no part of its numbers."""

    name: str | None = None
    says: str = ""
    source: str = ""
    number: str | None = None
    models: list[str] = field(default_factory=list)


@dataclass
class RunConfig:
    """One cell. Composed by Hydra from conf/."""

    model: ModelConfig = field(default_factory=ModelConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    hypothesis: HypothesisConfig = field(default_factory=HypothesisConfig)
    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    layers: LayersConfig = field(default_factory=LayersConfig)
    tracing: TracingConfig = field(default_factory=TracingConfig)
    screen: ScreenConfig = field(default_factory=ScreenConfig)
    intervention: InterventionConfig = field(default_factory=InterventionConfig)
    locality: LocalityConfig = field(default_factory=LocalityConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    figures: FiguresConfig = field(default_factory=FiguresConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    claim: ClaimConfig = field(default_factory=ClaimConfig)
    plugins: list[str] = field(default_factory=list)
    objective: Any = None
    tolerance: float | None = None
    require_baseline: bool = False
    engine: Engine = Engine.auto
    device: Device = Device.auto
    dtype: Dtype = Dtype.auto
    batch_size: Any = "auto"
    threads: int | None = None
