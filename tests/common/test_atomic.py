"""A file is written whole or not at all, whatever goes wrong on the way."""

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mech_arith.common.atomic import LONGEST, atomic, read_bytes, write_new, write_text


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    for text in ("before", "after"):
        write_text(tmp_path / "a.txt", text)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "after"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("part", ["fsync", "replace"])
def test_a_failed_write_leaves_the_text_that_was_there(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "a.txt", "before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, part, full)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a.txt", "after")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def _forgets(paths: list[Path]) -> None:
    paths[0].write_text("new", encoding="utf-8")


def _fails(paths: list[Path]) -> None:
    for path in paths:
        path.write_text("new", encoding="utf-8")
    raise KeyboardInterrupt


@pytest.mark.parametrize(("write", "error"), [(_forgets, OSError), (_fails, KeyboardInterrupt)])
def test_of_several_files_none_is_renamed_before_all_are_written(
    write: Callable[[list[Path]], None], error: type[BaseException], tmp_path: Path
) -> None:
    called: list[bool] = []
    with (
        pytest.raises(error),
        atomic(tmp_path / "a", tmp_path / "b", before=lambda: called.append(True)) as paths,
    ):
        write(paths)
    assert os.listdir(tmp_path) == []
    assert not called


def _write_directory(path: Path, text: str) -> None:
    with atomic(path) as [new]:
        new.mkdir()
        write_text(new / "weights", text)


def test_a_directory_is_moved_as_a_whole_and_never_over_another(tmp_path: Path) -> None:
    _write_directory(tmp_path / "model", "1")
    with pytest.raises(OSError, match="not empty"):
        _write_directory(tmp_path / "model", "2")
    assert os.listdir(tmp_path) == ["model"]
    assert (tmp_path / "model" / "weights").read_text(encoding="utf-8") == "1"


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path: Path) -> None:
    assert LONGEST < 255
    write_text(tmp_path / ("x" * 255), "long")
    assert os.listdir(tmp_path) == ["x" * 255]


# --- what network file systems do


def test_a_rename_that_reports_failure_although_it_happened_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS: the server's first answer is lost, and it no longer finds the file when asked again."""
    rename = os.replace

    def twice(one: Path, other: Path) -> None:
        rename(one, other)
        rename(one, other)

    monkeypatch.setattr(os, "replace", twice)
    write_text(tmp_path / "a", "whole")
    assert (tmp_path / "a").read_text() == "whole"

    def lost(one: Path, other: Path) -> None:
        one.unlink()
        rename(one, other)

    monkeypatch.setattr(os, "replace", lost)
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "a", "another's")
    assert (tmp_path / "a").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_is_there_is_not_taken_from_its_readers(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert write_new(path, b"first")
    inode = path.stat().st_ino
    assert not write_new(path, b"second")
    assert (path.read_bytes(), path.stat().st_ino) == (b"first", inode)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_of_many_that_write_a_new_file_one_is_told_so(tmp_path: Path) -> None:
    begin = threading.Barrier(8)

    def write(content: int) -> bool:
        begin.wait()
        return write_new(tmp_path / "a", str(content).encode())

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(write, range(8)))
    assert written.count(True) == 1
    assert (tmp_path / "a").read_text() == str(written.index(True))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_that_reports_failure_although_it_happened_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def twice(one: Path, other: Path) -> None:
        link(one, other)
        link(one, other)

    monkeypatch.setattr(os, "link", twice)
    assert write_new(tmp_path / "a", b"whole")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_a_new_file_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", no_links)
    assert write_new(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_file_that_another_node_replaces_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    (tmp_path / "a").write_bytes(b"whole")
    stale = [OSError(errno.ESTALE, os.strerror(errno.ESTALE))] * times
    read = Path.read_bytes

    def reads(path: Path) -> bytes:
        if stale:
            raise stale.pop()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", reads)
    if times < 3:
        assert read_bytes(tmp_path / "a") == b"whole"
    else:
        with pytest.raises(FileNotFoundError):
            read_bytes(tmp_path / "a")
