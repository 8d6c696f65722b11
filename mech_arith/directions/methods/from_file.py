"""The user's own frame: decoder rows of a sparse autoencoder, a probe of another paper.

A safetensors file has `frame` [k, d], orthonormal rows in the order in which ranks take them, and
`mean` [d], from which coordinates are measured. Without `mean` that is the mean of the fit split. A
file for several layers has `layer.3.frame` and `layer.3.mean`, and so on. `save_frame` writes one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.directions.base import METHODS, FitTask, Subspace
from mech_arith.directions.moments import JointMoments, KeepsMoments
from mech_arith.engine.sites import in_runs
from mech_arith.problems import ProblemSet

ORTHONORMAL = 1e-5
"""Products of unit rows may miss 1 or 0 by this much, as float32 makes them."""

EVERY_LAYER = -1


class Frame(NamedTuple):
    """What a file has for a layer."""

    frame: Float[Tensor, "k d"]
    mean: Float[Tensor, " d"] | None


@METHODS.register("from_file")
@dataclass
class FromFile(KeepsMoments):
    """Takes directions as a file has them, and sums up activations for their covariance.

    O(d^2) memory. What the file holds is part of the cell's identity, and not where it lies.
    """

    is_of_own_size: ClassVar[bool] = True
    file_options: ClassVar[tuple[str, ...]] = ("path",)

    n_components: int
    path: str = ""
    _frames: dict[int, Frame] = field(init=False)
    _own: Frame = field(init=False)
    _moments: JointMoments = field(init=False, default_factory=JointMoments)

    def __post_init__(self) -> None:
        if not self.path:
            raise UserError(
                "expected a safetensors file with tracing.method=from_file, got none; set "
                "tracing.options.path=FILE"
            )
        self._frames = read_frames(Path(self.path).expanduser())

    def check(self, problems: ProblemSet, ranks: Sequence[int]) -> None:
        """Refuse ranks for which the file has too few rows.

        Raises:
            UserError: there are too few.
        """
        fewest = min(len(of.frame) for of in self._frames.values())
        if max(ranks, default=1) > fewest:
            raise UserError(
                f"expected tracing.rank <= {fewest}, the rows of the frame in {self.path}, got "
                f"{max(ranks)}; lower the rank or give a larger frame"
            )

    def start(self, task: FitTask) -> None:
        """Choose the site's frame.

        Raises:
            UserError: there is none for its layer, or it is of another width.
        """
        site = task.site
        own = self._frames.get(site.layer) or self._frames.get(EVERY_LAYER)
        if own is None:
            raise UserError(
                f"expected a frame for layer {site.layer} in {self.path}, got those of layers "
                f"{in_runs(sorted(self._frames))}; choose these with layers=..."
            )
        n_positions = len(task.prompts.positions(site.position)[0])
        width = n_positions * site.width(task.session.model)
        if own.frame.shape[1] != width:
            raise UserError(
                f"expected a frame of width {width} for {site.point} at position {site.position} "
                f"({n_positions} tokens), got {own.frame.shape[1]} in {self.path}; change "
                "tracing.point or tracing.positions, or set tracing.position_map=false"
            )
        self._own = own

    def update(self, activations: Float[Tensor, "n d"], values: Float[Tensor, "n v"]) -> None:
        """Fold one batch in; what the values are does not matter.

        Raises:
            ValueError: the batch is empty, of another width, or not finite.
        """
        self._moments.update(activations, activations.double()[:, :0])

    def fit(self) -> Subspace:
        """The file's frame, whole.

        Raises:
            UserError: fewer rows than two.
        """
        found, own = self._moments.joint(1), self._own
        mean = found.mean if own.mean is None else own.mean
        return Subspace(
            mean,
            own.frame,
            found.along(own.frame),
            found.total_variance,
            offset=own.frame @ (found.mean - mean),
        )


def save_frame(path: Path, subspace: Subspace, rows: Sequence[int] | None = None) -> None:
    """Write a file for `tracing=from_file`.

    Args:
        path: NAME.safetensors.
        subspace: whose mean and directions are written.
        rows: of the directions, those to write; None for all. They must be orthonormal.

    Raises:
        UserError: they are not.
    """
    frame = subspace.directions if rows is None else subspace.directions[list(rows)]
    parts = {"frame": frame.contiguous(), "mean": subspace.mean.contiguous()}
    _checked(path, "", parts)
    save_file(parts, path)


def read_frames(path: Path) -> dict[int, Frame]:
    """By layer what a file has; `EVERY_LAYER` where it has one frame for all.

    Raises:
        UserError: it is missing or no such file, or a frame in it is not finite and orthonormal.
    """
    if not path.is_file():
        raise UserError(
            f"expected a safetensors file at {path}, found none; set tracing.options.path"
        )
    try:
        parts = load_file(path)
    except (SafetensorError, OSError) as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"expected a safetensors file at {path}, got one that cannot be read ({said}); save it "
            "with safetensors.torch.save_file"
        ) from None
    frames = [name.removesuffix("frame") for name in parts if re.fullmatch(_FRAME, name)]
    belong = {f"{prefix}{part}" for prefix in frames for part in ("frame", "mean")}
    wrong = sorted(set(parts) - belong)
    if wrong or not frames or ("" in frames and len(frames) > 1):
        raise UserError(
            "expected the keys 'frame' and 'mean', or 'layer.3.frame', 'layer.3.mean' and so on, "
            f"in {path}, got {', '.join(wrong or sorted(parts)) or 'none'}; rename them"
        )
    return {_layer(prefix): _checked(path, prefix, parts) for prefix in frames}


_FRAME = r"(layer\.\d+\.)?frame"


def _layer(prefix: str) -> int:
    return int(prefix.split(".")[1]) if prefix else EVERY_LAYER


def _checked(path: Path, prefix: str, parts: Mapping[str, Tensor]) -> Frame:
    """A frame that is one, in float64."""
    frame, mean = parts[f"{prefix}frame"], parts.get(f"{prefix}mean")
    what = f"'{prefix}frame' in {path}"
    if frame.ndim != 2 or not frame.is_floating_point() or not len(frame):
        raise UserError(
            f"expected rows of numbers [k, d] as {what}, got {list(frame.shape)} of "
            f"{str(frame.dtype).removeprefix('torch.')}; save one direction a row"
        )
    if mean is not None and (mean.shape != frame.shape[1:] or not mean.is_floating_point()):
        raise UserError(
            f"expected {frame.shape[1]} numbers as '{prefix}mean' in {path}, as wide as the frame, "
            f"got {list(mean.shape)} of {str(mean.dtype).removeprefix('torch.')}; save both alike"
        )
    for name, part in (("frame", frame), ("mean", mean)):
        if part is not None and not part.isfinite().all():
            raise UserError(
                f"expected finite numbers as '{prefix}{name}' in {path}, got NaN or infinity"
            )
    frame = frame.double()
    apart = (frame @ frame.mT - torch.eye(len(frame), dtype=torch.float64)).abs().max()
    if apart > ORTHONORMAL:
        raise UserError(
            f"expected orthonormal rows as {what}, got F F' as far as {float(apart):.2g} from the "
            f"identity (at most {ORTHONORMAL:g}); save torch.linalg.qr(frame.double().T).Q.T"
        )
    return Frame(frame.contiguous(), None if mean is None else mean.double())
