"""Pretrained causal language models: on the hub, in its cache, or in a directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mech_arith.common.errors import UserError
from mech_arith.common.progress import counted
from mech_arith.models.kinds import MODELS, Loader, ModelChoice
from mech_arith.problems import ProblemSet

if TYPE_CHECKING:
    from mech_arith.models.language.prompting import Prompting

DEFAULT_STYLE = "comma"
"""Of prompts, where none is asked for and the model has none of its own."""


@MODELS.register("language_model")
class LanguageModel(Loader):
    """Weights, config and tokenizer as Hugging Face has them."""

    takes_examples: ClassVar[bool] = True

    def check(self, choice: ModelChoice) -> None:
        if choice.device_map is not None and choice.run_device != "auto":
            raise UserError(
                f"expected model.device_map or device, got {choice.device_map!r} and "
                f"{choice.run_device!r}; leave one of them out"
            )
        if choice.path is not None and choice.revision is not None and choice.hub is None:
            raise UserError(
                f"expected no model.revision with model.path, got {choice.revision!r}; leave it out"
            )

    def files(self, choice: ModelChoice) -> tuple[Path, ...]:
        from mech_arith.models.language.finding import find_model
        from mech_arith.models.language.hf_files import model_files

        path = None if choice.path is None else choice.path.expanduser()
        return model_files(find_model(choice.name, path, choice.hub, choice.revision))

    def commit(self, choice: ModelChoice) -> str | None:
        from mech_arith.models.language.finding import find_model
        from mech_arith.models.language.hub import commit_of

        if choice.hub is None or choice.path is not None:
            return None
        return commit_of(find_model(choice.name, None, choice.hub, choice.revision))

    def load(self, choice: ModelChoice, *, device: str, shots: ProblemSet) -> Any:
        from mech_arith.models.language.loading import load_pretrained
        from mech_arith.models.language.pretrained import PretrainedModel

        loaded = load_pretrained(
            choice.name,
            path=choice.path,
            hub=choice.hub,
            revision=choice.revision,
            dtype=choice.dtype if choice.run_dtype == "auto" else choice.run_dtype,
            device=None if choice.device_map is not None else device,
            device_map=choice.device_map,
        )
        return PretrainedModel(loaded, _prompting(choice, shots))

    def stand_in(self, choice: ModelChoice, *, device: str, shots: ProblemSet) -> Any:
        from mech_arith.models.language.stand_in import language_stand_in

        return language_stand_in(choice, _prompting(choice, shots), device=device)

    def asked_again(self, model: Any, choice: ModelChoice, *, shots: ProblemSet) -> Any:
        return model.asked(_prompting(choice, shots))

    def prompt_name(self, choice: ModelChoice) -> str | None:
        return f"{_style(choice)}, {counted(choice.shots, 'shot')}"


def _prompting(choice: ModelChoice, shots: ProblemSet) -> "Prompting":
    from mech_arith.models.language.prompting import Prompting

    return Prompting(_style(choice), shots, choice.system, choice.date)


def _style(choice: ModelChoice) -> str:
    return choice.style or choice.own_style or DEFAULT_STYLE
