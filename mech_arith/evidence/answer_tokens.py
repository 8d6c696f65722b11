"""How often each token of an answer follows the wanted value: sign and digits one by one.

A model that computes digit by digit may let some tokens follow a value and others not, so that the
whole answer is never the wanted one. A token that is the same with the value and without it is easy
to get right: the floor says how easy, and `iia_changed` is of the tokens that have to be others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mech_arith.engine.answers import Answers
from mech_arith.engine.sites import COMPONENT_COLUMNS
from mech_arith.evidence.iia import CEILING_REASON
from mech_arith.interventions.controls import DRAWN, TARGET, Arm
from mech_arith.interventions.edits.base import WHOLE_WAY
from mech_arith.interventions.run import InterventionPlan, InterventionRun
from mech_arith.models.base import Model
from mech_arith.models.prompts import NO_TOKEN
from mech_arith.problems.sources import Sources
from mech_arith.statistics import SHARES, Resampling, averaged, largest_of_all, rank_p


@dataclass(frozen=True)
class Spelling:
    """How a model writes numbers, up to so many tokens."""

    write: Callable[[int], tuple[int, ...]]
    names: tuple[str, ...]
    """What the tokens are, from the first on."""

    @classmethod
    def of(cls, model: Model, n_tokens: int) -> "Spelling | None":
        """That of a model; None for one that writes no answer."""
        if model.reader is None:
            return None
        return cls(model.reader.tokens, model.answer_labels(n_tokens)[:n_tokens])

    def tokens(self, numbers: Float64[Tensor, "*shape"]) -> Int64[Tensor, "*shape length"]:
        """The tokens of whole numbers; `NO_TOKEN` behind the last, and where there is no number."""
        written, places = self.distinct(numbers)
        return written[places]

    def distinct(
        self, numbers: Float64[Tensor, "*shape"]
    ) -> tuple[Int64[Tensor, "distinct length"], Int64[Tensor, "*shape"]]:
        """The tokens of each distinct number, and which of these each number is."""
        unique, places = np.unique(numbers.numpy(), return_inverse=True)
        written = np.full((len(unique), len(self.names)), NO_TOKEN, dtype=np.int64)
        for row, number in enumerate(unique.tolist()):
            tokens = self.write(int(number)) if number == number else ()
            written[row, : len(tokens)] = tokens[: written.shape[1]]
        return torch.from_numpy(written), torch.from_numpy(places.reshape(numbers.shape))


@dataclass(frozen=True)
class _Wanted:
    """The tokens of the answers that sources want."""

    expected: Int64[Tensor, "m n length"]
    changed: Bool[Tensor, "m n length"]
    """They are others than those of the base problem's right answer."""
    others: Int64[Tensor, "distinct length"]
    """The tokens of the answers to other sources, each distinct answer once."""
    places: Int64[Tensor, "shuffles m n"]
    """Which of these each other source's answer is."""
    chance: list[Float64[Tensor, "n _"]]
    """By token: of each of those in `seen`, how often answers to other sources have it there."""
    seen: list[Int64[Tensor, " _"]]
    replaces_the_value_alone: bool

    @classmethod
    def of(cls, sources: Sources, spelling: Spelling) -> "_Wanted":
        expected = spelling.tokens(sources.expected)
        right = spelling.tokens(torch.from_numpy(sources.base.answers).double())
        others, places = spelling.distinct(sources.by_chance)
        flat = places.flatten(0, 1)
        seen, chance = [], []
        for token in others.unbind(1):
            known, which = token.unique(return_inverse=True)
            cells = which[flat] + len(known) * torch.arange(flat.shape[1])
            counts = cells.flatten().bincount(minlength=flat.shape[1] * len(known))
            seen.append(known)
            chance.append(counts.view(-1, len(known)).double() / len(flat))
        changed = (expected != right) & (expected != NO_TOKEN)
        alone = sources.replaces_the_value_alone
        return cls(expected, changed, others, places, chance, seen, alone)

    def by_chance(self, written: Int64[Tensor, "k m n length"]) -> Float64[Tensor, "length k m n"]:
        """How often answers to other sources have the token that was written; NaN where the wanted
        answer has none.
        """
        shares = []
        for place, (seen, chance) in enumerate(zip(self.seen, self.chance, strict=True)):
            token = written[..., place]
            at = torch.searchsorted(seen, token.contiguous()).clamp(max=len(seen) - 1)
            rows = torch.arange(token.shape[-1]).expand_as(token)
            same = (seen[at] == token) & (token != NO_TOKEN)
            found = torch.where(same, chance[rows, at], 0.0)
            shares.append(found.masked_fill(self.expected[..., place] == NO_TOKEN, torch.nan))
        return torch.stack(shares)

    def agreed(
        self, written: Int64[Tensor, "m n length"]
    ) -> tuple[Float64[Tensor, " length"], Float64[Tensor, "length shuffles"]]:
        """How many tokens are the wanted ones, and how many those of each draw of other sources.

        NaN where no wanted answer has the token.
        """
        spelled = written != NO_TOKEN
        found = ((written == self.expected) & spelled).sum((0, 1)).double()
        draws = [
            ((token[self.places] == there) & there_is).sum((1, 2))
            for token, there, there_is in zip(
                self.others.unbind(1), written.unbind(-1), spelled.unbind(-1), strict=True
            )
        ]
        none = (self.expected == NO_TOKEN).all(0).all(0)
        return found.masked_fill(none, torch.nan), torch.stack(draws).double()

    def hits(
        self, written: Int64[Tensor, "k m n length"], which: Bool[Tensor, "m n length"]
    ) -> Float64[Tensor, "length k n"]:
        """Share of the sources whose token was written, of those in `which`; NaN where none is."""
        same = (written == self.expected).double().masked_fill(~which, torch.nan)
        return same.nanmean(1).movedim(-1, 0)


