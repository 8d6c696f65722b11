"""What is added to activations at one site: within subspaces, or whole vectors."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mech_arith.common.digests import json_digest, tensor_digest
from mech_arith.engine.sites import Site


@runtime_checkable
class Edits(Protocol):
    """Edits of n problems at one site, of which the engine asks what each adds."""

    @property
    def site(self) -> Site: ...

    def __len__(self) -> int:
        """How many edits of each problem there are."""
        ...

    def moved(self, rows: Int64[Tensor, " m"]) -> Bool[Tensor, "edits m"]:
        """Which problems each edit moves at all."""
        ...

    def vectors(
        self, edits: Int64[Tensor, " some"], rows: Int64[Tensor, " m"], *, device: torch.device
    ) -> Float[Tensor, "m some width"]:
        """What some edits add to some problems, in float32."""
        ...

    def digest(self) -> str:
        """Of all that is added."""
        ...


@dataclass(frozen=True)
class SiteEdits:
    """Problems moved within subspaces."""

    site: Site
    frames: Float[Tensor, "edits k width"]
    """Orthonormal directions for each edit."""
    changes: Float[Tensor, "edits n k"]
    """How far each edit moves each problem along each direction, in activation units."""

    def __len__(self) -> int:
        return len(self.changes)

    def moved(self, rows: Int64[Tensor, " m"]) -> Bool[Tensor, "edits m"]:
        return (self.changes[:, rows] != 0).any(2)

    def vectors(
        self, edits: Int64[Tensor, " some"], rows: Int64[Tensor, " m"], *, device: torch.device
    ) -> Float[Tensor, "m some width"]:
        frames = self.frames[edits].to(device, torch.float32)
        far = self.changes[edits][:, rows].to(device, torch.float32)
        return (far @ frames).transpose(0, 1)

    def digest(self) -> str:
        return tensor_digest(self.frames, self.changes)


@dataclass(frozen=True)
class SiteGrid:
    """Problems moved within each subspace by each of the changes: all changes within the first
    subspace, then all within the second.
    """

    site: Site
    frames: Float[Tensor, "f k width"]
    """Orthonormal directions of each subspace."""
    changes: Float[Tensor, "m n k"]
    """How far problems move along the directions of whichever subspace, in activation units."""

    def __len__(self) -> int:
        return len(self.frames) * len(self.changes)

    def moved(self, rows: Int64[Tensor, " m"]) -> Bool[Tensor, "edits m"]:
        return (self.changes[:, rows] != 0).any(2).repeat(len(self.frames), 1)

    def vectors(
        self, edits: Int64[Tensor, " some"], rows: Int64[Tensor, " m"], *, device: torch.device
    ) -> Float[Tensor, "m some width"]:
        within, far = edits // len(self.changes), edits % len(self.changes)
        pairs = SiteEdits(self.site, self.frames[within], self.changes[far])
        return pairs.vectors(torch.arange(len(edits)), rows, device=device)

    def digest(self) -> str:
        return json_digest(["grid", tensor_digest(self.frames, self.changes)])


@dataclass(frozen=True)
class SiteVectors:
    """Problems moved by vectors of their own: of what an interchange of the whole site adds."""

    site: Site
    added: Float[Tensor, "edits n width"]

    def __len__(self) -> int:
        return len(self.added)

    def moved(self, rows: Int64[Tensor, " m"]) -> Bool[Tensor, "edits m"]:
        return (self.added[:, rows] != 0).any(2)

    def vectors(
        self, edits: Int64[Tensor, " some"], rows: Int64[Tensor, " m"], *, device: torch.device
    ) -> Float[Tensor, "m some width"]:
        return self.added[edits][:, rows].transpose(0, 1).to(device, torch.float32)

    def digest(self) -> str:
        return json_digest(["vectors", tensor_digest(self.added)])
