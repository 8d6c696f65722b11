"""Random subspaces: controls for fitted ones."""

import torch
from jaxtyping import Float64
from torch import Tensor


def random_frame(
    rank: int, width: int, *, generator: torch.Generator
) -> Float64[Tensor, "rank width"]:
    """Orthonormal rows that span a subspace drawn uniformly: the control for a fitted one."""
    rows = torch.randn(rank, width, generator=generator, dtype=torch.float64)
    if rank == 1:
        return rows / rows.norm()
    return torch.linalg.qr(rows.mT).Q.mT
