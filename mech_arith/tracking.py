"""Weights & Biases: one run per job, offline where no server answers. Nothing else knows wandb."""

import contextlib
import logging
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import pandas as pd

from mech_arith.errors import UserError, unknown
from mech_arith.results import per_value, plain

logger = logging.getLogger(__name__)

MODES = ("online", "offline", "disabled")

PROBE_SECONDS = 6.0
"""A server that does not answer a plain request for so long counts as not reachable."""

GIVING_UP_SECONDS = 10.5
"""wandb.init returns about this much later than its own timeout says."""

LONGEST_NAME = 128
LONGEST_TAG = 64
"""Characters that the W&B server takes."""


@dataclass(frozen=True, kw_only=True)
class TrackingSettings:
    """Where a run is logged, and under which names."""

    mode: str
    """'online', 'offline' or 'disabled' (which touches nothing)."""

    project: str

    directory: Path
    """Gets a folder `wandb` with one folder per run."""

    entity: str | None = None
    """User or team on the server; None is the account's default."""

    group: str | None = None
    """The sweep that the run belongs to."""

    name: str | None = None

    tags: tuple[str, ...] = ()

    init_timeout_s: float | int = 20.0
    """Seconds until a run without a server goes on offline, at most; from 12 upwards."""

    finish_timeout_s: float | int = 30.0
    """Seconds that the last upload may take; what is left by then stays on disk."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("W&B mode", self.mode, MODES)
        if not self.project:
            raise UserError("expected a W&B project, got an empty name; set wandb.project")
        if not self.init_timeout_s >= 12:
            raise UserError(
                f"expected wandb.init_timeout_s of 12 or more, got {self.init_timeout_s}; raise it"
            )
        if not self.finish_timeout_s > 0:
            raise UserError(
                f"expected wandb.finish_timeout_s above 0, got {self.finish_timeout_s}; raise it"
            )


class Run:
    """One W&B run, for use in a `with` statement, which finishes it whatever happens.

        with Run.start(settings, config) as run:
            run.log_summary(summary)

    With mode 'disabled' every method does nothing, and wandb is not even imported.
    """

    def __init__(self, run: Any) -> None:
        self._run = run  # a wandb.Run or None; its type would have to import wandb

    @classmethod
    def start(cls, settings: TrackingSettings, config: Mapping[str, Any]) -> "Run":
        """Begin a run with `config` as its configuration.

        Mode 'online' without a server, or without an API key, goes on offline and says so in one
        warning line, within `settings.init_timeout_s`.

        Raises:
            OSError: `settings.directory` cannot be made.
        """
        if settings.mode == "disabled":
            return cls(None)
        # wandb would silently use the system's temporary folder if this one were missing.
        settings.directory.mkdir(parents=True, exist_ok=True)
        reason = ""
        if settings.mode == "online":
            run, reason = _start_online(settings, config)
            if run is not None:
                logger.info("W&B: %s", run.url)
                return cls(run)
        run = _init(settings, config, mode="offline", init_timeout=settings.init_timeout_s)
        if reason:
            logger.warning(
                "W&B: %s; this run is kept offline, upload it later with `wandb sync %s`",
                reason,
                run.settings.sync_dir,
            )
        return cls(run)

    @property
    def directory(self) -> Path | None:
        """The run's own folder, which `wandb sync` takes; None if disabled."""
        return None if self._run is None else Path(self._run.settings.sync_dir)

    @property
    def offline(self) -> bool:
        """Whether the run is kept on disk only."""
        return self._run is not None and bool(self._run.offline)

    @property
    def url(self) -> str | None:
        """The run's page on the server; None if it has none."""
        return None if self._run is None else self._run.url

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Log the headline numbers of a run's summary, flat (see `headline`)."""
        if self._run is not None:
            self._run.summary.update(headline(summary))

    def log_table(self, name: str, table: pd.DataFrame) -> None:
        """Log a table whole, under `name`; nothing if it has no columns."""
        if self._run is None or not len(table.columns):
            return
        wandb = _wandb()
        rows: list[Any] = [
            [plain(entry) for entry in row] for row in table.itertuples(index=False, name=None)
        ]
        columns: list[Any] = [str(column) for column in table.columns]
        with _room_for(len(rows)):
            logged = wandb.Table(columns=columns, data=rows, allow_mixed_types=True)
            self._run.log({name: logged})

    def log_images(self, images: Mapping[str, Path]) -> None:
        """Log image files by name.

        Raises:
            FileNotFoundError: an image is not there.
        """
        if self._run is None or not images:
            return
        wandb = _wandb()
        for path in images.values():
            if not path.is_file():
                raise FileNotFoundError(f"expected an image at {path}, found none; save it first")
        self._run.log({name: wandb.Image(str(path)) for name, path in images.items()})

    def log_curves(self, effects: pd.DataFrame) -> None:
        """Log accuracy_drop against strength: a metric per chosen value, layer and arm.

        `strength` is their x axis. The metrics leave no trace in the summary, where the last
        strength's drop would pass for a result.
        """
        if self._run is None or effects.empty:
            return
        self._run.define_metric("strength", hidden=True, summary="none")
        self._run.define_metric("accuracy_drop/*", step_metric="strength", summary="none")
        for row in curves(effects):
            self._run.log(row)

    def finish(self, *, failed: bool = False) -> None:
        """End the run. A second call does nothing."""
        run, self._run = self._run, None
        if run is None:
            return
        directory = run.settings.sync_dir
        try:
            run.finish(exit_code=1 if failed else 0)
        except TimeoutError:
            logger.warning(
                "W&B: the upload did not end in time; everything is on disk, finish it with "
                "`wandb sync --include-online %s`",
                directory,
            )
        except Exception as error:  # wandb's own process may die, and a saved run must not with it
            logger.warning(
                "W&B: the run did not end well (%s); what was logged is in %s",
                _one_line(error) or type(error).__name__,
                directory,
            )

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.finish(failed=kind is not None)


