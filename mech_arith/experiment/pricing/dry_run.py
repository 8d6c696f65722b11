"""A dry run: every cell of a sweep is composed and priced, none is run, nothing is written."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch

from mech_arith.common.errors import UserError
from mech_arith.common.progress import progress
from mech_arith.common.registry import without_additions
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.pricing.price import START_S, Price, Prices
from mech_arith.experiment.pricing.shown import SweepPrice, as_json, short, show


@without_additions()
def price_of_sweep(
    cells: Sequence[tuple[str, RunConfig | UserError]],
    *,
    rate: float | None,
    done: Collection[int] = (),
    n_starts: int = 1,
    is_quiet: bool = True,
) -> SweepPrice:
    """The prices of all cells.

    Args:
        cells: name and checked config of each, or why it is refused.
        rate: multiply-adds per second; None to measure it.
        done: numbers of the cells that have their result already.
        n_starts: processes that run them.
        is_quiet: without a progress bar.
    """
    prices, found = Prices(rate), []
    bar = cells if is_quiet else progress(cells, description="pricing", unit="cells")
    for index, (name, settings) in enumerate(bar):
        if isinstance(settings, UserError):
            found.append(Price(name, refused=str(settings)))
        else:
            found.append(replace(prices.of(settings, name), is_done=index in done))
    devices = {one.device.value for _, one in cells if not isinstance(one, UserError)}
    runs = any(price.refused is None and not price.is_done for price in found)
    return SweepPrice(found, n_starts if runs else 0, START_S, _said(rate, found, devices))


def _said(rate: float | None, prices: Sequence[Price], devices: Collection[str]) -> str:
    if rate is not None:
        return f"{short(rate)} multiply-adds per second, as sweep.rate says"
    spent = sum(p.engine_s for p in prices)
    macs = sum(p.engine_macs for p in prices)
    n = torch.get_num_threads()
    on_gpu = torch.cuda.is_available() and devices != {"cpu"}
    where = "CUDA" if on_gpu else f"{n} CPU thread{'s' * (n > 1)}"
    on_average = f"{short(macs / spent)} multiply-adds per second" if spent else "none needed"
    return f"{on_average}, measured here ({where}); of another machine set sweep.rate"


def print_price(price: SweepPrice, *, as_program: bool) -> int:
    """Print it; the exit code: 1 where a cell would be refused."""
    if as_program:
        sys.stdout.write(f"{as_json(price)}\n")
    else:
        show(price)
    return 1 if price.refused else 0


def model_of(settings: RunConfig | UserError) -> str | None:
    """What stands for a cell's model; None where it is refused."""
    if isinstance(settings, UserError):
        return None
    return repr([settings.model, settings.dtype, settings.device])
