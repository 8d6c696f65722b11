"""The result of a direction method, and what a method has to offer to be found by name.

A method is one file in `methods/` and one YAML in `conf/tracing/`, both called by its name. The
file has a mutable fitter that yields a frozen result:

    @METHODS.register("mine")
    @dataclass
    class MineFitter:
        n_components: int
        ridge: float = 1.0  # tracing.options.ridge

The fields of this dataclass beside `n_components` are the method's options, each with a default and
one of the types bool, int, float, str, `tuple[T, ...]` of these, or one of these or None. What a
fitter keeps while it works is `field(init=False)`. It checks its options in `__post_init__`. The
YAML lists the options with their defaults, so that `tracing.options.ridge=2` is understood.

A method says of itself, by class variables, whether it uses the values (`is_supervised`: then it is
also fitted to values that are not there, as its control), whether it finds other directions for
each of them (`is_per_value`) and whether its frame has a size of its own (`is_of_own_size`): for
both, `n_components` is the largest rank that is asked for, or 1. `file_options` names those of its
options that are paths of files: what they hold is part of the key, and not where they are. One that
`is_trained` runs the model with gradients: the constraints on problems, which counterfactual ones
keep, are part of its key, and so is the code of the modules that it names as `uses`.

Some problems suit no method: one that has a method `check(problems, ranks)` refuses them, by a
`UserError`, before a model is loaded.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from mech_arith.common.errors import UserError, unknown
from mech_arith.common.file_digests import file_digest
from mech_arith.directions import METHODS
from mech_arith.engine.gradients import check_differentiable
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.base import Model
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet
from mech_arith.problems.expressions import Constraint

EVERY_VALUE, EVERY_RANK = -1, 0
"""What a direction is for that was found for no value, or for no rank, in particular."""


DEPENDENT = 1e-6
"""A direction that adds less than this to the span of others adds nothing."""


@dataclass(frozen=True)
class Harmonics:
    """Coordinates as functions of the value that they were found for: a line, and circles.

    The coordinate on direction i is b_i0 + b_i1 x + sum over periods T of
    b_i cos(2 pi x / T) + b_i' sin(2 pi x / T), for a value x.
    """

    periods: Float64[Tensor, " p"]
    coefficients: Float64[Tensor, "k terms"]
    """Constant, slope, and for each period the cosine and the sine: 2 + 2p terms."""
    of_period: Int64[Tensor, " k"]
    """Index of the period whose circle each direction was found for; -1 for the line."""

    def part(self, directions: Sequence[int]) -> "Harmonics":
        """Of some of the directions."""
        at = list(directions)
        return Harmonics(self.periods, self.coefficients[at], self.of_period[at])

    def periods_of(self, directions: Sequence[int]) -> list[float]:
        """Of the circles that some directions were found for, each once."""
        known = self.of_period[list(directions)].tolist()
        return [float(self.periods[i]) for i in dict.fromkeys(known) if i >= 0]

    def at(self, direction: int, values: Float64[Tensor, "*rows"]) -> Float64[Tensor, "*rows"]:
        """Coordinates on one direction, of problems with such values."""
        return harmonic_terms(values, self.periods) @ self.coefficients[direction]


def harmonic_terms(
    values: Float64[Tensor, "*rows"], periods: Float64[Tensor, " p"]
) -> Float64[Tensor, "*rows terms"]:
    """One, x, and for each period T cos(2 pi x / T) and sin(2 pi x / T) of the values x."""
    angles = 2 * torch.pi * values[..., None] / periods
    circles = torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(-2)
    return torch.cat([torch.ones_like(values)[..., None], values[..., None], circles], dim=-1)


@dataclass(frozen=True)
class Subspace:
    """Directions at one site, whatever method has found them.

    Those that belong to one value and rank are an orthonormal frame. Directions of several frames
    need not be orthogonal to each other.
    """

    mean: Float[Tensor, " d"]
    """Where coordinates are 0: the mean activation of the fit split, unless a user's own frame says
    otherwise. In the activation's units, float64."""

    directions: Float[Tensor, "k d"]
    """Unit rows in the method's order."""

    covariance: Float[Tensor, "k k"]
    """Of the coordinates over the fit split, in squared activation units. Diagonal for principal
    components."""

    total_variance: float
    """Variance over all dimensions on the fit split, in squared activation units."""

    of_value: Int64[Tensor, " k"] | None = None
    """Index of the value that each direction was found for; `EVERY_VALUE` for all alike. None:
    all directions are for every value."""

    of_rank: Int64[Tensor, " k"] | None = None
    """The rank of the only frame that a direction is part of; `EVERY_RANK` where a frame of rank k
    is the first k of its value's directions. None: all directions are for every rank."""

    harmonics: Harmonics | None = None
    """Coordinates as functions of the value; None where a straight line has to do."""

    offset: Float[Tensor, " k"] | None = None
    """Mean coordinate over the fit split; None for 0, where `mean` is the fit split's own."""

    @property
    def variance(self) -> Float[Tensor, " k"]:
        """Variance along each direction over the fit split, in squared activation units."""
        return self.covariance.diagonal()

    @property
    def sd(self) -> Float[Tensor, " k"]:
        """Standard deviation of each coordinate over the fit split."""
        return self.variance.sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """Its parts, by name."""
        parts = {
            "mean": self.mean,
            "directions": self.directions,
            "covariance": self.covariance,
            "total_variance": torch.tensor(self.total_variance, dtype=torch.float64),
            "of_value": self.values_of(),
            "of_rank": self._ranks_of(),
            "offset": self.mean_coordinates,
        }
        harmonics = {} if self.harmonics is None else vars(self.harmonics)
        return parts | harmonics

    @classmethod
    def of_tensors(cls, parts: Mapping[str, Tensor]) -> "Subspace":
        """The frame that has these parts."""
        known = "periods" in parts
        return cls(
            parts["mean"],
            parts["directions"],
            parts["covariance"],
            float(parts["total_variance"]),
            parts["of_value"],
            parts["of_rank"],
            Harmonics(parts["periods"], parts["coefficients"], parts["of_period"])
            if known
            else None,
            parts["offset"],
        )

    @property
    def mean_coordinates(self) -> Float[Tensor, " k"]:
        """Over the fit split."""
        nothing = torch.zeros(len(self.directions), dtype=torch.float64)
        return nothing if self.offset is None else self.offset

    def values_of(self) -> Int64[Tensor, " k"]:
        """Index of the value that each direction was found for; `EVERY_VALUE` for all alike."""
        if self.of_value is not None:
            return self.of_value
        return torch.full((len(self.directions),), EVERY_VALUE, dtype=torch.int64)

    def _ranks_of(self) -> Int64[Tensor, " k"]:
        if self.of_rank is not None:
            return self.of_rank
        return torch.full((len(self.directions),), EVERY_RANK, dtype=torch.int64)

    def of(self, value: int) -> Bool[Tensor, " k"]:
        """Marks the directions that were found for a value, or for all alike."""
        return (self.values_of() == value) | (self.values_of() == EVERY_VALUE)

    @property
    def span(self) -> Float[Tensor, "free d"]:
        """Orthonormal rows that span all directions."""
        if bool((self.values_of() == EVERY_VALUE).all()):
            return self.directions
        _, sizes, rows = torch.linalg.svd(self.directions, full_matrices=False)
        return rows[sizes > DEPENDENT]

    def has_own(self, value: int, rank: int) -> bool:
        """Whether there are directions for this value and this rank alone."""
        return bool((self.of(value) & (self._ranks_of() == rank)).any())

    def frame(self, value: int, rank: int) -> tuple[int, ...]:
        """The directions that make up a value's subspace of a rank; none if there are too few."""
        of_rank = rank if self.has_own(value, rank) else EVERY_RANK
        mine = self.of(value) & (self._ranks_of() == of_rank)
        found = mine.nonzero()[:rank, 0].tolist()
        return tuple(found) if len(found) == rank else ()

    def part(self, directions: Sequence[int]) -> "Subspace":
        """Some of the directions."""
        at = list(directions)
        return Subspace(
            self.mean,
            self.directions[at],
            self.covariance[at][:, at],
            self.total_variance,
            self.values_of()[at],
            self._ranks_of()[at],
            None if self.harmonics is None else self.harmonics.part(at),
        )

    def project(self, activation: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        """Coordinates of `activation`; zero at the mean."""
        return (activation.double() - self.mean) @ self.directions.mT


@runtime_checkable
class Fitter(Protocol):
    """Takes in the fit split's problems batch by batch and yields directions.

    Results must not depend on how problems are batched. All that a fitter has taken in is in its
    state, from which a killed run goes on.

    A fitter that runs the model itself, for gradients through it, say, also has a method
    `start(task: FitTask)`. It is called once, before the first batch. One that is trained has a
    method `learning()` with its learning curves, `[points, 7]`; see `LEARNING`.
    """

    def update(self, activations: Float[Tensor, "n d"], values: Float64[Tensor, "n v"]) -> None:
        """Fold in the activations and values of n problems. Unsupervised methods ignore values."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that it has taken in, for `restore`."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up the state of another fitter, as if its batches had come to this one."""
        ...

    def fit(self) -> Subspace:
        """The directions: `n_components`, or fewer where there are no more.

        Raises:
            UserError: too few problems.
        """
        ...


LEARNING = ("value", "rank", "restart", "step", "loss", "held_out_loss", "kept")
"""Columns of learning curves: index of the value, rank of the frame, number of the training, step,
mean loss since the step before, loss on what is held out, and 1 for the frame that was kept."""


@dataclass(frozen=True)
class Drawing:
    """How problems are drawn; counterfactual ones are to be like them."""

    constraints: tuple[Constraint, ...] = ()
    digits: int = 0
    """Of the largest operand that may be drawn: prompts of all problems are as long."""


UNCONSTRAINED = Drawing()
"""Problems under no constraint."""


@dataclass(frozen=True)
class FitTask:
    """Where directions are looked for."""

    session: Session
    problems: ProblemSet
    """The fit split."""
    prompts: Prompts
    """Of these problems."""
    site: Site
    values: Float64[Tensor, "n v"]
    """Of these problems: the expression's, or those of the control task."""
    ranks: tuple[int, ...] = ()
    """Of the subspaces that are asked for; none where directions are edited one at a time."""
    is_control: bool = False
    """The values are not there: they are drawn at random for each combination of operands."""
    drawing: Drawing = UNCONSTRAINED


@dataclass(frozen=True)
class DirectionMethod:
    """A direction method with its options. `find_method` makes one that is checked."""

    name: str
    n_components: int
    """Directions to find at each site."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """All of them, also those that are left at their defaults."""
    ranks: tuple[int, ...] = ()
    """Of the subspaces that are asked for; none where directions are edited one at a time."""
    registered: type | None = None
    """Its class; None for the one that is registered by the name now."""

    @property
    def _class(self) -> Any:
        """Also where the plugin that registered it is not in use any more."""
        return self.registered or METHODS.find(self.name)

    @property
    def key(self) -> dict[str, Any]:
        """What determines its results, as plain JSON data."""
        files = self.files
        options = {
            k: list(v) if isinstance(v, tuple) else v
            for k, v in self.options.items()
            if k not in files
        }
        found = {"method": self.name, "n_components": self.n_components, "options": options}
        contents = {"files": {k: file_digest(path) for k, path in files.items()}} if files else {}
        ranks = {"ranks": list(self.ranks)} if self._says("is_per_rank") else {}
        return {**found, **contents, **ranks}

    @property
    def files(self) -> dict[str, Path]:
        """The files that its options name, by option."""
        named = getattr(self._class, "file_options", ())
        return {option: Path(self.options[option]).expanduser() for option in named}

    @property
    def is_supervised(self) -> bool:
        """Whether it uses the values."""
        return self._says("is_supervised")

    @property
    def is_trained(self) -> bool:
        """Whether it runs the model with gradients."""
        return self._says("is_trained")

    def check_model(self, model: Model) -> None:
        """Raise a UserError where a method that is trained cannot be trained through this model."""
        if self.is_trained:
            check_differentiable(model)

    def _says(self, what: str) -> bool:
        return bool(getattr(self._class, what, False))

    @property
    def code(self) -> tuple[ModuleType, ...]:
        """The modules of the method: its own, those of classes that it inherits from, and those
        that it names.
        """
        inherited = (sys.modules[kind.__module__] for kind in self._class.__mro__)
        ours = (module for module in inherited if module.__name__.startswith("mech_arith."))
        uses = getattr(self._class, "uses", ())
        return tuple(dict.fromkeys([METHODS.module(self.name), *ours, *uses]))

    def _made(self) -> Any:
        return self._class(self.n_components, **self.options)

    def check(self, problems: ProblemSet) -> None:
        """Whether it can be fitted on problems: those of the fit split.

        Raises:
            UserError: the method refuses them, or the ranks that are asked for.
        """
        made = self._made()
        if hasattr(made, "check"):
            made.check(problems, self.ranks)

    def fitter(self, task: FitTask) -> Fitter:
        """A new fitter for one site."""
        made = self._made()
        if hasattr(made, "start"):
            made.start(task)
        return made


def find_method(
    name: str,
    n_components: int,
    options: Mapping[str, Any] | None = None,
    *,
    ranks: Sequence[int] = (),
) -> DirectionMethod:
    """The method of a name.

    Args:
        name: under which it is registered.
        n_components: directions to find at each site.
        options: of the method, by name.
        ranks: of the subspaces that are asked for. There are as many directions at least.

    Raises:
        UserError: no such method, an option that it does not have, or a value of another type or
            that the method refuses.
    """
    if n_components < 1:
        raise UserError(f"expected tracing.n_components >= 1, got {n_components}")
    fitter = METHODS.find(name)
    if getattr(fitter, "is_per_value", False) or getattr(fitter, "is_of_own_size", False):
        n_components = 1
    n_components = max(n_components, *ranks, 1)
    kinds = get_type_hints(fitter)
    known = {each.name: each for each in fields(fitter) if each.init}
    del known["n_components"]
    given = dict(options or {})
    for option in given:
        if not known:
            raise UserError(f"expected no tracing.options with {name}, got {option}; leave it out")
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    chosen = {
        option: _checked(f"tracing.options.{option}", given[option], kinds[option])
        if option in given
        else _default(each)
        for option, each in known.items()
    }
    fitter(n_components, **chosen)
    return DirectionMethod(name, n_components, chosen, tuple(ranks), fitter)


def _default(option: Any) -> Any:
    return option.default if option.default is not MISSING else option.default_factory()


def _checked(option: str, given: Any, kind: Any) -> Any:
    """What is given for an option, as its type has it.

    Raises:
        UserError: it is of another type.
    """
    if get_origin(kind) is tuple and isinstance(given, list | tuple):
        return tuple(_checked(option, each, get_args(kind)[0]) for each in given)
    for one in get_args(kind) if isinstance(kind, UnionType) else (kind,):
        if get_origin(one) is tuple and isinstance(given, list | tuple):
            return _checked(option, given, one)
        if one is float and type(given) is int:
            return float(given)
        if one is type(given) or (one is NoneType and given is None):
            return given
    wanted = getattr(kind, "__name__", str(kind)) if not get_args(kind) else str(kind)
    raise UserError(f"expected {option} of type {wanted}, got {given!r}; change it or leave it out")


def values_of_frames(frames: Sequence[Float[Tensor, "_ d"]]) -> Int64[Tensor, " k"]:
    """Index of the value of every direction, where each value in turn has such a frame."""
    indices = [
        torch.full((len(frame),), value, dtype=torch.int64) for value, frame in enumerate(frames)
    ]
    return torch.cat(indices)


def positive_peaks(directions: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """The same directions, each with the sign that makes its largest entry positive."""
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return directions * largest.sign()
