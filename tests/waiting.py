"""Time-outs of the tests: they end what hangs, and no busy machine reaches them."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 1200.0
"""How long to wait for anything. pytest ends a test later than this, so that the reason shows."""


def wait(condition: Callable[[], Any], *, unless: Callable[[], bool] = lambda: False) -> Any:
    """Until the condition is true; what it returned then.

    Raises:
        TimeoutError: it does not become true.
        RuntimeError: something else has happened, after which it never will.
    """
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        if unless():
            raise RuntimeError("the process ended before what was waited for")
        if time.monotonic() > end:
            raise TimeoutError(f"nothing came within {PATIENCE_S:g} s")
        time.sleep(0.02)
    return found
