"""Language models in GGUF files, llama.cpp's format: converted once, then like any other."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mech_arith.common.errors import UserError
from mech_arith.models.kinds import MODELS, ModelChoice
from mech_arith.models.loaders.language_model import LanguageModel
from mech_arith.problems import ProblemSet


@MODELS.register("gguf")
class GGUF(LanguageModel):
    """One file with weights, settings and tokenizer."""

    def check(self, choice: ModelChoice) -> None:
        super().check(choice)
        if choice.path is None:
            raise UserError("expected model.path, a GGUF file, got none; set model.path=FILE.gguf")
        for option, given in (("hub", choice.hub), ("revision", choice.revision)):
            if given is not None:
                raise UserError(
                    f"expected no model.{option} for a GGUF file, got {given!r}; leave it out"
                )

    def files(self, choice: ModelChoice) -> tuple[Path, ...]:
        from mech_arith.models.language.gguf_file import read_gguf

        return (read_gguf(_path(choice)).path,)

    def commit(self, choice: ModelChoice) -> str | None:
        return None

    def load(self, choice: ModelChoice, *, device: str, shots: ProblemSet) -> Any:
        from mech_arith.models.language.gguf_conversion import converted_model

        directory = converted_model(_path(choice))
        return super().load(replace(choice, path=directory), device=device, shots=shots)

    def stand_in(self, choice: ModelChoice, *, device: str, shots: ProblemSet) -> Any | None:
        """None before the file was converted: its tokenizer is rebuilt by that."""
        from mech_arith.models.language.gguf_conversion import converted_before

        directory = converted_before(_path(choice))
        if directory is None:
            return None
        return super().stand_in(replace(choice, path=directory), device=device, shots=shots)


def _path(choice: ModelChoice) -> Path:
    assert choice.path is not None  # checked before
    return choice.path.expanduser()
