"""Cells of one process share the network that they study."""

import gc
import weakref

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf
from transformers import PreTrainedModel

from mech_arith.evidence.results import load_run
from mech_arith.experiment import load_model
from mech_arith.experiment.config import ModelConfig, PromptConfig, RunConfig, TemplateConfig
from mech_arith.experiment.load_model import release_model, shared_model
from mech_arith.experiment.names import look_up
from mech_arith.experiment.plan import prepare
from mech_arith.models.language.pretrained import PretrainedModel
from tests.lms import tiny_lm
from tests.running import SMALL, main


@pytest.fixture(autouse=True)
def _released():
    release_model()
    yield
    release_model()


@pytest.fixture(scope="module")
def lms(tmp_path_factory):
    return [tiny_lm("llama", tmp_path_factory.mktemp("llama"), seed=seed) for seed in (0, 1)]


def settings(path, **prompt) -> RunConfig:
    config = RunConfig(
        model=ModelConfig(name="hf", kind="language_model", path=str(path)),
        template=TemplateConfig("sum_of_two", "a+b", "{expression}"),
        prompt=PromptConfig(style="comma", **prompt),
    )
    config.problems.n, config.problems.operands = 40, {"min": 0, "max": 9}
    look_up(config)
    return config


def shared(config: RunConfig, weights: str = "same") -> PretrainedModel:
    found = shared_model(config, prepare(config), weights=weights)
    assert isinstance(found, PretrainedModel)
    return found


def test_another_prompt_is_asked_of_the_same_network(lms):
    one, two = shared(settings(lms[0], shots=1)), shared(settings(lms[0], shots=3))
    assert one.network is two.network
    alone = load_model.load_model(settings(lms[0], shots=3), prepare(settings(lms[0], shots=3)))
    assert two.fingerprint == alone.fingerprint
    problems = prepare(settings(lms[0], shots=3)).fit
    assert two.encode(problems).digest() == alone.encode(problems).digest()
    assert one.encode(problems).digest() != two.encode(problems).digest()


def test_what_a_cell_has_turned_to_whole_passes_is_so_in_no_other(lms):
    one = shared(settings(lms[0]))
    one.replays = False
    assert shared(settings(lms[0])).replays
    full = settings(lms[0])
    full.engine = type(full.engine)("full")
    assert not shared(full).replays
    assert shared(settings(lms[0])).replays


@pytest.mark.parametrize("other", ["path", "files", "dtype"])
def test_another_model_is_loaded_and_the_first_one_let_go(lms, other):
    network = weakref.ref(shared(settings(lms[0])).network)
    config = settings(lms[1] if other == "path" else lms[0])
    if other == "dtype":
        config.dtype = type(config.dtype)("bfloat16")
    shared(config, weights="other" if other == "files" else "same")
    gc.collect()
    assert network() is None


def test_it_is_let_go_before_the_next_one_is_loaded(lms, monkeypatch):
    network = weakref.ref(shared(settings(lms[0])).network)
    alive = []
    load = load_model._load
    monkeypatch.setattr(load_model, "_load", lambda *a: (alive.append(network()), load(*a))[1])
    shared(settings(lms[1]))
    assert alive == [None]


def test_cells_of_a_sweep_load_once_and_are_what_they_are_alone(monkeypatch, tmp_path, lms):
    loads = []
    read = PreTrainedModel.from_pretrained.__func__

    def counting(kind, *args, **options):
        loads.append(kind.__name__)
        return read(kind, *args, **options)

    composed, compose = [], ConfigLoaderImpl.load_sweep_config

    def composing(self, master, overrides):
        composed.append(overrides)
        return compose(self, master, overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", composing)
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(counting))
    monkeypatch.setattr("mech_arith.reports.figures.draw_cell", lambda _, to, **__: to.mkdir())
    lm = ("model=hf_dir", f"model.path={lms[0]}", "prompt=comma", "template=sum_of_two")
    cell = (
        *SMALL,
        "problems.operands={min:1,max:9}",
        *lm,
        "tracing=pca_last",
        "intervention=none",
        "store.enabled=false",
    )
    assert main(monkeypatch, tmp_path, *cell, "problems.seed=0,1,2", sweep=True) == 0
    assert loads == ["LlamaForCausalLM"]
    assert len(composed) == 1  # they differ in a value alone
    directory = OmegaConf.load(tmp_path / "run" / "2" / ".hydra" / "hydra.yaml")
    assert directory.hydra.sweep.subdir == "2"
    assert "hydra.sweep.subdir='2'" in directory.hydra.overrides.hydra
    release_model()
    assert main(monkeypatch, tmp_path / "alone", *cell, "problems.seed=2") == 0
    together, alone = load_run(tmp_path / "run" / "2"), load_run(tmp_path / "alone" / "run")
    for name, table in alone.tables.items():
        assert table.equals(together.tables[name]), name
