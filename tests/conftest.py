"""What all tests share: an environment that does not depend on the user's machine."""

import gc
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import jaxtyping
import pytest
from hypothesis import settings

# Before anything imports these libraries, which read their variables once.
os.environ.update(
    HF_HUB_OFFLINE="1",  # a test that reaches for the hub fails at once
    MPLBACKEND="Agg",
    WANDB_SILENT="true",
    TOKENIZERS_PARALLELISM="false",
)
for _name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SILENT"]:
    del os.environ[_name]  # the user's account, project or mode

# No deadline: the first call of a torch function may take seconds on a busy machine. Derandomised:
# a run of the suite is reproducible, and a new example is found on purpose and not by chance.
settings.register_profile("mech_arith", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("mech_arith")

TIMES_CHECKED = 20
"""How often a function within a function has its annotations checked.

It is defined anew at each call of the outer one, and its checks with it: half a millisecond, which
made loops of such calls take fifty times as long as they do without checks.
"""


def _sparing(jaxtyped: Callable[..., Any]) -> Callable[..., Any]:
    """The decorator that `--jaxtyping-packages` gives each function, for inner ones a few times."""
    defined: Counter[CodeType] = Counter()

    def decorator(*, typechecker: Any) -> Callable[[Any], Any]:
        check = jaxtyped(typechecker=typechecker)

        def checked(made: Any) -> Any:
            if "<locals>" not in made.__qualname__ or not hasattr(made, "__code__"):
                return check(made)
            defined[made.__code__] += 1
            return check(made) if defined[made.__code__] <= TIMES_CHECKED else made

        return checked

    return decorator


jaxtyping.jaxtyped = _sparing(jaxtyping.jaxtyped)  # before anything imports the package


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs fetched weights, so that no test of them can be forgotten."""
    for item in items:
        if {"smollm2", "larger_lm"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.weights)


def pytest_collection_finish() -> None:
    """Leave what was imported out of later garbage collections, of which the tests cause many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _private_wandb(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep W&B out of the home directory and of the checkout, and tests out of each other's W&B."""
    directory = tmp_path_factory.getbasetemp() / "wandb"
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(directory))
    # An earlier test's background process: a program started by this test would use it too, and
    # take it down with itself.
    monkeypatch.delenv("WANDB_SERVICE", raising=False)


@pytest.fixture(autouse=True)
def _no_plugins() -> Iterator[None]:
    """What a test's plugins register is not there for the next test."""
    from mech_arith.common.registry import without_additions

    with without_additions():
        yield


@pytest.fixture(autouse=True)
def _fresh_hydra(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hydra sets up one state and one log file per process: leave none behind.

    It asks for `monkeypatch` so that it ends first, while a test's own handlers still stand.
    """
    before = list(logging.root.handlers)
    yield
    for handler in [handler for handler in logging.root.handlers if handler not in before]:
        logging.root.removeHandler(handler)
        handler.close()
    module = sys.modules.get("hydra.core.global_hydra")
    if module is not None:
        module.GlobalHydra.instance().clear()
