"""Numbers drawn for direction methods, and methods fitted to them batch by batch."""

import torch
from torch import Tensor

from mech_arith.directions.base import DirectionMethod, FitTask, Subspace, find_method
from mech_arith.engine.batching import Batching
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.tiny import PlantedModel

TEMPLATE = build_template("nested", "a-(b-c)")


def drawn(n: int, width: int, n_values: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Activations of unequal spread and values that they carry, some in sizes of hundreds."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(5, 0.5, width).double()
    x = torch.randn(n, width, generator=generator, dtype=torch.float64) * scales + 3
    mixing = torch.randn(width, n_values, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, n_values, generator=generator, dtype=torch.float64)
    sizes = torch.tensor([1.0, 300.0, 40.0])[:n_values].double()
    return x, (x @ mixing + 3 * noise) * sizes + 500


def started(method: DirectionMethod, values: Tensor, site: Site | None = None):
    """A fitter for activations of problems with these values."""
    model, problems = (
        PlantedModel(),
        draw(TEMPLATE, n=5, ranges=dict.fromkeys("abc", (1, 9)), seed=0),
    )
    prompts = model.encode(problems)
    at = site or Site(0, "resid_post", "last")
    return method.fitter(
        FitTask(Session(model, Batching(5)), problems, prompts, at, values, method.ranks)
    )


def fitted(
    name: str, x: Tensor, y: Tensor, *, rank: int = 1, size: int | None = None, **options
) -> Subspace:
    """What a method finds in activations x of problems with values y."""
    fitter = started(find_method(name, rank, options, ranks=(rank,)), y)
    for rows in torch.arange(len(x)).split(size or len(x)):
        fitter.update(x[rows], y[rows])
    return fitter.fit()


def principal_angle(one: Tensor, two: Tensor) -> float:
    """The largest one between the spans of orthonormal rows, in radians; exact for small ones."""
    left = two - (two @ one.mT) @ one
    return float(torch.linalg.matrix_norm(left, 2).clamp(max=1).asin())