def headline(summary: Mapping[str, Any]) -> dict[str, float | int | str | bool]:
    """The headline numbers of a run's summary under flat names.

    `best` becomes best/<value>/abs_r, best/<value>/layer, ...; `largest_drop` becomes
    drop/<value>/accuracy_drop, drop/<value>/control_drop, ...; any other group keeps its name in
    front. What is missing (None) is left out, and so is the cell, which the configuration holds.
    Warnings are counted.
    """
    flat: dict[str, float | int | str | bool] = {}
    for key, entry in summary.items():
        if key == "cell":
            continue
        if key == "warnings" and isinstance(entry, list | tuple):
            flat[key] = len(entry)
            continue
        name = "drop" if key == "largest_drop" else key
        flat |= dict(_leaves(name, plain(entry)))
    return flat


def curves(effects: pd.DataFrame) -> list[dict[str, float]]:
    """One row per strength, ascending: `strength`, and accuracy_drop/<value>/layer <l>[ control].

    Where the table holds several points or positions, they are part of the name. Failed rows are
    left out.
    """
    table = per_value(effects.loc[effects["status"] == "ok"])
    several = [column for column in ("point", "position") if len(set(table[column])) > 1]
    rows: dict[float, dict[str, float]] = {}
    for entry in table.to_dict("records"):
        where = "".join(f" {entry[column]}" for column in several)
        arm = " control" if entry["arm"] == "control" else ""
        name = f"accuracy_drop/{entry['value']}/layer {entry['layer']}{where}{arm}"
        strength = float(entry["strength"])
        row = rows.setdefault(strength, {"strength": strength})
        row[name] = float(entry["accuracy_drop"])
    return [rows[strength] for strength in sorted(rows)]


def _leaves(name: str, entry: Any) -> Iterator[tuple[str, float | int | str | bool]]:
    if isinstance(entry, Mapping):
        for key, inner in entry.items():
            yield from _leaves(f"{name}/{key}", inner)
    elif entry is not None and not isinstance(entry, list):
        yield name, entry


def _wandb() -> ModuleType:
    """The module wandb, imported when it is first needed, and quiet."""
    # wandb reports its own use to its server, even of offline runs, and waits for the answer when
    # the program ends: on a machine without a network, half a minute of silence.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))
    return wandb


