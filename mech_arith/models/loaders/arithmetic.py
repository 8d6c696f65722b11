"""The models trained here: those that are shipped, by name, and others by their directory."""

import copy
from pathlib import Path
from typing import Any

from mech_arith.models.kinds import MODELS, Loader, ModelChoice
from mech_arith.problems import ProblemSet


@MODELS.register("arithmetic")
class Arithmetic(Loader):
    """A card and weights in one directory."""

    def files(self, choice: ModelChoice) -> tuple[Path, ...]:
        from mech_arith.models.arithmetic.checkpoints import checkpoint_files
        from mech_arith.models.arithmetic.loading import checkpoint_directory

        return checkpoint_files(checkpoint_directory(choice.name, _expanded(choice.path)))

    def load(self, choice: ModelChoice, *, device: str, shots: ProblemSet) -> Any:
        from mech_arith.models.arithmetic.loading import load_arithmetic

        return load_arithmetic(choice.name, directory=choice.path, device=device)

    def stand_in(self, choice: ModelChoice, *, device: str, shots: ProblemSet) -> Any:
        from mech_arith.models.arithmetic.loading import arithmetic_stand_in

        return arithmetic_stand_in(choice.name, directory=_expanded(choice.path), device=device)

    def asked_again(self, model: Any, choice: ModelChoice, *, shots: ProblemSet) -> Any:
        return copy.copy(model)  # it has one way to be asked


def _expanded(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser()
