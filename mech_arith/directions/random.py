"""Random directions: controls for fitted ones."""

import torch
from jaxtyping import Float
from torch import Tensor


def random_direction(width: int, *, generator: torch.Generator) -> Float[Tensor, " width"]:
    """A unit vector drawn uniformly from the sphere: the control for a fitted direction."""
    vector = torch.randn(width, generator=generator, dtype=torch.float64)
    return vector / vector.norm()
