"""Passes over a batch of problems: the clean one, and those that start from it.

A batch is a grid of rows, problems x edits, problem by problem. `Resumed` runs only the layers
above the edit, only from the first edited position on, behind keys and values that rows share.
`Hooked` does the same by whole passes with hooks, for models whose blocks cannot be run alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.engine.rules import Rule
from mech_arith.engine.sites import Site
from mech_arith.models.attention import KeysValues, Past, Shared
from mech_arith.models.base import EVERY, Model, Place, Tap, run_blocks, untouched
from mech_arith.models.finite import is_finite, logits_are_finite, not_finite
from mech_arith.models.prompts import Layout, Prompts

READ_OUT_ELEMENTS = 2**23
"""Numbers in the read-outs of one chunk of rows: a vocabulary is wide. In float32 they take the 32
MiB up to which glibc hands out memory that was used before; twice as many cost a page fault for
every 4 KiB, and log-softmax and argmax on SmolLM2's vocabulary took three times as long."""

WRITTEN_ELEMENTS = 2**25
"""Numbers that are kept of what was written behind the problems of a batch."""

Written = tuple[int, ...]
"""The answer's tokens so far."""


@dataclass(frozen=True)
class Change:
    """What one batch of edits adds at a site."""

    site: Site
    indices: tuple[int, ...]
    """Of the site's positions, counted behind the prefix; those behind the prompt's last one are
    edited once the model gets there."""
    vectors: Float[Tensor, "rows k width"]
    """What is added behind the right answer's tokens."""
    rule: Rule | None = None
    """What more is added behind others; None for nothing."""

    def add(self, activation: Float[Tensor, "rows pos d"], *, first: int = 0) -> Tensor:
        """A new activation with the change added; `first` is the position that it begins with."""
        vectors = self.vectors.to(activation)
        if vectors.shape[1:] == activation.shape[1:]:
            return activation + vectors
        edited = activation.clone()
        at = [index - first for index in self.indices]
        edited[:, at, self._own] += vectors
        return edited

    def follow(
        self,
        activation: Float[Tensor, "rows pos d"],
        right: Float[Tensor, "rows k width"] | None,
        *,
        first: int,
    ) -> Float[Tensor, "rows pos d"]:
        """The same behind tokens of the row's own, which may end before all positions are there.

        Args:
            activation: to be edited.
            right: what it is behind the right answer's tokens, at each of `indices`; needed where
                there is a rule.
            first: the position that `activation` begins with.
        """
        edited, own = activation.clone(), self._own
        for column, index in enumerate(self.indices):
            at = index - first
            if not 0 <= at < activation.shape[1]:
                continue
            edited[:, at, own] += self.vectors[:, column].to(activation)
            if self.rule is not None and right is not None:
                other = activation[:, at, own] - right[:, column].to(activation)
                edited[:, at, own] -= self.rule.taken_back(other, column)
        return edited

    def at(
        self, activation: Float[Tensor, "rows pos d"], *, first: int
    ) -> Float[Tensor, "rows k width"] | None:
        """What the activation is at the positions, where a rule asks for it."""
        if self.rule is None:
            return None
        return activation[:, [index - first for index in self.indices], self._own]

    @property
    def _own(self) -> slice:
        """Of the point's numbers those of the site."""
        return self.site.entries(self.vectors.shape[2])

    @property
    def between_blocks(self) -> bool:
        """Whether it is made on the residual stream before or behind a block, not inside one."""
        return self.site.point in ("resid_pre", "resid_post")

    def of(self, rows: Int64[Tensor, " some"]) -> "Change":
        """The change of some of the rows."""
        rule = None if self.rule is None else self.rule.of(rows)
        return Change(self.site, self.indices, self.vectors[rows], rule)


@runtime_checkable
class Rows(Protocol):
    """A batch of rows. `reading` turns what is read of them into answers."""

    @property
    def n_same(self) -> int:
        """Tokens that are read before the first edited position, the same as without an edit."""
        ...

    def read_outs(self) -> Iterator[tuple[slice, Float[Tensor, "rows read out"]]]:
        """What is read at the prompt's end and behind each fed token, some rows at a time; without
        the first `n_same` of these.
        """
        ...

    def tails(self, rows: Int64[Tensor, " some"]) -> "Tails":
        """Some of the rows, to write on by themselves; nothing of the others is held on to."""
        ...


