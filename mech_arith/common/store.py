"""What was computed once is read back: a store on disk, addressed by all that determines a result.

An entry's address is the SHA-256 of its stage, its key, the source code that computes it and the
versions of the libraries underneath. Change one of them, and another entry is asked for: no entry
is ever out of date, and there is no eviction. Deleting the directory, or any part of it, is safe at
any time, also while jobs run; what is missing is computed again.

Locks spare work, and keep nothing whole: an entry appears whole or not at all, one that is there is
not replaced, and each is read against its digest. On a file system whose locks do not work, or lie,
jobs compute the same entry twice.
"""

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from filelock import BaseFileLock, FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mech_arith.common.atomic import read_bytes, sweep_abandoned, write_bytes, write_new
from mech_arith.common.digests import canonical, code_digest, json_digest, tensor_digest

log = logging.getLogger(__name__)

Name = TypeVar("Name")
"""What a caller calls one of several entries: a site, say."""

FORMAT = 1
"""Of the entry files; part of every address."""

LIBRARIES = ("torch", "transformers", "transformer_lens")
"""Their versions are part of every address."""


class Store:
    """Named tensors on disk, shared by concurrent jobs.

    A damaged entry is noticed by its digest and computed again. Whatever is wrong with the
    directory (read-only, full, without locks), the run goes on and computes for itself.
    """

    def __init__(self, directory: Path | None, *, patience_s: float = 1800.0) -> None:
        """Nothing is touched before the first fetch.

        Args:
            directory: where entries are kept; made when the first is written. None: nothing is
                kept, everything is computed.
            patience_s: how many seconds to wait for another job that is computing the same entries
                before computing them here too.
        """
        self.directory = directory
        self.patience_s = patience_s
        self.hits = 0
        """Entries that were read, so far."""
        self.misses = 0
        """Entries that were computed, so far."""
        self._writable = directory is not None

    def fetch(
        self,
        stage: str,
        key: Mapping[str, Any],
        make: Callable[[], dict[str, Tensor]],
        *,
        code: Sequence[ModuleType],
    ) -> dict[str, Tensor]:
        """One entry: `fetch_many` for a single key."""
        return self.fetch_many(stage, {stage: key}, lambda _: {stage: make()}, code=code)[stage]

    def fetch_many(
        self,
        stage: str,
        keys: Mapping[Name, Mapping[str, Any]],
        make: Callable[[list[Name]], dict[Name, dict[str, Tensor]]],
        *,
        code: Sequence[ModuleType],
    ) -> dict[Name, dict[str, Tensor]]:
        """Entries by name: those that are in the store are read, all others computed in one call.

        Jobs that ask for the same set of keys at the same time compute it once; the others wait.
        Sets that merely overlap do not wait for each other: each needs a computation of its own
        anyway.

        Args:
            stage: what kind of thing this is, a plain name; entries of one stage share a directory.
            keys: for each name all that determines the entry, as plain JSON data (lists, no
                tuples): inputs (by `tensor_digest`), settings, dtype, device.
            make: computes the entries of the names it is given. It may itself fetch, from stages
                that come earlier.
            code: the modules whose source determines the result; see `code_digest`.

        Returns:
            Per name its tensors in the order of their names: on the CPU, contiguous, detached, and
            the same bit for bit whether computed or read.

        Raises:
            ValueError: a key is not plain JSON data, the stage is no plain name, or `make` returned
                other names than it was given.
        """
        source = code_digest(code)
        addresses = {name: _address(stage, key, source) for name, key in keys.items()}
        found = self._find(addresses)
        missing = [name for name in keys if name not in found]
        if missing:
            with self._alone(stage, addresses.values()) as alone:
                if alone:
                    # Another job may have computed them by now.
                    found |= self._find({name: addresses[name] for name in missing})
                    missing = [name for name in missing if name not in found]
                made = _made(make, missing)
                for name, tensors in made.items():
                    self._keep(addresses[name], tensors, write_new)
            found |= made
        self.misses += len(missing)
        self.hits += len(found) - len(missing)
        return {name: found[name] for name in keys}

    def has(self, stage: str, key: Mapping[str, Any], *, code: Sequence[ModuleType]) -> bool:
        """Whether there is an entry, which `fetch` would read if it is whole. Nothing is read."""
        address = _address(stage, key, code_digest(code))
        return self.directory is not None and address.path(self.directory).is_file()

    def get(self, stage: str, key: Mapping[str, Any]) -> dict[str, Tensor] | None:
        """What was last put under a key; None if there is nothing whole."""
        return self._find({stage: _address(stage, key, "")}).get(stage)

    def put(self, stage: str, key: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Put tensors under a key, in place of what was there; for one writer at a time.

        Unlike what `fetch` keeps, the key does not say which code has made them: the caller's does.
        """
        self._keep(_address(stage, key, ""), _settled(tensors), write_bytes)

    def _find(self, addresses: Mapping[Name, "_Address"]) -> dict[Name, dict[str, Tensor]]:
        """The entries that are there and whole. Damaged ones are removed."""
        found: dict[Name, dict[str, Tensor]] = {}
        if self.directory is None:
            return found
        for name, address in addresses.items():
            path = address.path(self.directory)
            try:
                found[name] = _read(path, address.identity)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except _DamagedError as error:
                log.warning(
                    "artifact store: expected a whole entry at %s, got %s; computing it again",
                    path,
                    error,
                )
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
        return found

    def _keep(
        self,
        address: "_Address",
        tensors: dict[str, Tensor],
        write: Callable[[Path, bytes], object],
    ) -> None:
        """Write one entry; if that fails, say so and write no more."""
        if self.directory is None or not self._writable:
            return
        metadata = {"identity": address.identity, "digest": _payload_digest(tensors)}
        content = save(tensors, metadata)
        path = address.path(self.directory)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep_abandoned(path.parent)
            write(path, content)
        except OSError as error:
            self._writable = False
            log.warning(
                "artifact store: expected to write in %s, got %s; nothing more is kept in this run",
                self.directory,
                _reason(error),
            )

    @contextlib.contextmanager
    def _alone(self, stage: str, addresses: Iterable["_Address"]) -> Iterator[bool]:
        """Hold other jobs off the same set; False if that cannot be had."""
        lock = self._locked(stage, addresses) if self._writable else None
        try:
            yield lock is not None
        finally:
            if lock is not None:
                # The kernel frees it when this process ends.
                with contextlib.suppress(OSError):
                    lock.release()

    def _locked(self, stage: str, addresses: Iterable["_Address"]) -> BaseFileLock | None:
        """A lock of this set of entries that is held; None if it cannot be had.

        One for the set and not one for each entry: those of a large model are more than the files
        that a process may hold open.
        """
        assert self.directory is not None
        name = hashlib.sha256("".join(sorted({a.digest for a in addresses})).encode()).hexdigest()
        path = self.directory / stage / "locks" / f"{name}.lock"
        # Not `fallback_to_soft`: where a file system has no locks, that leaves files behind which
        # outlive a killed job and stop all later ones.
        lock = FileLock(path, poll_interval=0.1, fallback_to_soft=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(Timeout):
                lock.acquire(blocking=False)
                return lock
            log.info("artifact store: waiting for another job that computes the same %s", stage)
            lock.acquire(timeout=self.patience_s)
            return lock
        except Timeout:
            log.warning(
                "artifact store: expected another job to compute %s within %g s, got nothing; "
                "computing it here",
                stage,
                self.patience_s,
            )
        except OSError as error:
            log.info("artifact store: no lock at %s (%s); going without", path, _reason(error))
        return None


@dataclass(frozen=True)
class _Address:
    """Where an entry stands, and all that determines it."""

    stage: str
    identity: str
    """Canonical JSON."""

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.identity.encode()).hexdigest()

    def path(self, directory: Path) -> Path:
        return directory / self.stage / self.digest[:2] / f"{self.digest}.safetensors"


def _address(stage: str, key: Mapping[str, Any], source: str) -> _Address:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", stage):
        raise ValueError(
            f"expected a stage of letters, digits, '-' and '_', got {stage!r}; rename it"
        )
    _check_plain(key)
    identity = {
        "format": FORMAT,
        "stage": stage,
        "key": dict(key),
        "code": source,
        "versions": _versions(),
    }
    return _Address(stage, canonical(identity))


@cache
def _versions() -> dict[str, str]:
    return {library: version(library) for library in LIBRARIES}


def _check_plain(key: Mapping[str, Any]) -> None:
    """Let nothing through that JSON would bend, such as a tuple or a number that names a field."""
    try:
        plain = json.loads(canonical(dict(key))) == key
    except (TypeError, ValueError):
        plain = False
    if not plain:
        raise ValueError(
            "expected a key of plain JSON data (text, finite numbers, lists, fields named by "
            f"text), got {dict(key)!r}; convert it first"
        )


def _payload_digest(tensors: Mapping[str, Tensor]) -> str:
    return json_digest({name: tensor_digest(tensor) for name, tensor in tensors.items()})


def _made(
    make: Callable[[list[Name]], dict[Name, dict[str, Tensor]]], missing: list[Name]
) -> dict[Name, dict[str, Tensor]]:
    """What `make` computes, in the form in which it would be read back."""
    if not missing:
        return {}
    made = make(missing)
    if made.keys() != set(missing):
        raise ValueError(f"expected entries for {missing}, got {list(made)}; return each of them")
    return {name: _settled(made[name]) for name in missing}


def _settled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that depend on nothing: a product may differ in its last bit with a tensor's layout.

    Sorted by name, as they are read.
    """
    return {
        name: tensors[name].detach().cpu().clone(memory_format=torch.contiguous_format)
        for name in sorted(tensors)
    }


class _DamagedError(Exception):
    """An entry is not what was once written; the message says why."""


def _read(path: Path, identity: str) -> dict[str, Tensor]:
    """The tensors of an entry.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        _DamagedError: it is truncated, altered, unreadable, or another's.
    """
    try:
        content = read_bytes(path)
        tensors = _settled(load(content))
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, SafetensorError, ValueError) as error:
        raise _DamagedError(_reason(error)) from None
    metadata = header.get("__metadata__", {})
    if metadata.get("identity") != identity:
        raise _DamagedError("an entry with another key")
    if metadata.get("digest") != _payload_digest(tensors):
        raise _DamagedError("content that differs from its digest")
    return tensors


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
