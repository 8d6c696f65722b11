"""Models whose weights can be changed: the matrices that write into the residual stream."""

import copy
from abc import abstractmethod
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mech_arith.common.digests import json_digest, tensor_digest
from mech_arith.common.errors import UserError
from mech_arith.models.base import Model

T = TypeVar("T")


class EditableModel(Model):
    """A model that offers its output matrices, and copies of itself with another one."""

    @abstractmethod
    def projection(self, layer: int, point: str) -> nn.Module:
        """The linear module that gives `attn_out` or `mlp_out`, or reads `z` or `mlp_post`.

        Raises:
            UserError: no one linear module does.
        """

    @abstractmethod
    def sharing(self) -> "EditableModel":
        """Another model with the same tensors: modules of its own, no copied weights."""

    @abstractmethod
    def save(self, directory: Path, *, edited: dict[str, Any]) -> None:
        """Write files from which the model can be loaded anywhere.

        Args:
            directory: an empty one.
            edited: what was done to the weights, for whoever finds the files.

        Raises:
            UserError: its architecture has no place for a weight that the model has.
        """

    def check_bias(self, layer: int, point: str) -> None:
        """Raise a UserError where the saved architecture has no place for a bias there."""

    def with_projection(
        self,
        layer: int,
        point: str,
        weight: Float[Tensor, "out inputs"],
        bias: Float[Tensor, " out"] | None,
    ) -> "EditableModel":
        """A model with another matrix and bias at one place. All other tensors are shared."""
        model = self.sharing()
        module: Any = model.projection(layer, point)
        module.weight = _parameter(weight.mT if is_transposed(module) else weight, module.weight)
        module.bias = None if bias is None else _parameter(bias, module.weight)
        changed = [module.weight] if bias is None else [module.weight, module.bias]
        model.digest = json_digest([self.digest, layer, point, tensor_digest(*changed)])
        return model


def no_matrix(name: str, point: str, why: str) -> UserError:
    """What to say where no one matrix writes a point."""
    return UserError(
        f"expected a matrix that writes {point} of {name}, but {why}; choose another "
        "tracing.point, or intervention.via=activations"
    )


def _parameter(values: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(values.to(like).contiguous(), requires_grad=False)


def is_transposed(module: Any) -> bool:
    """Whether a linear module keeps its matrix with the input first, as GPT-2's Conv1D."""
    return type(module).__name__ == "Conv1D"


def matrix(module: Any) -> tuple[Float[Tensor, "out inputs"], Float[Tensor, " out"] | None]:
    """A linear module's matrix and bias, in float64."""
    weight = module.weight.detach().double()
    bias = module.bias
    return (
        weight.mT if is_transposed(module) else weight,
        None if bias is None else bias.detach().double(),
    )


def sharing_tensors(value: T, module: nn.Module) -> T:
    """A deep copy of what holds a module, in which the module's tensors are the same ones."""
    tensors: list[torch.Tensor] = [*chain(module.parameters(), module.buffers())]
    return copy.deepcopy(value, {id(tensor): tensor for tensor in tensors})
