"""Statistics in float64. What is undefined is NaN, never a stand-in."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def pearson(x: Float[Tensor, "n k"], y: Float[Tensor, "n v"]) -> Float64[Tensor, "k v"]:
    """Pearson's R of every column of `x` with every column of `y`; NaN where one is constant."""
    x, y = (columns.double() - columns.double().mean(0) for columns in (x, y))
    product = x.mT @ y
    norms = torch.outer(x.norm(dim=0), y.norm(dim=0))
    return torch.where(norms > 0, product / norms, torch.nan).clamp(-1, 1)


def r_squared(predicted: Float[Tensor, " n"], actual: Float[Tensor, " n"]) -> float:
    """1 - residual / total sum of squares, over rows where both are numbers; NaN below two rows."""
    keep = torch.isfinite(predicted) & torch.isfinite(actual)
    predicted, actual = predicted[keep].double(), actual[keep].double()
    total = (actual - actual.mean()).square().sum() if len(actual) > 1 else torch.tensor(0.0)
    if total == 0:
        return float("nan")
    return 1 - float((predicted - actual).square().sum() / total)
