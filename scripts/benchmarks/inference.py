"""How long the null of the largest |R| takes over a large grid, and all else that a trace infers.

    python scripts/benchmarks/inference.py [--threads 2] [--layers 30] [--permutations 1000]

Needs nothing but the package.
"""

import argparse
import time
from collections.abc import Callable

import torch
from arguments import count

from mech_arith.statistics import (
    Resampling,
    correlation_interval,
    correlation_p,
    infer,
    shapley_shares,
)

NAMES = ("a", "b", "c", "b-c", "a-(b-c)")


def grid(
    *, layers: int, components: int, problems: int, seed: int = 0
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Coordinates at each layer, a few of them of values, and the values of `a-(b-c)`."""
    generator = torch.Generator().manual_seed(seed)
    a, b, c = torch.randint(100, 1000, (3, problems), generator=generator).double()
    values = torch.stack([a, b, c, b - c, a - (b - c)], dim=1)
    coordinates = [
        torch.randn(problems, components, generator=generator, dtype=torch.float64)
        for _ in range(layers)
    ]
    for layer, found in enumerate(coordinates):
        found[:, 0] += values[:, layer % values.shape[1]] / 300
    return coordinates, values


def timed(name: str, work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that some work takes, on the wall and of the processors; printed too."""
    started, computed = time.monotonic(), time.process_time()
    work()
    wall, cpu = time.monotonic() - started, time.process_time() - computed
    print(f"{name}: {wall:.2f} s ({cpu:.2f} s of CPU)")
    return wall, cpu


def seconds(
    *, layers: int, components: int, problems: int, permutations: int
) -> dict[str, tuple[float, float]]:
    """Seconds of each part, on the wall and of the processors."""
    coordinates, values = grid(layers=layers, components=components, problems=problems)
    how = Resampling(n_permutations=permutations)
    x = torch.cat(coordinates, dim=1)
    first = [torch.zeros(values.shape[1], dtype=torch.int64)] * layers
    parts: dict[str, Callable[[], object]] = {
        "nulls of R and of the largest |R|": lambda: correlation_p(coordinates, values, how),
        "bootstrap intervals of R": lambda: correlation_interval(x, values, how),
        "shares by value": lambda: shapley_shares(x, values),
        "all that a trace infers": lambda: infer(coordinates, values, NAMES, how, chosen=first),
    }
    return {name: timed(name, work) for name, work in parts.items()}


def main() -> None:
    """Print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument("--layers", type=count, default=30)
    parser.add_argument("--components", type=count, default=10)
    parser.add_argument("--problems", type=count, default=1000)
    parser.add_argument("--permutations", type=count, default=1000)
    asked = vars(parser.parse_args())
    torch.set_num_threads(asked.pop("threads"))
    print(", ".join(f"{n} {name}" for name, n in {**asked, "values": len(NAMES)}.items()))
    seconds(**asked)


if __name__ == "__main__":
    main()
