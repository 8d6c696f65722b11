"""Digests of files: what is kept of a large one, and when it is not believed."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mech_arith.common import file_digests
from mech_arith.common.errors import UserError
from mech_arith.common.file_digests import LARGE, file_digest, recalled, verify_file


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of the test's own; files count as settled at once."""
    monkeypatch.setenv("MECH_ARITH_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(file_digests, "SETTLED_S", -1e9)
    forget(monkeypatch)
    return tmp_path / "store"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new process would know."""
    monkeypatch.setattr(file_digests, "_known", {})
    monkeypatch.setattr(file_digests, "_verified", set())


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"w" * LARGE)
    return path


def entries(store: Path) -> list[Path]:
    return sorted((store / "digests").glob("*")) if store.exists() else []


def unreadable(*_: object) -> None:
    raise AssertionError("the file was read")


def test_a_large_file_is_read_once_per_machine(
    weights: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert file_digest(weights) == expected
    forget(monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", unreadable)
        assert file_digest(weights) == expected
    assert len(entries(store)) == 1


def test_a_link_is_the_file_that_it_leads_to(
    weights: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_digest(weights)
    link = weights.with_name("link")
    link.symlink_to(weights)
    forget(monkeypatch)
    monkeypatch.setattr(hashlib, "file_digest", unreadable)
    file_digest(link)


def rewritten(path: Path) -> None:
    """Other content of the same size, with the old time of writing."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    """Another file under the same name: another inode."""
    other = path.with_name("other")
    other.write_bytes(b"o" * LARGE)
    os.replace(other, path)


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("change", [rewritten, replaced, longer])
def test_a_changed_file_is_read_again(
    weights: Path, change: "object", monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file_digest(weights)
    assert callable(change)
    change(weights)
    forget(monkeypatch)
    found = file_digest(weights)
    assert found == hashlib.sha256(weights.read_bytes()).hexdigest() != before


def test_a_file_in_the_middle_of_being_written_is_not_kept(
    weights: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_digests, "SETTLED_S", 1e9)
    file_digest(weights)
    assert entries(store) == []


def test_a_small_file_is_not_kept(tmp_path: Path, store: Path) -> None:
    (tmp_path / "small").write_bytes(b"s")
    file_digest(tmp_path / "small")
    assert entries(store) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", None])
def test_a_damaged_entry_is_as_if_absent(
    weights: Path, store: Path, damage: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = file_digest(weights)
    (entry,) = entries(store)
    whole = entry.read_text()
    # One digit of the digest is another one: the entry is well-formed, and wrong.
    flipped = whole.replace(expected, expected[:-1] + ("0" if expected[-1] != "0" else "1"))
    entry.write_bytes(flipped.encode() if damage is None else damage)
    forget(monkeypatch)
    assert file_digest(weights) == expected
    assert entry.read_text() == whole


def test_a_store_that_cannot_be_written_does_no_harm(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MECH_ARITH_STORE", str(tmp_path / "file"))
    assert file_digest(weights) == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_verifying_reads_the_file_and_refuses_an_entry_that_lies(
    weights: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = verify_file(weights)
    (entry,) = entries(store)
    lie = "0" * 64
    stamp = file_digests._Stamp.of(weights)
    file_digests._keep(entry, file_digests.asdict(stamp), lie)
    forget(monkeypatch)
    assert file_digest(weights) == lie  # it is believed, unless it is verified
    with pytest.raises(UserError, match=r"SHA-256 0000.* that is kept of it, got .*; copy or down"):
        verify_file(weights)
    entry.unlink()
    forget(monkeypatch)
    assert verify_file(weights) == right
    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", unreadable)
        assert verify_file(weights) == right  # once per process


def test_processes_that_write_at_once_leave_a_whole_entry(weights: Path, store: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mech_arith.common import file_digests as f\n"
        "f.SETTLED_S = -1e9\n"
        "for _ in range(50): f._known.clear(); f._opened = lambda *_: None; "
        "print(f.file_digest(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, str(weights)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {line for process in running for line in process.communicate()[0].split()}
    assert said == {hashlib.sha256(weights.read_bytes()).hexdigest()}
    (entry,) = entries(store)
    stamp = file_digests._Stamp.of(weights)
    assert file_digests._opened(entry, file_digests.asdict(stamp)) in said


def test_what_follows_from_a_key_is_made_once(store: Path) -> None:
    made: list[str] = []

    def make() -> str:
        made.append("")
        return "d" * 64

    assert [recalled("code", "key", make) for _ in range(2)] == ["d" * 64] * 2
    assert len(made) == 1
    entries(store)[0].write_text("damaged")
    assert recalled("code", "key", make) == "d" * 64
    assert len(made) == 2
