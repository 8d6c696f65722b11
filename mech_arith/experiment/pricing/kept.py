"""What of a cell the store has already, by the addresses under which the run would look."""

from dataclasses import dataclass

import torch

from mech_arith.common.store import Store
from mech_arith.directions.base import Drawing
from mech_arith.directions.tracing import Splits, code_of, stored_under
from mech_arith.engine.run import CODE, ReferenceAnswers, asked_key
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.load_model import shared_store
from mech_arith.experiment.pricing.work import Asked


@dataclass(frozen=True)
class Kept:
    """What need not be computed."""

    is_known: bool
    """Whether it can be told."""
    stages: frozenset[str] = frozenset()
    """Stages whose passes are not made."""
    said: tuple[str, ...] = ()


def kept_by(settings: RunConfig, asked: Asked) -> Kept:
    """Look for a cell's baseline, its subspaces and its coordinates. Nothing is read."""
    if not settings.store.enabled:
        return Kept(is_known=True)
    if not asked.stand_in.is_known:
        return Kept(is_known=False)
    store = Store(shared_store(settings))
    model, stages, said = asked.stand_in.model, set(), []
    right = ReferenceAnswers.of_problems(asked.report, seed=asked.plan.seed)
    if store.has("baseline", asked_key(model, asked.prompts, right), code=CODE):
        stages.add("baseline")
        said.append("baseline")
    splits = Splits(
        asked.fit,
        asked.report,
        asked.prompts_fit,
        asked.prompts,
        torch.zeros(len(asked.report), dtype=torch.bool),
        Drawing(asked.plan.constraints, asked.plan.digits),
    )
    # Of sites that are screened it is not known which will be traced.
    sites = list(dict.fromkeys([*asked.sites, *asked.mapped]))
    method = asked.plan.method
    fitted, projected = stored_under(model, splits, sites, method)
    found = sum(
        store.has("components", fitted[site], code=code_of(method))
        and store.has("coordinates", projected[site], code=code_of(method))
        for site in sites
    )
    if found == len(sites) and asked.plan.screen is None and not asked.plan.untrained_twins:
        stages |= {"tracing", "training"}
    if found:
        said.append(f"{found} of {len(sites)} traced sites")
    return Kept(True, frozenset(stages), tuple(said))
