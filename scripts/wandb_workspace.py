"""Save a W&B workspace that compares the runs of a project.

    pip install 'mech_arith[workspace]'
    python scripts/wandb_workspace.py --entity ME --project mech_arith
    python scripts/wandb_workspace.py --entity ME --project mech_arith --json   # needs no server

Its panels: accuracy drop against strength and against layer, best |R| by layer, each by model;
answers that follow a value, of the runs with set or interchange; answers as each of two hypotheses
expects; control against target, and what is beyond the control; the tables of all runs as one. The
runs are a table with their cells' fields and headline numbers, grouped by model and template. Each
call saves a new view.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from mech_arith.common.errors import UserError
from mech_arith.reports.wandb.client import no_server
from mech_arith.reports.wandb.metrics import (
    BASELINE,
    BEST_ABS_R,
    CELL,
    CONTROL,
    CONTROL_LARGEST,
    DROP_BY_LAYER,
    DROP_BY_STRENGTH,
    EXPECTED,
    TARGET_LARGEST,
    x_axes,
)

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

GROUPED_BY = ("model", "template")
SHOWN = ("model", "template", "hypothesis", "layers", "tracing", "positions", "edit", "seed")
"""Fields of a cell by which runs are grouped, and that are columns of their table."""

HEADLINES = (BASELINE, TARGET_LARGEST, CONTROL_LARGEST)
TABLES = ("evidence", "hypotheses", "effects", "correlations")
MOST_RUNS = 100
"""Runs that a panel shows at most; W&B would stop at ten."""


def main() -> None:
    """Build the workspace and save it, or show it."""
    asked = _arguments()
    try:
        built = workspace(asked.entity, asked.project, name=asked.name)
        if asked.json:
            # What `save` would send: the library has no public name for it.
            print(built._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
            return
        for section in built.sections:
            titles = [getattr(panel, "title", None) or panel.table_name for panel in section.panels]
            print(f"{section.name}: {'; '.join(titles)}")
        if asked.dry_run:
            return
        if reason := no_server():
            raise UserError(f"expected a W&B server, got {reason}; nothing was saved")
        _save(built)
    except UserError as error:
        sys.exit(str(error))


def workspace(entity: str, project: str, *, name: str) -> "ws.Workspace":
    """The workspace, built and validated without a server.

    Raises:
        UserError: wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise UserError(
            "expected wandb-workspaces, found none; pip install 'mech_arith[workspace]'"
        ) from None
    columns = [f"config:{CELL}.value.{field}" for field in SHOWN]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=_sections(),
        settings=ws.WorkspaceSettings(max_runs=MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(f"{CELL}.{field}") for field in GROUPED_BY],
            order=[ws.Ordering(ws.Summary(TARGET_LARGEST), ascending=False)],
            pinned_columns=[*columns, *(f"summary:{metric}" for metric in HEADLINES)],
        ),
    )


def _sections() -> "list[ws.Section]":
    """The panels, section by section."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    sections = [
        ws.Section(
            name="Accuracy drop",
            panels=[
                _curve("Largest drop over layers, by model", DROP_BY_STRENGTH),
                _curve("Largest drop over strengths, by model", DROP_BY_LAYER),
            ],
        ),
        ws.Section(name="Best |R|", panels=[_curve("Best |R|, by model", BEST_ABS_R)]),
        ws.Section(
            name="Answers that follow a value",
            panels=[
                _curve("IIA, between floor and ceiling", "iia", "floor", "ceiling"),
                _curve("IIA, by model", "iia"),
                _curve("Slope, beside that along random directions", "slope", "slope_random"),
            ],
        ),
        ws.Section(
            name="Which algorithm the interventions support",
            panels=[_curve("Answers as each of two hypotheses expects", EXPECTED)],
        ),
        ws.Section(
            name="Control against target",
            panels=[
                _curve("Drop beyond the strictest controls, by model", "excess_drop"),
                wr.ScatterPlot(
                    title="Largest drop of a run: target above, control to the right",
                    x=wr.SummaryMetric(CONTROL_LARGEST),
                    y=wr.SummaryMetric(TARGET_LARGEST),
                ),
                _curve(
                    "Largest drop over layers, target and control",
                    DROP_BY_STRENGTH,
                    CONTROL + DROP_BY_STRENGTH,
                ),
                _curve(
                    "Largest drop over strengths, target and control",
                    DROP_BY_LAYER,
                    CONTROL + DROP_BY_LAYER,
                ),
            ],
        ),
        ws.Section(
            name="Tables of all runs",
            panels=[wr.WeavePanelSummaryTable(table_name=table) for table in TABLES],
        ),
    ]
    for section in sections:
        section.is_open = True
    return sections


def _curve(title: str, *prefixes: str) -> "wr.LinePlot":
    """Curves of every value against their x axis: the mean of a model's runs, and their range."""
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(
        title=title,
        x=x_axes()[prefixes[0]],
        # Values differ from template to template: whatever a run has traced.
        metric_regex=f"^({'|'.join(prefixes)})/.*",
        groupby=wr.Config(f"{CELL}.{GROUPED_BY[0]}"),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
    )


def _save(built: "ws.Workspace") -> None:
    """Save a new view and print its page.

    Raises:
        UserError: the server refuses it.
    """
    try:
        built.save_as_new_view()
    except Exception as error:  # of whatever kind the server's refusal is
        reason = " ".join(str(error).split())
        raise UserError(
            f"expected to save a workspace of {built.entity}/{built.project}, got "
            f"{type(error).__name__}: {reason}; is the project there, and yours?"
        ) from None
    print(built.url)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entity", type=_named, required=True, help="user or team")
    parser.add_argument("--project", type=_named, required=True)
    parser.add_argument("--name", default="mech_arith: cells compared", help="of the workspace")
    parser.add_argument("--dry-run", action="store_true", help="build it, save nothing")
    parser.add_argument("--json", action="store_true", help="print what would be saved")
    return parser.parse_args()


def _named(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a name, got an empty one")
    return text


if __name__ == "__main__":
    main()