def answer_token_table(
    done: InterventionRun, plan: InterventionPlan, spelling: Spelling, how: Resampling
) -> pd.DataFrame:
    """A row per site, value, arm, strength and token of the answer."""
    wanted = {value: _Wanted.of(sources, spelling) for value, sources in done.sources.items()}
    rows, agreed = [], []
    for one in done.results:
        value = one.target.target_value
        own, ceiling = wanted[value], done.ceilings[value, one.site]
        bounds = _ceiling(ceiling, own, how)
        for arm, answers in one.by_arm():
            for index, strength in enumerate(plan.strengths):
                fields = _fields(arm, answers, index, own, how)
                if arm.name == TARGET:
                    assert answers.tokens is not None
                    agreed.append(own.agreed(answers.tokens[0, :, index]))
                rows += [
                    {
                        **one.key,
                        "value": value,
                        "edit": plan.edit.name,
                        "strength": strength,
                        "arm": arm.name,
                        "n_directions": len(arm.frames),
                        "token": place,
                        "token_name": name,
                        "n_sources": len(own.expected),
                        **{key: _plain(of_all[place]) for key, of_all in (fields | bounds).items()},
                        "ceiling_reason": "" if own.replaces_the_value_alone else CEILING_REASON,
                    }
                    for place, name in enumerate(spelling.names)
                ]
    return _with_p(pd.DataFrame(rows), agreed)


def _with_p(
    table: pd.DataFrame,
    agreed: Sequence[tuple[Float64[Tensor, " length"], Float64[Tensor, "length shuffles"]]],
) -> pd.DataFrame:
    """The table with p of the targets against the floor, and p for all tokens of one strength.

    Holm's over so many tokens could never be small with a thousand draws: the largest of all is
    ranked among the largest of each draw (max-T).

    Args:
        table: of all arms.
        agreed: of each target and strength, in the order of the table; see `_Wanted.agreed`.
    """
    targets = torch.tensor((table["arm"] == TARGET).tolist(), dtype=torch.bool)
    found = torch.cat([hits for hits, _ in agreed])
    draws = torch.cat([of_draws for _, of_draws in agreed])
    strengths = torch.tensor(table["strength"].tolist(), dtype=torch.float64)[targets]
    p, p_max = rank_p(found, draws), torch.full_like(found, torch.nan)
    for strength in strengths.unique():
        tested = (strengths == strength) & ~found.isnan()
        p_max[tested] = largest_of_all(found[tested], draws[tested])
    columns = torch.full((2, len(table)), torch.nan, dtype=torch.float64)
    columns[:, targets] = torch.stack([p, p_max])
    return table.assign(p=columns[0].numpy(), p_max=columns[1].numpy())


def _plain(number: Tensor) -> float | int:
    return number.item()


def _fields(
    arm: Arm, answers: Answers, strength: int, wanted: _Wanted, how: Resampling
) -> dict[str, Tensor]:
    """By token: how often it follows, and by chance."""
    assert answers.tokens is not None
    written = answers.tokens[:, :, strength]
    known = wanted.expected != NO_TOKEN
    drawn = arm.name in DRAWN
    return {
        "n": known.any(0).sum(0),
        **_shares("iia", wanted.hits(written, known), how, drawn=drawn),
        "floor": wanted.by_chance(written).flatten(1).nanmean(1),
        "n_changed": wanted.changed.any(0).sum(0),
        **_shares("iia_changed", wanted.hits(written, wanted.changed), how, drawn=drawn),
    }


def _ceiling(answers: Answers, wanted: _Wanted, how: Resampling) -> dict[str, Tensor]:
    """By token: how often it follows the first source where the whole activation is that one's."""
    assert answers.tokens is not None
    first = torch.zeros_like(wanted.changed)
    first[0] = wanted.replaces_the_value_alone
    written = answers.tokens[None, None].expand(1, *wanted.expected.shape)
    known = (wanted.expected != NO_TOKEN) & first
    return {
        **_shares("ceiling", wanted.hits(written, known), how),
        "ceiling_changed": wanted.hits(written, wanted.changed & first).flatten(1).nanmean(1),
    }


def _shares(
    name: str, hits: Float64[Tensor, "length k n"], how: Resampling, *, drawn: bool = False
) -> Mapping[str, Tensor]:
    """A mean and its interval, by token."""
    found = averaged(hits, how, drawn=drawn, of=SHARES)
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def token_summary(tokens: pd.DataFrame, best: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Per value, at the place that its headline is read from, the numbers of each token.

    Args:
        tokens: the table; empty where no answer was written towards a value.
        best: by value the row of the evidence that is its headline.
    """
    if tokens.empty:
        return {}
    found: dict[str, Any] = {}
    for value, row in best.items():
        here = tokens.loc[
            (tokens["value"] == value)
            & (tokens["arm"] == TARGET)
            & (tokens["strength"] == WHOLE_WAY)
            & (tokens[[*COMPONENT_COLUMNS]] == [row[name] for name in COMPONENT_COLUMNS]).all(
                axis=1
            )
        ]
        if len(here):
            found[value] = {
                **{name: row[name] for name in COMPONENT_COLUMNS},
                **{
                    one["token_name"]: {name: one[name] for name in IN_SUMMARY}
                    for one in here.to_dict(orient="records")
                },
            }
    return found


IN_SUMMARY = (
    *("iia", "iia_low", "iia_high", "floor", "p_max", "ceiling"),
    *("iia_changed", "ceiling_changed"),
)
"""What the summary says of each token."""
