"""mech_arith from Python: one cell's activations, directions and tables.

    from mech_arith import compose

    cell = compose("layers=1-2", "intervention=none")
    vectors = cell.activations(layer=2)
    found = cell.subspace(layer=2)
    table = cell.run()["correlations"]

`compose` takes the overrides of the command line, so whatever can be asked there can be asked here.
"""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from hydra import compose as composed
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from jaxtyping import Float
from torch import Tensor

from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.errors import UserError, unknown
from mech_arith.common.paths import conf_dir
from mech_arith.common.plugins import using_plugins
from mech_arith.common.registry import without_additions
from mech_arith.common.runs.directories import find_runs
from mech_arith.common.store import Store
from mech_arith.directions.base import Drawing, Subspace, find_method
from mech_arith.directions.tracing import fit_directions
from mech_arith.engine.capture import capture
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.columns import TABLES, conformed, in_memory
from mech_arith.evidence.objective import read_objective
from mech_arith.evidence.results import RunResult, load_run
from mech_arith.experiment.cell import run_cell
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.load_model import load_model, open_session
from mech_arith.experiment.names import ranks_of
from mech_arith.experiment.overrides import as_typed, check_grammar
from mech_arith.experiment.plan import Prepared, prepare
from mech_arith.experiment.refusals import one_line_errors
from mech_arith.experiment.typed import checked
from mech_arith.models.answered import encode_for
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet
from mech_arith.reports.sweep import SweepResult, read_sweep

__all__ = [
    "Cell",
    "RunResult",
    "SweepResult",
    "UserError",
    "compose",
    "find_runs",
    "load_run",
    "read_objective",
    "read_sweep",
]


def compose(*overrides: str) -> "Cell":
    """One cell, from overrides as on the command line: `compose("layers=late", "problems.n=200")`.

    The problems are drawn here. The model is loaded when it is first needed.

    Raises:
        UserError: an override that the command line would refuse too; the message is the same.
    """
    typed = [as_typed(override) for override in overrides]
    check_grammar(typed)
    ConfigStore.instance().store(name="schema", node=RunConfig)
    with one_line_errors(), initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = composed("config", overrides=typed)
    with without_additions():
        return Cell(prepare(checked(config, typed)))


@dataclass(frozen=True)
class Cell:
    """A model, a template, layers and an intervention: what one run of the command line works on.

    `compose` makes it.
    """

    prepared: Prepared

    @property
    def settings(self) -> RunConfig:
        """The config, as typed values."""
        return self.prepared.config

    @cached_property
    def session(self) -> Session:
        """The loaded model, its batch size, and the store that cells share.

        Raises:
            UserError: there is no such model, or an option does not fit it.
        """
        asked = self.settings
        with using_plugins(asked.plugins):
            model = load_model(asked, self.prepared)
        return open_session(asked, model, own=Store(None), checkpoint=Checkpoint.nothing())

    def problems(self, split: str = "fit") -> ProblemSet:
        """The problems of a split: directions are fitted on `fit`, numbers are read on `report`."""
        splits = {"fit": self.prepared.fit, "report": self.prepared.report}
        if split not in splits:
            raise unknown("split", split, splits)
        return splits[split]

    def activations(
        self,
        *,
        layer: int,
        point: str | None = None,
        position: str | None = None,
        head: int | None = None,
        split: str = "fit",
    ) -> Float[Tensor, "n width"]:
        """Activations of every problem of a split, in the order of the problems, on the CPU.

        Args:
            layer: counted from 0.
            point: within the layer, such as 'resid_post'; by default `tracing.point`.
            position: 'last', 'all', a value such as 'b-c', 'answer.1', or an index; by default
                `tracing.positions`. Several positions stand side by side in one vector.
            head: a query head at the point 'z', counted from 0; by default the whole point.
            split: 'fit' or 'report'.

        Raises:
            UserError: no such layer, point, position, head or split; or positions with more tokens
                in some prompts than in others.
        """
        site = self._site(layer, point, position, head)
        prompts = self._prompts(split, site)
        rows, vectors = [], []
        for layout, found in capture(self.session, prompts, [site]):
            rows.append(layout.rows)
            vectors.append(found[site])
        return torch.cat(vectors)[torch.cat(rows).argsort()]

    def subspace(
        self,
        *,
        layer: int,
        rank: int | None = None,
        value: str | None = None,
        point: str | None = None,
        position: str | None = None,
        head: int | None = None,
    ) -> Subspace:
        """The subspace that `tracing.method` finds at a site, fitted on the fit split.

        Args:
            layer: counted from 0.
            rank: how many directions; by default `tracing.n_components`, and of a method that
                finds other directions for each value those of `tracing.rank`, or one.
            value: whose directions; by default all that are found at the site.
            point: as of `activations`.
            position: as of `activations`.
            head: as of `activations`.

        Returns:
            The mean, and unit rows `directions` [rank, width]; `project` gives coordinates.
        """
        asked = self.settings.tracing
        site, problems = self._site(layer, point, position, head), self.problems("fit")
        with using_plugins(self.settings.plugins):
            ranks = ranks_of(self.settings) if rank is None else (rank,)
            n_components = asked.n_components if rank is None else rank
            method = find_method(asked.method, n_components, asked.options, ranks=ranks)
            prompts = self._prompts("fit", site)
            drawing = Drawing(self.prepared.constraints, self.prepared.digits)
            fitted = fit_directions(
                self.session, problems, prompts, [site], method, drawing=drawing
            )
        found, names = Subspace.of_tensors(fitted[site]), problems.hypothesis.values
        if value is None:
            return found
        if value not in names:
            raise unknown("value", value, names)
        frame = found.frame(names.index(value), rank or max(ranks, default=1))
        return found.part(frame)

    def run(self) -> dict[str, pd.DataFrame]:
        """Trace, edit and judge, as the command line does; nothing is written but the store.

        Returns:
            The cell's tables by name: 'evidence', 'correlations', 'effects', ... The page of
            columns says what each column means.
        """
        session, prepared = self.session, self.prepared
        plan = prepared.cell(session.model)
        with using_plugins(self.settings.plugins):
            result = run_cell(session, prepared.fit, prepared.report, plan)
            return {
                name: in_memory(conformed(name, table).to_pandas(), TABLES[name])
                for name, table in result.tables.items()
            }

    def _site(self, layer: int, point: str | None, position: str | None, head: int | None) -> Site:
        model, asked = self.session.model, self.settings.tracing
        if not 0 <= layer < model.n_layers:
            raise UserError(f"expected a layer from 0 to {model.n_layers - 1}, got {layer}")
        site = Site(layer, point or asked.point, position or asked.positions, head)
        if site.point not in model.points:
            raise unknown("point", site.point, model.points)
        if head is not None and not 0 <= head < model.n_heads:
            raise UserError(f"expected a head from 0 to {model.n_heads - 1}, got {head}")
        site.width(model)  # it refuses heads that a point is not made of
        return site

    def _prompts(self, split: str, site: Site) -> Prompts:
        """The prompts of a split, all of which have the site's positions."""
        model, digits = self.session.model, self.prepared.digits
        prompts = encode_for(model, self.problems(split), [site.position], digits=digits)
        prompts.positions(site.position)
        return prompts
