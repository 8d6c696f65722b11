"""How much goes through the model at a time."""

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from mech_arith.models.base import Model
from mech_arith.models.prompts import Layout, Prompts

log = logging.getLogger(__name__)

T = TypeVar("T")

AUTO_ELEMENTS = {"cpu": 3 * 2**17, "cuda": 2**25}
"""Numbers in the residual stream of one batch (rows x positions x width). Measured on two cores:
the rate of the shipped decoder is highest at 256 rows, of SmolLM2 at 240 (one position) and at 96
(six), and falls by a tenth to a quarter with four times as many. For CUDA it is a guess."""


class Batching:
    """The batch size: given, or by the width of the model; halved where memory runs out."""

    def __init__(self, rows: int | None = None) -> None:
        self._rows = rows
        self._share = 1.0

    def rows(self, model: Model, positions: int) -> int:
        """Rows of so many positions to run at a time."""
        budget = AUTO_ELEMENTS.get(model.device.type, AUTO_ELEMENTS["cpu"])
        auto = budget // (positions * model.d_model)
        return max(1, int((self._rows or auto) * self._share))

    def halve(self, error: BaseException, model: Model, positions: int) -> None:
        """After a batch that memory did not hold.

        Raises the error again if there is nothing left to halve.
        """
        if self.rows(model, 1) <= 1:
            raise error
        rows = self.rows(model, positions)
        log.warning("out of memory with %d rows at a time: going on with half as many", rows)
        self._share /= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the CPU or a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in said)


def parts(model: Model, prompts: Prompts, batching: Batching) -> Iterator[Layout]:
    """The problems a few at a time, each part of one layout."""
    for part, _ in batches(model, prompts, batching, lambda _: None):
        yield part


def batches(
    model: Model,
    prompts: Prompts,
    batching: Batching,
    work: Callable[[Layout], T],
    *,
    skip: int = 0,
    held: int = 1,
) -> Iterator[tuple[Layout, T]]:
    """The problems a few at a time, each part of one layout, with the result of `work` on it.

    Where memory runs out, half as many are tried. The first `skip` problems, in the order in which
    they would come, are passed over. `held` is how many times the memory of a plain pass the work
    on a problem takes.
    """
    for layout in prompts.layouts:
        start = min(skip, len(layout))
        skip -= start
        while start < len(layout):
            # Full passes run the prefix with every row.
            positions = layout.tokens.shape[1] + (0 if model.replays else len(prompts.prefix))
            positions *= held
            part = layout.part(slice(start, start + batching.rows(model, positions)))
            try:
                result = work(part)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                lacking = error.with_traceback(None)  # which holds on to what did not fit
            else:
                yield part, result
                start += len(part)
                continue
            batching.halve(lacking, model, positions)
