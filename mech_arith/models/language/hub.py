"""Repositories of Hugging Face's hub, by Hugging Face's own conventions.

HF_HUB_OFFLINE, HF_HOME, HF_TOKEN, HF_ENDPOINT and the rest mean what they mean to every other tool.
What the hub cannot be asked, the cache may know.
"""

import re
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mech_arith.common.errors import UserError
from mech_arith.models.language.hf_files import shortened

ANSWER_S = 8.0
"""How long the hub may take to say which commit a revision is, in seconds."""

NEEDED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""Files of a repository that are worth downloading."""

SETTINGS = ["*.json", "*.model", "*.txt", "*.jinja"]
"""Those without the weights."""

ELSEWHERE = ["consolidated*", "original/*", "onnx/*"]
"""The same weights once more, in other shapes."""


def is_repository(text: str) -> bool:
    """Whether a text has the form of a repository's name, OWNER/NAME."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) is not None


def commit_of(directory: Path) -> str | None:
    """The commit that a directory of the hub's cache holds; None for any other directory."""
    is_snapshot = directory.parent.name == "snapshots"
    return directory.name if is_snapshot and _is_commit(directory.name) else None


@cache
def fetched(hub: str, revision: str | None) -> Path:
    """A repository's directory in Hugging Face's cache, downloaded where it is not there.

    The hub is asked unless the user says HF_HUB_OFFLINE=1, or the cache has the very commit that is
    asked for. Asked once per process, so that a branch that moves stays the same for all cells.

    Raises:
        UserError: it is not there, may not be read, or cannot be had without a network.
    """
    return _fetched(hub, revision, NEEDED)


@cache
def fetched_settings(hub: str, revision: str | None) -> Path:
    """The same with config and tokenizer alone downloaded, not the weights.

    Raises:
        UserError: as `fetched`.
    """
    return _fetched(hub, revision, SETTINGS)


def _fetched(hub: str, revision: str | None, wanted: list[str]) -> Path:
    """The files of a revision that are wanted."""
    if revision is not None and _is_commit(revision):
        known = _cached(hub, revision, wanted)
        if known is not None:
            return known
    if constants.HF_HUB_OFFLINE:
        return _without_hub(hub, revision, "the hub is not contacted", wanted)
    try:
        _reach(hub, revision)
    except HFValidationError:
        raise UserError(
            f"expected a hub repository as OWNER/NAME in model.hub, got {hub!r}"
        ) from None
    except HfHubHTTPError as error:
        if (why := _refusal(hub, revision, error)) is not None:
            raise UserError(why) from None
        return _without_hub(hub, revision, shortened(error), wanted)
    except (OSError, ValueError) as error:  # httpx's errors are no OSErrors: see `_within`
        return _without_hub(hub, revision, shortened(error), wanted)
    return _downloaded(hub, revision, wanted)


def _reach(hub: str, revision: str | None) -> None:
    """Ask the hub for a repository, before its own client does: that one tries for a minute.

    Raises:
        OSError: the hub does not answer in `ANSWER_S`. Without a network looking up its name alone
            may take longer than that, and cannot be interrupted: hence a thread.
    """

    def ask() -> str:
        return str(huggingface_hub.HfApi().repo_info(hub, revision=revision, timeout=ANSWER_S).sha)

    _within(ANSWER_S, ask)


def _within(seconds: float, ask: Callable[[], str]) -> str:
    answers: list[str] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            answers.append(ask())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if answers:
        return answers[0]
    if not errors:
        raise OSError(f"{constants.ENDPOINT} does not answer within {seconds:g} s")
    if isinstance(errors[0], OSError | ValueError):
        raise errors[0]
    raise OSError(f"{constants.ENDPOINT} cannot be reached ({shortened(errors[0])})")


def _refusal(hub: str, revision: str | None, error: HfHubHTTPError) -> str | None:
    """What the hub refuses, and the way out; None where it is merely out of order."""
    place = f"{constants.ENDPOINT}/{hub}"
    if isinstance(error, GatedRepoError):
        return (
            f"expected access to {hub}, which is gated; ask for it at {place}, then set HF_TOKEN "
            "(or run `hf auth login`)"
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"expected a revision of {hub}, got {revision!r}, which it does not have; {place} "
            "lists its branches, or leave model.revision out"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"expected a repository of the hub, got {hub}, which is not there or private; check "
            "its name, or set HF_TOKEN (or run `hf auth login`)"
        )
    return None


def _downloaded(hub: str, revision: str | None, wanted: list[str]) -> Path:
    """The files of a revision, with Hugging Face's own progress bar."""
    try:
        return Path(_snapshot(hub, revision, wanted))
    except HfHubHTTPError as error:
        why = _refusal(hub, revision, error) or _interrupted(hub, error)
        raise UserError(why) from None
    except Exception as error:  # httpx's, the disk's
        raise UserError(_interrupted(hub, error)) from None


def _interrupted(hub: str, error: Exception) -> str:
    return (
        f"expected to download all of {hub} into {constants.HF_HUB_CACHE} (see HF_HOME), got "
        f"{type(error).__name__}: {shortened(error)}; start again, it goes on where it stopped"
    )


def _without_hub(hub: str, revision: str | None, why: str, wanted: list[str]) -> Path:
    """What the cache has of a repository.

    Raises:
        UserError: nothing, or not all of it.
    """
    found = f"none: {why}"
    try:
        return Path(_snapshot(hub, revision, wanted, local_files_only=True))
    except HFValidationError:
        raise UserError(
            f"expected a hub repository as OWNER/NAME in model.hub, got {hub!r}"
        ) from None
    except IncompleteSnapshotError:
        found = f"a part of it: {why}"
    except (OSError, ValueError):
        pass
    raise UserError(
        f"expected {hub} at revision {revision or 'main'} in the cache {constants.HF_HUB_CACHE} "
        f"(see HF_HOME), found {found}; set model.path=DIR to a local copy, or HF_HUB_OFFLINE=0 "
        "where there is a network to download it (HF_TOKEN for gated models)"
    )


def _cached(hub: str, commit: str, wanted: list[str]) -> Path | None:
    """A commit's directory, where the cache has all of it."""
    try:
        return Path(_snapshot(hub, commit, wanted, local_files_only=True))
    except (OSError, ValueError):
        return None


def _snapshot(hub: str, revision: str | None, wanted: list[str], **options: Any) -> str:
    return huggingface_hub.snapshot_download(
        hub, revision=revision, allow_patterns=wanted, ignore_patterns=ELSEWHERE, **options
    )


def _is_commit(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{40}", text) is not None
