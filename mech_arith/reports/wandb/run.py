"""One W&B run: written whole to disk first, then sent if it shall be online."""

import contextlib
import logging
import shlex
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd

from mech_arith.common.streams import no_room
from mech_arith.evidence.results import plain
from mech_arith.reports.wandb.client import load_wandb, no_server, one_line
from mech_arith.reports.wandb.environment import without_runs
from mech_arith.reports.wandb.metrics import (
    CELL,
    VALUES,
    by_layer,
    by_strength,
    headline,
    named_values,
    objective_name,
    x_axes,
)
from mech_arith.reports.wandb.names import short, short_tag
from mech_arith.reports.wandb.settings import TrackingSettings
from mech_arith.reports.wandb.upload import check_whole, send

logger = logging.getLogger(__name__)

CLOSING_SECONDS = 2.0
"""Kept of the time for W&B, to end its processes."""

WRITING_SECONDS = 5.0
"""Writing the last of a run to the disk takes a few milliseconds."""

LONGEST_NAME = 128
"""Characters of a name or a group that the W&B server takes."""


class Run:
    """One W&B run, for use in a `with` statement, which finishes it whatever happens.

        with Run.start(settings, config) as run:
            run.log_summary(summary)

    It is a run of wandb's offline mode, so nothing that a server does can hold up or lose what is
    logged; with mode 'online', `finish` sends it. With mode 'disabled' every method does nothing,
    and wandb is not even imported.

    Rows are numbered as they are logged, and the server keeps them by their number: a run that is
    logged again under its id must be logged in the same order.
    """

    def __init__(self, run: Any, settings: TrackingSettings, *, deadline: float) -> None:
        self._run = run  # a wandb.Run or None; its type would have to import wandb
        self._settings = settings
        self._deadline = deadline

    @classmethod
    def start(cls, settings: TrackingSettings, config: Mapping[str, Any]) -> "Run":
        """Begin a run with `config` as its configuration.

        Raises:
            OSError: `settings.directory` cannot be made.
        """
        deadline = time.monotonic() + settings.wait_s - CLOSING_SECONDS
        run = None if settings.mode == "disabled" else _begin(settings, config)
        return cls(run, settings, deadline=deadline)

    @property
    def directory(self) -> Path | None:
        """The run's own folder; None if disabled."""
        return None if self._run is None else Path(self._run.settings.sync_dir)

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Log a run's headline numbers, flat (see `headline`), its cell's fields and its values."""
        if self._run is None:
            return
        self._run.config.update({CELL: plain(summary.get(CELL, {})), VALUES: named_values(summary)})
        self._run.summary.update(headline(summary))

    def log_objectives(self, numbers: Mapping[str, float | None]) -> None:
        """Log the numbers that the task returns, by METRIC/VALUE, under `objective_name`.

        None is left out: a search of W&B passes over a run without its metric.
        """
        if self._run is None or not numbers:
            return
        named = {objective_name(name): number for name, number in numbers.items()}
        self._run.summary.update({n: number for n, number in named.items() if number is not None})

    def log_curves(
        self,
        correlations: pd.DataFrame,
        effects: pd.DataFrame,
        evidence: pd.DataFrame,
        *,
        positions: str,
        hypotheses: pd.DataFrame | None = None,
    ) -> None:
        """Log the curves of `metrics`: against strength, and against layer.

        Their last points leave no trace in the summary, where they would pass for a result.

        Args:
            correlations: the table of a cell.
            effects: the table of a cell; empty if nothing was edited.
            evidence: the table of a cell.
            positions: what the cell traces, of all positions that the table may hold.
            hypotheses: the table of a cell; none or empty without rivals.
        """
        if self._run is None:
            return
        axes = x_axes()
        for axis in dict.fromkeys(axes.values()):
            self._run.define_metric(axis, hidden=True, summary="none")
        for prefix, axis in axes.items():
            self._run.define_metric(f"{prefix}/*", step_metric=axis, summary="none")
        layered = by_layer(
            correlations, effects, evidence, positions=positions, hypotheses=hypotheses
        )
        for row in by_strength(effects) + layered:
            self._run.log(row)

    def log_table(self, name: str, table: pd.DataFrame) -> None:
        """Log a table whole, under `name`; nothing if it has no columns."""
        if self._run is None or not len(table.columns):
            return
        wandb = load_wandb()
        rows: list[Any] = [
            [_entry(plain(entry)) for entry in row]
            for row in table.itertuples(index=False, name=None)
        ]
        columns: list[Any] = [str(column) for column in table.columns]
        with _room_for(len(rows)):
            logged = wandb.Table(columns=columns, data=rows, allow_mixed_types=True)
            # One that is bound already is a file of the run. Otherwise wandb makes an artifact of
            # it too, whose content lies in the home directory until it is sent.
            logged.bind_to_run(self._run, name, self._run.step)
            self._run.log({name: logged})

    def log_images(self, images: Mapping[str, Path]) -> None:
        """Log image files by name.

        Raises:
            FileNotFoundError: an image is not there.
        """
        if self._run is None or not images:
            return
        wandb = load_wandb()
        for path in images.values():
            if not path.is_file():
                raise FileNotFoundError(f"expected an image at {path}, found none; save it first")
        self._run.log({name: wandb.Image(str(path)) for name, path in images.items()})

    def finish(self, *, failed: bool = False) -> None:
        """End the run, and send it if it is to be online and did not fail.

        What cannot be sent in time is a warning, and stays on disk. A second call does nothing.

        Raises:
            Exception: the run is not whole on disk; which one is up to wandb. One that has failed
                anyway ends with a warning instead.
        """
        run, self._run = self._run, None
        if run is None:
            return
        folder = Path(run.settings.sync_dir)
        try:
            run.finish(exit_code=1 if failed else 0)
        except Exception as error:  # wandb's own process may have died
            if not failed:
                raise
            if not no_room(error):  # which the error that is on its way says
                logger.warning(
                    "W&B: the run did not end well (%s); what was logged is in %s",
                    one_line(error) or type(error).__name__,
                    folder,
                )
        if failed:
            return
        check_whole(folder, within_s=WRITING_SECONDS)
        _remove_earlier(folder, run.id)
        if self._settings.mode == "online":
            _send(folder, until=self._deadline)

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.finish(failed=kind is not None)


def _begin(settings: TrackingSettings, config: Mapping[str, Any]) -> Any:
    """A new offline wandb.Run."""
    # wandb would silently use the system's temporary folder if this one were missing.
    settings.directory.mkdir(parents=True, exist_ok=True)
    wandb = load_wandb()
    with without_runs():
        run = _init(wandb, settings, config)
    for handler in logging.getLogger("wandb").handlers:
        # wandb's own log, in the run's folder: on a full disk every line of it would end in a
        # traceback on the terminal.
        handler.handleError = lambda record: None
    return run


def _init(wandb: Any, settings: TrackingSettings, config: Mapping[str, Any]) -> Any:
    return wandb.init(
        mode="offline",
        # Without wandb's own resuming, which appends: a run that is logged again is the same rows.
        id=settings.run_id or uuid.uuid4().hex[:8],
        project=settings.project,
        entity=settings.entity,
        group=settings.group and short(settings.group, LONGEST_NAME),
        job_type=settings.job_type,
        name=settings.name and short(settings.name, LONGEST_NAME),
        tags=list(dict.fromkeys(short_tag(tag) for tag in settings.tags if tag)),
        dir=str(settings.directory.resolve()),
        config=plain(config),
        reinit="create_new",
        settings=wandb.Settings(
            # Not by the variable: wandb would then give the run a random id.
            sweep_id=settings.sweep_id,
            # To and from the disk: a fraction of it is much.
            init_timeout=settings.wait_s / 2,
            finish_timeout=settings.wait_s / 2,
            finish_timeout_raises=True,
            silent=True,
            # Nothing of the machine or its environment: the results carry what made them.
            console="off",
            disable_code=True,
            disable_git=True,
            save_code=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )


def _remove_earlier(folder: Path, run_id: str) -> None:
    """Remove what an earlier attempt at the same run left: `folder` holds all of it.

    Online runs of wandb are left alone: what they sent differs from what they have on disk.
    """
    for earlier in folder.parent.glob(f"offline-run-*-{run_id}"):
        if earlier != folder:
            shutil.rmtree(earlier, ignore_errors=True)


def _send(folder: Path, *, until: float) -> None:
    """Send a run until a point in time; a warning says what to do if it does not arrive."""
    reason = no_server(within_s=max(until - time.monotonic(), 0.1))
    if reason is None:
        sent = send(folder, within_s=max(until - time.monotonic(), 0.1))
        reason = sent.error
        if not reason:
            logger.info("W&B: %s", sent.url)
            return
    # Not plain `wandb sync`, which counts a run as sent even where the server has refused its rows.
    logger.warning(
        "W&B: %s; the run is kept on disk, upload it later with `python scripts/wandb_sync.py %s`",
        reason,
        shlex.quote(str(folder)),
    )


@contextlib.contextmanager
def _room_for(rows: int) -> Iterator[None]:
    """Let a wandb table hold so many rows; past its limits it is cut without a word."""
    wandb = load_wandb()
    limits = {name: getattr(wandb.Table, name) for name in ("MAX_ROWS", "MAX_ARTIFACT_ROWS")}
    try:
        for name, limit in limits.items():
            setattr(wandb.Table, name, max(limit, rows))
        yield
    finally:
        for name, limit in limits.items():
            setattr(wandb.Table, name, limit)


def _entry(entry: Any) -> Any:
    """A table's entry as W&B's page can filter by it: lists and named numbers as text."""
    if isinstance(entry, Mapping):
        return ", ".join(f"{name}={number}" for name, number in entry.items())
    return ", ".join(map(str, entry)) if isinstance(entry, list) else entry
