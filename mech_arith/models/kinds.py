"""Kinds of models: how each is found, checked, loaded and asked. Nothing heavy is imported here."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from mech_arith.common.errors import UserError
from mech_arith.common.registry import Registry
from mech_arith.problems import ProblemSet

POINTS = ("resid_pre", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post")
"""Where activations are read and edited, in the order of a block. `z` is the heads' outputs side by
side, which the attention's output matrix reads; `mlp_post` the neurons, which the MLP's reads."""

HEADS_AT = "z"
"""The point that is made of the heads' parts side by side."""

ANSWER, PROMPT_AND_ANSWER = "answer", "all+answer"
"""Positions from which the answer's tokens are read: all of them, alone or behind the prompt's."""

EACH = "each"
"""Every single position, or every head, is a site of its own."""

EACH_ANSWER = f"{ANSWER}.{EACH}"
"""Every position from which a token of the answer is read is a site of its own."""

SITES_EACH = (EACH, EACH_ANSWER)
"""Positions that are several sites, each of one position."""

PROMPT_DATE = "2024-07-26"
"""What a chat template prints that prints today's date: the day that Llama 3's templates fall back
to where there is no clock."""

MODELS = Registry("model.kind", "mech_arith.models.loaders")
"""Loaders by the kind of model."""


class LayerPart(StrEnum):
    """A named stretch of a model's layers."""

    ALL = "all"
    EARLY = "early"
    MIDDLE = "middle"
    LATE = "late"
    CENTRE = "centre"


class Metric(StrEnum):
    """What of a model's answer an effect is measured on."""

    LOG_PROB = "log_prob"
    """Log-probability of the whole right answer, in nats."""
    LOGIT_DIFFERENCE = "logit_difference"
    """Logit of the right minus the source's answer, at the first token in which they differ."""
    NUMBER = "number"
    """The number itself, counted towards the source's answer: of a model that regresses."""


@dataclass(frozen=True)
class ModelChoice:
    """What a config says of a model and of how it is asked."""

    name: str
    kind: str
    path: Path | None = None
    """Where its files are."""
    hub: str | None = None
    """Its name on Hugging Face's hub."""
    revision: str | None = None
    dtype: str | None = None
    """The model's own: model.dtype."""
    device_map: str | None = None
    own_style: str | None = None
    """Of the prompt, where none is asked for: the one that suits the model."""
    run_dtype: str = "auto"
    """That of the run: dtype."""
    run_device: str = "auto"
    """As asked for: device."""
    style: str | None = None
    """Of the prompt."""
    shots: int = 0
    system: str | None = None
    date: str = ""


class Loader(ABC):
    """How models of one kind are had.

    A kind of one's own is a subclass with `load`, and `files` if it reads any, registered by
    `@MODELS.register(KIND)`, and a file conf/model/NAME.yaml with `name: NAME` and `kind: KIND`.
    """

    takes_examples: ClassVar[bool] = False
    """Prompts begin with prompt.shots examples."""

    def check(self, choice: ModelChoice) -> None:
        """Refuse options that do not fit, before anything is loaded.

        By default a model has one dtype and one way to be asked.

        Raises:
            UserError: an option that means nothing to this kind.
        """
        for option, given, only in (
            ("dtype", choice.run_dtype, "auto"),
            ("prompt.style", choice.style, None),
            ("prompt.system", choice.system, None),
        ):
            if given != only:
                raise UserError(
                    f"expected no {option} for {choice.name}, which has one way to be asked, "
                    f"got {given!r}; leave it out, or choose a language model"
                )

    def files(self, choice: ModelChoice) -> tuple[Path, ...]:
        """Every file that has a part in what the model answers, in order of name; none by default.

        Their contents are part of the cell's identity; the code of a plugin is so without it.

        Raises:
            UserError: there is no such model.
        """
        return ()

    def commit(self, choice: ModelChoice) -> str | None:
        """The commit of the hub that the files are of; None, as by default, where there is none."""
        return None

    @abstractmethod
    def load(self, choice: ModelChoice, *, device: str, shots: ProblemSet) -> Any:
        """The model: a `mech_arith.models.base.Model`.

        Args:
            choice: which one.
            device: 'cpu' or 'cuda'.
            shots: examples for the prompt; none where `takes_examples` is false.

        Raises:
            UserError: its files are damaged, or do not fit the choice.
        """

    def stand_in(self, choice: ModelChoice, *, device: str, shots: ProblemSet) -> Any | None:
        """What stands in for the model where only its price is asked: a `stand_in.StandIn`.

        No weights are read. By default the model itself, where it has no files; else None, and
        cells of the model cannot be priced.

        Args:
            choice: as of `load`.
            device: as of `load`.
            shots: as of `load`.
        """
        return None if self.files(choice) else self.load(choice, device=device, shots=shots)

    def asked_again(self, model: Any, choice: ModelChoice, *, shots: ProblemSet) -> Any | None:
        """A model that `load` gave, asked as another choice says, without loading it again.

        The other choice differs in its prompts alone. It must be as good as new: nothing that was
        done to the first one shows. None, as by default, where it has to be loaded again.
        """
        return None

    def prompt_name(self, choice: ModelChoice) -> str | None:
        """How the model is asked, for tables; None where there is one way alone."""
        return None


def find_loader(kind: str) -> Loader:
    """The loader of a kind of models.

    Raises:
        UserError: there is no such kind.
    """
    return MODELS.find(kind)()
