"""Gradients through the layers above a site, with respect to what is put there.

The clean pass over problems is run once. After it only the layers above the site are run, from the
first edited position on, and differentiated with respect to the site's vectors. Weights are
constants: no gradient of theirs is computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from mech_arith.common.errors import UserError
from mech_arith.engine.batching import batches
from mech_arith.engine.reading import NO_TOKEN, ReferenceAnswers, force
from mech_arith.engine.row_scales import RowScales
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.attention import Past, Shared
from mech_arith.models.base import EVERY, Model, Tap, read_prefix, run_blocks, untouched
from mech_arith.models.finite import is_finite, not_finite
from mech_arith.models.prompts import Layout, Prompts

Edit = Callable[[Float[Tensor, "rows width"]], Float[Tensor, "rows width"]]
"""From a site's vectors to those that take their place."""


@dataclass(frozen=True)
class Suffix:
    """Problems of one layout, followed by tokens of an answer, to be run from a site on."""

    model: Model
    site: Site
    rows: Int64[Tensor, " n"]
    """Which of the problems these are."""
    indices: tuple[int, ...]
    """The site's positions, counted from the first that is run."""
    resid: Float[Tensor, "n new d"]
    """The clean residual stream before the first layer that is run."""
    prefix: Sequence[Past]
    """What the shared prefix offers, by layer."""
    before: Sequence[Shared]
    """What each problem's positions before the first that is run offer, by layer that is run; none
    where there are no such positions."""
    start: int
    """Position of the first that is run, from the beginning of the prompt."""
    n_read: int
    """Positions that are read out: the prompt's last one and those of the tokens behind it, but for
    those before the first that is run."""

    @property
    def first_layer(self) -> int:
        """The first that is run."""
        return self.site.layer + (self.site.point == "resid_post")

    def __len__(self) -> int:
        return len(self.rows)

    def read_outs(self, some: Int64[Tensor, " few"], edit: Edit) -> Float[Tensor, "few read out"]:
        """What is read at the prompt's end and behind each token, with the site's vectors edited;
        from the first edited position on.

        Args:
            some: of these problems.
            edit: gradients flow through whatever it gives.
        """
        model, resid, scales = self.model, self.resid[some], RowScales(self.model.dtype)
        tap = untouched

        def scaled(bases: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
            return scales.below(edit(bases))

        if self.site.point in ("resid_pre", "resid_post"):
            resid = self._edited(resid, scaled)
        else:
            tap = self._tap(scaled)
        wanted = slice(-self.n_read, None) if model.causal else model.answers_at
        for layer in range(self.first_layer, model.n_layers):
            inside = tap if layer == self.site.layer else untouched
            at = wanted if layer == model.n_layers - 1 and inside is untouched else EVERY
            past = self._past(layer, some)
            resid, _ = model.run_block(layer, resid, start=self.start, past=past, tap=inside, at=at)
        read = model.read_out(resid[:, wanted] if resid.shape[1] > self.n_read else resid)
        return scales.up(read)

    def _edited(self, activation: Float[Tensor, "few new d"], edit: Edit) -> Tensor:
        """The activation with the site's vectors edited."""
        at, own = list(self.indices), self.site.entries(self.site.width(self.model))
        vectors = edit(activation[:, at][..., own].flatten(1))
        edited = activation.clone()
        edited[:, at, own] = vectors.unflatten(1, (len(at), -1)).to(activation)
        return edited

    def _tap(self, edit: Edit) -> Tap:
        def tap(point: str, activation: Tensor) -> Tensor:
            return self._edited(activation, edit) if point == self.site.point else activation

        return tap

    def _past(self, layer: int, some: Int64[Tensor, " few"]) -> Past:
        prefix = self.prefix[layer]
        if not self.before:
            return prefix
        seen = self.before[layer - self.first_layer]
        return Past((*prefix.shared, Shared(seen.keys[:, some], seen.values[:, some])))


def open_suffixes(
    session: Session, prompts: Prompts, fed: Int64[Tensor, "n fed"], site: Site
) -> list[Suffix]:
    """The clean pass over problems with tokens behind them; of it what the layers above need.

    Memory: for each problem the residual stream before one layer, from the first edited position
    on, and the keys and values of all earlier positions in the layers above.

    Raises:
        UserError: the model's blocks cannot be run one by one; activations are not finite.
    """
    model = session.model
    check_differentiable(model)
    prefix = [kept_past(past) for past in read_prefix(model, prompts.prefix)]

    def work(layout: Layout) -> Suffix:
        return _suffix(model, prompts, prefix, layout, fed[layout.rows], site)

    alike: dict[tuple[object, ...], list[Suffix]] = {}
    for _, suffix in batches(model, prompts, session.batching, work):
        shape = (suffix.indices, suffix.start, suffix.resid.shape[1])
        alike.setdefault(shape, []).append(suffix)
    return list(map(_joined, alike.values()))


def check_differentiable(model: Model, *, instead: str = "choose another tracing method") -> None:
    """Raise a UserError where a model's layers cannot be run, and differentiated, one by one.

    Args:
        model: the model.
        instead: what to do, for the message.
    """
    if not model.replays:
        raise UserError(
            f"expected a model whose blocks can be run one by one, for gradients through those "
            f"above a site, got {model.name}, of which every pass is a whole one; {instead}, or "
            "leave out engine=full"
        )


def _suffix(
    model: Model,
    prompts: Prompts,
    prefix: list[Past],
    layout: Layout,
    fed: Int64[Tensor, "n fed"],
    site: Site,
) -> Suffix:
    """The clean pass over some problems; of it what is needed."""
    positions, n_prefix = layout.positions(site.position), len(prompts.prefix)
    first = min(positions) if model.causal else 0
    start = site.layer + (site.point == "resid_post")
    tokens = torch.cat([layout.tokens, fed], dim=1).to(model.device)
    # Where every position is run again, nothing is needed of the layers above.
    stop = None if first else start
    resid, seen = run_blocks(
        model, model.embed(tokens, start=n_prefix), start=n_prefix, pasts=prefix, stop=stop
    )
    if not is_finite(resid[-1]):
        raise not_finite(model, torch.cat([prompts.whole(layout), fed], dim=1))
    return Suffix(
        model=model,
        site=site,
        rows=layout.rows,
        indices=tuple(position - first for position in positions),
        resid=resid[start][:, first:].clone(),
        prefix=prefix,
        before=[_copied(new.shared().before(first)) for new in seen[start:]] if first else [],
        start=n_prefix + first,
        n_read=1 + fed.shape[1] - layout.n_ahead(site.position),
    )


def _joined(parts: Sequence[Suffix]) -> Suffix:
    """Problems of one layout that were run in several batches."""
    one = parts[0]
    before = [
        Shared(
            torch.cat([seen.keys for seen in of_layer], dim=1),
            torch.cat([seen.values for seen in of_layer], dim=1),
        )
        for of_layer in zip(*(part.before for part in parts), strict=True)
    ]
    return Suffix(
        model=one.model,
        site=one.site,
        rows=torch.cat([part.rows for part in parts]),
        indices=one.indices,
        resid=torch.cat([part.resid for part in parts]),
        prefix=one.prefix,
        before=before,
        start=one.start,
        n_read=one.n_read,
    )


def _copied(seen: Shared) -> Shared:
    """The same in tensors that a backward pass may keep: those of inference mode it may not."""
    return Shared(seen.keys.clone(), seen.values.clone())


def kept_past(past: Past) -> Past:
    """What earlier positions offer, in tensors that a backward pass may keep."""
    return Past(tuple(map(_copied, past.shared)))


@dataclass(frozen=True)
class Objective:
    """Answers that are wanted of n problems."""

    right: Int64[Tensor, "n length"]
    """Their tokens, `NO_TOKEN` behind the last; no columns for a model that regresses."""
    ahead: Int64[Tensor, "n ahead"]
    """Tokens that are written before any of these, and cannot be changed."""
    numbers: Float64[Tensor, " n"]
    scale: float
    """Standard deviation of the numbers: the unit of a regressing model's error."""
    longer: Int64[Tensor, " some"] | None
    """Tokens that would make an answer a longer number; None if all have as many tokens."""

    @classmethod
    def of(cls, model: Model, numbers: Float64[Tensor, " n"]) -> "Objective":
        """The numbers as the model would write them; NaN for none."""
        # How long answers may be is not asked for: the bound has no part in it.
        asked = ReferenceAnswers(numbers, torch.full_like(numbers, torch.nan), bound=0)
        scale = float(numbers[torch.isfinite(numbers)].std()) if len(numbers) > 1 else 0.0
        longer = None if model.reader is None else model.reader.longer
        right, nothing = force(model, asked).right, torch.empty(len(numbers), 0, dtype=torch.int64)
        return cls(right, nothing, numbers, scale if scale > 0 else 1.0, longer)

    def behind(self, ahead: Int64[Tensor, "n ahead"]) -> "Objective":
        """What is wanted where other tokens are written already: the rest of the wanted answers."""
        return replace(self, right=self.right[:, ahead.shape[1] :], ahead=ahead)

    @property
    def fed(self) -> Int64[Tensor, "n fed"]:
        """The tokens that go behind the prompts, so that all that counts is read."""
        wanted = self.right[:, : -1 if self.longer is None else None].clamp(min=0)
        return torch.cat([self.ahead, wanted], dim=1)

    def known(self, *, n_ahead: int = 0) -> Bool[Tensor, " n"]:
        """Marks the numbers that the model could give, in more than so many tokens."""
        known = torch.isfinite(self.numbers)
        if not self.right.shape[1]:
            return known
        return known & ((self.right != NO_TOKEN).sum(1) > n_ahead)

    def losses(
        self, read: Float[Tensor, "rows read out"], problems: Int64[Tensor, " rows"]
    ) -> Float[Tensor, " rows"]:
        """How far what is read is from the wanted answers.

        Minus the log-probability of all wanted tokens, and then of no further digit, in nats; for a
        model that regresses, the squared error in units of `scale`.
        """
        right = self.right[problems].to(read.device)
        length = right.shape[1]
        if length == 0:
            numbers = (self.numbers[problems] / self.scale).to(read)
            return (read[:, 0, 0] / self.scale - numbers).square()
        each = cross_entropy(
            read[:, :length].flatten(0, 1),
            right.flatten(),
            ignore_index=NO_TOKEN,
            reduction="none",
        )
        losses = each.view_as(right).sum(1)
        if self.longer is None:
            return losses
        behind = read[torch.arange(len(read)), (right != NO_TOKEN).sum(1)]
        ends = behind.index_fill(1, self.longer.to(read.device), -torch.inf)
        return losses + behind.logsumexp(-1) - ends.logsumexp(-1)
