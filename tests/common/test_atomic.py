"""A file is written whole or not at all, whatever goes wrong on the way."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mech_arith.common.atomic import LONGEST, atomic, write_text


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