@runtime_checkable
class Tails(Protocol):
    """Rows that write other tokens than were fed, out of one batch or several at the same site."""

    def joined(self, others: Sequence[Any]) -> "Tails":
        """These rows, and those of others of this kind behind them."""
        ...

    def next_read_outs(
        self, rows: Int64[Tensor, " some"], written: Sequence[Written]
    ) -> Iterator[Float[Tensor, "few out"]]:
        """What is read behind the last of the tokens that rows have written, a few rows at a time.

        All have written equally many. Called again with one token more, or with another last one.
        """
        ...


@dataclass(frozen=True)
class Clean:
    """An unedited pass over problems of one layout, each followed by the tokens fed behind it."""

    model: Model
    layout: Layout
    prefix: list[Past]
    """What the shared prefix offers, by layer."""
    tokens: Int64[Tensor, "n whole"]
    """Of the prompts, prefix included."""
    n_prefix: int
    fed: Int64[Tensor, "n fed"]
    """Tokens of the right answers, so that their probability is read in the same pass."""
    resid: list[Tensor]
    """The residual stream before each layer and after the last, [n, pos + fed, d]."""
    seen: list[Shared]
    """Keys and values by layer, a group per problem."""
    written: dict[tuple[int, int, Written], Float[Tensor, "1 d"]] = field(default_factory=dict)
    """By layer, problem and tokens: the last written token's residual stream before the layer. The
    same for all edits above, which write the same few numbers."""

    @property
    def n_prompt(self) -> int:
        """Positions of the prompt behind the prefix."""
        return self.layout.tokens.shape[1]


@torch.inference_mode()
def run_clean(
    model: Model,
    prompts: Prompts,
    prefix: list[Past],
    layout: Layout,
    fed: Int64[Tensor, "n fed"],
) -> Clean:
    """The clean pass over some problems."""
    start = len(prompts.prefix)
    tokens = torch.cat([layout.tokens, fed], dim=1).to(model.device)
    resid, seen = run_blocks(model, model.embed(tokens, start=start), start=start, pasts=prefix)
    whole = prompts.whole(layout)
    if not is_finite(resid[-1]):
        raise not_finite(model, torch.cat([whole, fed.cpu()], dim=1))
    shared = [new.shared() for new in seen] if model.causal else []
    return Clean(model, layout, prefix, whole, start, fed.to(model.device), resid, shared)


