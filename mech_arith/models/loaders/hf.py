"""Any causal language model by one path: of the hub, in a directory, or in a GGUF file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mech_arith.common.errors import UserError
from mech_arith.models.kinds import MODELS, ModelChoice
from mech_arith.models.loaders.gguf import GGUF
from mech_arith.models.loaders.language_model import LanguageModel
from mech_arith.problems import ProblemSet


@MODELS.register("hf")
class HuggingFace(LanguageModel):
    """Hands what model.path names to the loader that reads it."""

    def check(self, choice: ModelChoice) -> None:
        if choice.path is None:
            raise UserError(
                "expected model.path with model=hf, got none; set model.path=ORG/NAME|DIR|FILE.gguf"
            )
        loader, meant = self._meant(choice)
        if meant.hub is None and choice.revision is not None:
            raise UserError(
                f"expected no model.revision with model.path={choice.path}, which is on this "
                f"machine, got {choice.revision!r}; leave it out"
            )
        loader.check(meant)

    def files(self, choice: ModelChoice) -> tuple[Path, ...]:
        loader, meant = self._meant(choice)
        return loader.files(meant)

    def commit(self, choice: ModelChoice) -> str | None:
        loader, meant = self._meant(choice)
        return loader.commit(meant)

    def load(self, choice: ModelChoice, *, device: str, shots: ProblemSet) -> Any:
        loader, meant = self._meant(choice)
        return loader.load(meant, device=device, shots=shots)

    def stand_in(self, choice: ModelChoice, *, device: str, shots: ProblemSet) -> Any | None:
        loader, meant = self._meant(choice)
        return loader.stand_in(meant, device=device, shots=shots)

    @staticmethod
    def _meant(choice: ModelChoice) -> tuple[LanguageModel, ModelChoice]:
        """What the path is: a directory that is there is never taken for a name of the hub."""
        from mech_arith.models.language.hub import is_repository

        assert choice.path is not None  # checked before
        path, text = choice.path.expanduser(), str(choice.path)
        kind: Callable[[], LanguageModel] = LanguageModel
        if path.suffix == ".gguf":
            kind = GGUF
        elif not path.exists() and is_repository(text):
            return LanguageModel(), replace(choice, path=None, hub=text)
        elif not path.is_dir():
            raise UserError(
                f"expected model.path=ORG/NAME|DIR|FILE.gguf with model=hf, got {text!r}, which is "
                "none of them; give a name on the hub, or what is there on this machine"
            )
        return kind(), choice