def _start_online(settings: TrackingSettings, config: Mapping[str, Any]) -> tuple[Any, str]:
    """A wandb.Run on the server, or None and why there is none."""
    wandb = _wandb()
    begun = time.monotonic()
    shared = wandb.setup(settings=wandb.Settings(mode="online")).settings
    proxies = {"http": shared.http_proxy, "https": shared.https_proxy}
    reason = _unreachable(
        shared.base_url, proxies={kind: url for kind, url in proxies.items() if url}
    )
    if reason is not None:
        return None, f"no answer from {shared.base_url} ({reason})"
    # Without a key wandb.init would wait for someone to type one.
    try:
        if not wandb.login(prompt=False, verify=False):
            return None, f"no API key for {shared.base_url} (set one with `wandb login`)"
    except wandb.Error as error:
        return None, f"no usable API key for {shared.base_url} ({_one_line(error)})"

    left = settings.init_timeout_s - GIVING_UP_SECONDS - (time.monotonic() - begun)
    run_id = uuid.uuid4().hex[:8]
    try:
        run = _init(settings, config, mode="online", init_timeout=max(left, 1.0), run_id=run_id)
    except wandb.Error as error:
        # The attempt leaves a folder with the run's header and nothing else.
        for folder in (settings.directory / "wandb").glob(f"run-*-{run_id}"):
            shutil.rmtree(folder, ignore_errors=True)
        return None, f"no run on {shared.base_url} ({_one_line(error)})"
    return run, ""


def _init(
    settings: TrackingSettings,
    config: Mapping[str, Any],
    *,
    mode: str,
    init_timeout: float | int,
    run_id: str | None = None,
) -> Any:
    """A new wandb.Run."""
    wandb = _wandb()
    return wandb.init(
        mode=mode,
        # An id of our own: WANDB_RUN_ID in the environment would merge the jobs of a sweep.
        id=run_id or uuid.uuid4().hex[:8],
        project=settings.project,
        entity=settings.entity,
        group=_short(settings.group, LONGEST_NAME),
        name=_short(settings.name, LONGEST_NAME),
        tags=list(dict.fromkeys(tag[:LONGEST_TAG] for tag in settings.tags if tag)),
        dir=str(settings.directory.resolve()),
        config=plain(config),
        reinit="create_new",
        settings=wandb.Settings(
            init_timeout=init_timeout,
            finish_timeout=settings.finish_timeout_s,
            finish_timeout_raises=True,
            # A table as an artifact would lie in the home directory until it is synced.
            allow_offline_artifacts=False,
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


def _unreachable(url: str, *, proxies: Mapping[str, str]) -> str | None:
    """Why no server answers at `url`; None if one does, whatever it answers.

    A thread bounds the whole time: looking up a name can hang for much longer than a connection.
    """
    found: list[str | None] = []

    def ask() -> None:
        handler = urllib.request.ProxyHandler(dict(proxies) if proxies else None)
        try:
            urllib.request.build_opener(handler).open(url, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            found.append(None)
        except urllib.error.URLError as error:
            # A doubtful certificate is still a server: wandb has its own settings for that.
            found.append(None if "SSL" in str(error.reason) else _one_line(error.reason))
        except OSError as error:
            found.append(_one_line(error))
        else:
            found.append(None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return found[0] if found else f"waited {PROBE_SECONDS:.0f} s"


@contextlib.contextmanager
def _room_for(rows: int) -> Iterator[None]:
    """Let a wandb table hold so many rows; past its limits it is cut without a word."""
    wandb = _wandb()
    limits = {name: getattr(wandb.Table, name) for name in ("MAX_ROWS", "MAX_ARTIFACT_ROWS")}
    try:
        for name, limit in limits.items():
            setattr(wandb.Table, name, max(limit, rows))
        yield
    finally:
        for name, limit in limits.items():
            setattr(wandb.Table, name, limit)


def _short(text: str | None, longest: int) -> str | None:
    return text if text is None or len(text) <= longest else f"{text[: longest - 3]}..."


def _one_line(error: object) -> str:
    """The first line of an error."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = text.strip().partition("\n")[0]
    # Some other server's page of HTML tells nothing.
    return "not the answer of a W&B server" if line.startswith("<") else line