class Resumed:
    """Rows that start from the clean pass where the edit is made.

    Without a change it is the clean pass itself, one row per problem.
    """

    def __init__(self, clean: Clean, change: Change | None, *, n_edits: int = 1) -> None:
        self._clean = clean
        self._model = clean.model
        self._n_edits = n_edits
        self._change = change
        self._start = self._first_layer(change)
        self._first = min(change.indices) if change and self._model.causal else 0
        self.n_same = max(0, self._first - clean.n_prompt + 1)
        self._right: Tensor | None = None
        """The activation before the change, at its positions, by problem, where a rule asks."""
        self._own: list[KeysValues] = []
        """What the rows' positions from the first edited one on offer, in layers that are run."""
        self._last = self._run(change)

    def _first_layer(self, change: Change | None) -> int:
        if change is None:
            return self._model.n_layers
        return change.site.layer + (change.site.point == "resid_post")

    @torch.inference_mode()
    def _run(self, change: Change | None) -> Float[Tensor, "rows at d"]:
        """The last residual stream where answers are read from."""
        clean, model, first = self._clean, self._model, self._first
        resid = clean.resid[self._start][:, first:]
        resid = resid[:, None].expand(-1, self._n_edits, -1, -1).flatten(0, 1)
        if change is not None and change.between_blocks:
            resid = self._edited(change, resid)
        fed = clean.fed.shape[1]
        wanted = slice(-(1 + fed), None) if model.causal else model.answers_at
        for layer in range(self._start, model.n_layers):
            inside = _tap(change, layer, self._edited)
            at = wanted if layer == model.n_layers - 1 and inside is untouched else EVERY
            start, past = clean.n_prefix + first, self._past(layer)
            resid, new = model.run_block(layer, resid, start=start, past=past, tap=inside, at=at)
            self._own.append(new)
        last = resid[:, wanted] if resid.shape[1] > (1 + fed) else resid
        if not is_finite(last):
            every = torch.arange(len(last))
            raise self.tails(every).not_finite(last, clean.fed.cpu()[every // self._n_edits])
        return last

    def _edited(self, change: Change, activation: Float[Tensor, "rows new d"]) -> Tensor:
        """The rows' activation with the change."""
        self._right = change.at(activation[:: self._n_edits], first=self._first)
        return change.add(activation, first=self._first)

    def _past(self, layer: int) -> Past:
        """The prefix, and the clean positions before the first edited one."""
        prefix = self._clean.prefix[layer]
        if self._first == 0:
            return prefix
        return Past((*prefix.shared, self._clean.seen[layer].before(self._first)))

    def read_outs(self) -> Iterator[tuple[slice, Float[Tensor, "rows read out"]]]:
        """What is read at the prompt's end and behind each fed token, some rows at a time; without
        the first `n_same` of these.
        """
        size = rows_read_at_once(self._model, self._last.shape[1])
        for start in range(0, len(self._last), size):
            part = slice(start, start + size)
            read = self._model.read_out(self._last[part])
            if not logits_are_finite(self._model, read):
                rows = torch.arange(len(self._last))[part]
                behind = self._clean.fed.cpu()[rows // self._n_edits]
                raise self.tails(rows).not_finite(read, behind)
            yield part, read

    def tails(self, rows: Int64[Tensor, " some"]) -> "ResumedTails":
        """Some of the rows, to write on by themselves."""
        own = [KeysValues(seen.keys[rows], seen.values[rows]) for seen in self._own]
        problems, first = rows // self._n_edits, self._first
        if first > self._clean.n_prompt:
            # Rows may part from the right answer before they are edited: what they write stands at
            # clean positions, which are their own from then on.
            first = self._clean.n_prompt
            clean = self._clean.seen[self._start :]
            before = (seen.of(problems).at(slice(first, self._first)) for seen in clean)
            own = [known.append(new) for known, new in zip(before, own, strict=True)]
        change = None if self._change is None else self._change.of(rows)
        return ResumedTails(self._clean, self._start, first, problems, own, change, self._right)


@dataclass
class ResumedTails:
    """Rows of `Resumed` that write on."""

    clean: Clean
    start: int
    """The first layer that is run for each row."""
    first: int
    """The first position that is a row's own, behind the prefix."""
    problems: Int64[Tensor, " rows"]
    """Of the clean pass."""
    own: list[KeysValues]
    """What the rows' own positions offer, by layer from `start`; grows with what is written."""
    change: Change | None
    right: Float[Tensor, "n k d"] | None = None
    """By problem, see `Change.follow`."""

    def joined(self, others: Sequence["ResumedTails"]) -> "ResumedTails":
        """These rows, and those of others behind them."""
        every = [self, *others]
        own = [
            KeysValues(
                torch.cat([seen.keys for seen in of_layer]),
                torch.cat([seen.values for seen in of_layer]),
            )
            for of_layer in zip(*(tails.own for tails in every), strict=True)
        ]
        problems = torch.cat([tails.problems for tails in every])
        change = _joined([tails.change for tails in every])
        return replace(self, problems=problems, own=own, change=change)

    def not_finite(
        self, last: Tensor, behind: Int64[Tensor, "rows fed"], rows: Tensor | None = None
    ) -> UserError:
        """The error for rows that end so; the first of them is run again, as a whole pass."""
        bad = (~torch.isfinite(last).flatten(1).all(1)).nonzero()[:1, 0].cpu()
        row, clean = bad if rows is None else rows[bad], self.clean
        tokens = torch.cat([clean.tokens[self.problems[row]], behind[bad]], dim=1)
        change = None if self.change is None else self.change.of(row)
        right = None if self.right is None else self.right[self.problems[row]]
        return not_finite(clean.model, tokens, _as_taps(change, clean.n_prefix, right))

    @torch.inference_mode()
    def next_read_outs(
        self, rows: Int64[Tensor, " some"], written: Sequence[Written]
    ) -> Iterator[Float[Tensor, "few out"]]:
        """What is read behind the last token.

        Below the edit a written token's residual stream is the same for all edits of a problem that
        wrote the same: it is computed once for them.
        """
        clean, model = self.clean, self.clean.model
        length = len(written[0])
        position = clean.n_prompt + length - 1
        problems = self.problems[rows]
        resid = self._below(problems, written)
        change, edited = self._change_at(rows, position)
        if change is not None and change.between_blocks:
            resid = edited(change, resid)
        for layer in range(self.start, model.n_layers):
            own = self.own[layer - self.start]
            before = clean.seen[layer].of(problems).at(slice(self.first))
            earlier = slice(position - self.first)
            past = before.append(KeysValues(own.keys[rows], own.values[rows]).at(earlier))
            resid, new = model.run_block(
                layer,
                resid,
                start=clean.n_prefix + position,
                past=Past(clean.prefix[layer].shared, past),
                tap=_tap(change, layer, edited),
            )
            self.own[layer - self.start] = _put(own, rows, position - self.first, new)
        if not is_finite(resid):
            raise self.not_finite(resid, torch.tensor(written), rows)
        size = rows_read_at_once(model, 1)
        for start in range(0, len(resid), size):
            read, some = model.read_out(resid[start : start + size]), slice(start, start + size)
            if not logits_are_finite(model, read):
                raise self.not_finite(read, torch.tensor(written)[some], rows[some])
            yield read[:, 0]

    def _change_at(
        self, rows: Int64[Tensor, " some"], position: int
    ) -> tuple[Change | None, Callable[[Change, Tensor], Tensor]]:
        """The change of some rows where it is made at the position, and how it is made there."""
        here = self.change is not None and position in self.change.indices
        change = self.change.of(rows) if here and self.change is not None else None
        right = None if self.right is None else self.right[self.problems[rows]]
        return change, lambda asked, found: asked.follow(found, right, first=position)

    def _below(
        self, problems: Int64[Tensor, " some"], written: Sequence[Written]
    ) -> Float[Tensor, "some 1 d"]:
        """The last written token's residual stream before the first layer that the edit changes."""
        clean = self.clean
        asked = [(self.start, *pair) for pair in zip(problems.tolist(), written, strict=True)]
        new = [key for key in dict.fromkeys(asked) if key not in clean.written]
        if (len(clean.written) + len(new)) * clean.model.d_model > WRITTEN_ELEMENTS:
            clean.written.clear()
            new = list(dict.fromkeys(asked))
        if new:
            resid = self._written(torch.tensor([key[1] for key in new]), [key[2] for key in new])
            clean.written.update(zip(new, resid, strict=True))
        return torch.stack([clean.written[key] for key in asked])

    def _written(
        self, problems: Int64[Tensor, " some"], written: Sequence[Written]
    ) -> Float[Tensor, "some 1 d"]:
        """The same for each problem and what is written behind it."""
        clean, model = self.clean, self.clean.model
        tokens = torch.tensor(written, device=model.device)
        start = clean.n_prefix + clean.n_prompt
        resid = model.embed(tokens, start=start)
        for layer in range(self.start):
            prompt = clean.seen[layer].of(problems).at(slice(clean.n_prompt))
            past = Past(clean.prefix[layer].shared, prompt)
            resid, _ = model.run_block(layer, resid, start=start, past=past)
        return resid[:, -1:].clone()


def rows_read_at_once(model: Model, positions: int) -> int:
    """Of how many rows so many positions are read out at a time."""
    return max(1, READ_OUT_ELEMENTS // (model.width_out * positions))


def _joined(changes: Sequence[Change | None]) -> Change | None:
    """What is done to rows, and to others behind them at the same site."""
    some = [change for change in changes if change is not None]
    if not some:
        return None
    rules = [change.rule for change in some if change.rule is not None]
    vectors = torch.cat([change.vectors for change in some])
    return replace(some[0], vectors=vectors, rule=rules[0].joined(rules[1:]) if rules else None)


def _as_taps(
    change: Change | None,
    n_prefix: int,
    right: Tensor | None = None,
    *,
    found: list[Tensor] | None = None,
) -> dict[Place, Callable[[Tensor], Tensor]]:
    """The change as a hook on whole passes; what it finds at its positions is put into `found`."""
    if change is None:
        return {}

    def tap(activation: Tensor) -> Tensor:
        known = None if found is None else change.at(activation, first=-n_prefix)
        if found is not None and known is not None:
            found.append(known)
        return change.follow(activation, right, first=-n_prefix)

    return {(change.site.layer, change.site.point): tap}


def _tap(change: Change | None, layer: int, edited: Callable[[Change, Tensor], Tensor]) -> Tap:
    """Makes the change at its point, if that is inside this layer."""
    if change is None or change.site.layer != layer or change.between_blocks:
        return untouched

    def tap(point: str, activation: Tensor) -> Tensor:
        return edited(change, activation) if point == change.site.point else activation

    return tap


def _put(own: KeysValues, rows: Tensor, position: int, new: KeysValues) -> KeysValues:
    """The rows' keys and values at one position replaced, or added where they end."""
    parts = []
    for known, fresh in ((own.keys, new.keys), (own.values, new.values)):
        if known.shape[2] == position:
            known = torch.cat([known, torch.zeros_like(known[:, :, :1])], dim=2)
        known[rows, :, position] = fresh[:, :, 0]
        parts.append(known)
    return KeysValues(*parts)


class Hooked:
    """The same rows by whole passes with hooks: for models whose blocks cannot be run alone."""

    def __init__(
        self,
        model: Model,
        prompts: Prompts,
        layout: Layout,
        fed: Int64[Tensor, "n fed"],
        change: Change | None,
        *,
        n_edits: int = 1,
    ) -> None:
        tokens = prompts.whole(layout).repeat_interleave(n_edits, dim=0)
        self.n_same = 0
        self._rows = HookedTails(model, len(prompts.prefix), tokens, change)
        self._fed = fed.repeat_interleave(n_edits, dim=0)

    def read_outs(self) -> Iterator[tuple[slice, Float[Tensor, "rows read out"]]]:
        """What is read at the prompt's end and behind each fed token."""
        right: list[Tensor] = []
        read = self._rows.whole_pass(self._fed, last=1 + self._fed.shape[1], right=right)
        if right:
            self._rows = replace(self._rows, right=right[0])
        yield slice(None), read

    def tails(self, rows: Int64[Tensor, " some"]) -> "HookedTails":
        """Some of the rows, to write on by themselves."""
        return self._rows.of(rows)


@dataclass(frozen=True)
class HookedTails:
    """Rows of `Hooked`."""

    model: Model
    n_prefix: int
    tokens: Int64[Tensor, "rows all"]
    """The prompts with their prefix."""
    change: Change | None
    right: Float[Tensor, "rows k d"] | None = None
    """See `Change.follow`."""

    def of(self, rows: Int64[Tensor, " some"]) -> "HookedTails":
        """Some of the rows."""
        change = None if self.change is None else self.change.of(rows)
        right = None if self.right is None else self.right[rows]
        return replace(self, tokens=self.tokens[rows], change=change, right=right)

    def joined(self, others: Sequence["HookedTails"]) -> "HookedTails":
        """These rows, and those of others behind them."""
        every = [self, *others]
        change = _joined([tails.change for tails in every])
        tokens = torch.cat([tails.tokens for tails in every])
        right = [tails.right for tails in every if tails.right is not None]
        return replace(
            self, tokens=tokens, change=change, right=torch.cat(right) if right else None
        )

    def next_read_outs(
        self, rows: Int64[Tensor, " some"], written: Sequence[Written]
    ) -> Iterator[Float[Tensor, "few out"]]:
        """What is read behind the last token."""
        yield self.of(rows).whole_pass(torch.tensor(written), last=1)[:, 0]

    def whole_pass(
        self, behind: Int64[Tensor, "rows fed"], *, last: int, right: list[Tensor] | None = None
    ) -> Float[Tensor, "rows last out"]:
        """Read-outs at the last positions, with tokens behind the prompts.

        Where a rule asks for what the activation is behind these tokens, it is put into `right`.
        """
        taps = _as_taps(self.change, self.n_prefix, self.right, found=right)
        tokens = torch.cat([self.tokens, behind], dim=1)
        read = self.model.full_pass(tokens.to(self.model.device), taps, last=last)
        if not is_finite(read.amax(-1)):  # some of a vocabulary may be ruled out by -inf
            raise not_finite(self.model, tokens, taps)
        return read
