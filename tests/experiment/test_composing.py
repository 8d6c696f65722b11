"""Configs of cells that share files are what Hydra composes for each by itself."""

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from mech_arith.common.paths import conf_dir
from mech_arith.experiment.composing import Composing
from mech_arith.experiment.config import RunConfig

LISTS = (
    ("problems.seed=0", "layers=early", "intervention.sources=2"),
    ("problems.seed=1", "layers=early", "intervention.sources=2"),
    ("problems.operands={min:1,max:9}", "problems.operands.max=7", "layers=early"),
    ("layers=early", "layers.list=[1,2]", "problems.seed=1"),
    ("problems.seed=1", "problems={n:60,seed:2}"),
    ("+problems.operands.extra=1", "problems.seed=1", "hydra.sweep.subdir=x"),
)


@pytest.fixture(scope="module")
def composed():
    """Cells' configs, shared and by Hydra alone, and how often Hydra composed for the former."""
    ConfigStore.instance().store(name="schema", node=RunConfig)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        sweep = loader.load_configuration("config", ["threads=1"], RunMode.MULTIRUN)
        alone = [loader.load_sweep_config(sweep, list(one)) for one in LISTS]
        calls, load = [], loader.load_sweep_config
        loader.load_sweep_config = lambda *asked: (calls.append(asked), load(*asked))[1]
        composing = Composing(loader, sweep)
        shared = [composing.of(one) for one in LISTS]
    return shared, alone, len(calls)


@pytest.mark.parametrize("index", range(len(LISTS)))
def test_a_shared_config_is_what_hydra_composes(composed, index):
    shared, alone = (OmegaConf.to_container(found[index]) for found in composed[:2])
    assert shared == alone


def test_cells_that_choose_the_same_files_are_composed_once(composed):
    # Once for the four of early layers, and twice where it shows that the order counts.
    assert composed[2] == 1 + 2 + 2


def test_the_cells_of_a_sweep_do_not_share_values(composed):
    shared = composed[0]
    assert [one.problems.seed for one in shared[:2]] == [0, 1]
    assert OmegaConf.is_struct(shared[0])
