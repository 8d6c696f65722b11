"""SHA-256 of files, of which large ones are read once per machine.

What is known of a large file is kept in the store: its digest, beside what tells whether it is
still the same file (path, size, inode, and when it was last written and changed). Deleting that is
always safe. A damaged entry is as good as none.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mech_arith.common.atomic import read_bytes, write_text
from mech_arith.common.errors import UserError
from mech_arith.common.paths import store_dir

LARGE = 4 * 2**20
"""Bytes from which on a file's digest is kept: smaller ones are read faster than looked up."""

SETTLED_S = 2.0
"""A file that was written less than so many seconds ago may be written again in the same tick of
its file system's clock: its digest is not kept yet."""

_known: dict["_Stamp", str] = {}
"""Digests of this process."""

_verified: set["_Stamp"] = set()
"""Files that this process has read anew."""


@dataclass(frozen=True)
class _Stamp:
    """A file as it stands on the disk."""

    path: str
    """Absolute, links resolved."""
    size: int
    inode: int
    written_ns: int
    changed_ns: int
    """Of the content, the name or the mode: no program can set it back."""

    @classmethod
    def of(cls, path: Path) -> "_Stamp":
        stat = path.stat()
        return cls(
            str(path.resolve()), stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns
        )

    @property
    def entry(self) -> Path:
        """Where its digest is kept."""
        name = hashlib.sha256(self.path.encode()).hexdigest()
        return store_dir() / "digests" / f"{name}.json"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content. Reads in pieces: memory does not grow with the file.

    A large file that is as it was when it was last read on this machine is not read again.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    stamp = _Stamp.of(path)
    if stamp not in _known:
        kept = _opened(stamp.entry, asdict(stamp)) if stamp.size >= LARGE else None
        _known[stamp] = kept or _hashed(path, stamp)
    return _known[stamp]


def known_digest(path: Path) -> str | None:
    """The same without reading a large file: None where nothing is kept of it.

    Raises:
        OSError: there is no such file.
    """
    stamp = _Stamp.of(path)
    if stamp.size < LARGE or stamp in _known:
        return file_digest(path)
    return _opened(stamp.entry, asdict(stamp))


def verify_file(path: Path) -> str:
    """SHA-256 of a file's content, which is read whatever is known of it: once per process.

    Raises:
        UserError: another digest is kept of the same file.
        OSError: there is no such file, or it cannot be read.
    """
    stamp = _Stamp.of(path)
    if stamp in _verified:
        return _known[stamp]
    kept = _known.get(stamp) or _opened(stamp.entry, asdict(stamp))
    found = _hashed(path, stamp, keep=kept is None)
    if kept not in (None, found):
        raise UserError(
            f"expected {path} with the SHA-256 {str(kept)[:16]}... that is kept of it, got "
            f"{found[:16]}...; copy or download it again, or remove {stamp.entry} if it is right"
        )
    _known[stamp] = found
    _verified.add(stamp)
    return found


def recalled(kind: str, key: str, make: Callable[[], str]) -> str:
    """A digest that follows from a key alone, from the store if it was made before."""
    path = store_dir() / "digests" / f"{kind}-{key}.json"
    kept = _opened(path, {"key": key})
    if kept is None:
        kept = make()
        _keep(path, {"key": key}, kept)
    return kept


def _hashed(path: Path, stamp: _Stamp, *, keep: bool = True) -> str:
    """The digest, kept if the file is large and stood still meanwhile."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    settled = time.time() - max(stamp.written_ns, stamp.changed_ns) / 1e9 > SETTLED_S
    if keep and stamp.size >= LARGE and settled and _Stamp.of(path) == stamp:
        _keep(stamp.entry, asdict(stamp), digest)
    return digest


def _keep(path: Path, of: Mapping[str, object], digest: str) -> None:
    """Keep a digest; where the store cannot be written, the next process makes it again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(_sealed(of, digest), indent=2) + "\n")


def _opened(path: Path, of: Mapping[str, object]) -> str | None:
    """The digest that is kept of something; None if nothing whole is."""
    try:
        known = json.loads(read_bytes(path))
        digest = str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if known == _sealed(of, digest) else None


def _sealed(of: Mapping[str, object], digest: str) -> dict[str, object]:
    """An entry, with a digest of its own: one flipped bit makes it void."""
    entry = {**of, "sha256": digest}
    seal = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
    return {**entry, "seal": seal}
