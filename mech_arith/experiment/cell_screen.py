"""What a cell's screen leaves, from the kept sites to tables and the summary."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mech_arith.directions.tracing import Trace
from mech_arith.engine.pairs import Pairs
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.screen import direction_table, screen_summary, screen_table
from mech_arith.interventions.screening import Screened, ScreenPlan, screen_directions
from mech_arith.models.prompts import Prompts
from mech_arith.statistics import Resampling


@dataclass(frozen=True)
class ScreenedCell:
    """A screen, and the pairs of problem and source that it was made on."""

    plan: ScreenPlan
    fit: Pairs
    report: Pairs
    found: Screened

    def tables(
        self, session: Session, traces: Mapping[Site, Trace], prompts: Prompts, how: Resampling
    ) -> dict[str, pd.DataFrame]:
        """A row per candidate, and a row per direction at the sites that were traced."""
        directions = screen_directions(session, self.fit, self.report, traces, self.plan)
        return {
            "screen": screen_table(self.found, prompts, how),
            "screen_directions": direction_table(directions, self.found, how),
        }

    def summary(self, tables: Mapping[str, pd.DataFrame], how: Resampling) -> dict[str, Any]:
        """`screen`: whether it is to be trusted."""
        screen, directions = tables["screen"], tables["screen_directions"]
        return {"screen": screen_summary(screen, directions, keep=self.plan.keep, how=how)}
