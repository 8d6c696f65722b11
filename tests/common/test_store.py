import contextlib
import hashlib
import importlib
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mech_arith.common import errors
from mech_arith.common import store as artifacts
from mech_arith.common.atomic import ABANDONED_S
from mech_arith.common.digests import code_digest, tensor_digest
from mech_arith.common.store import Store
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
CODE = [errors]
KEY = {"weights": "ab12", "layer": 3, "positions": [0, 1], "tolerance": 0.1}
MADE = {"mean": torch.tensor([1.0, 2.0]), "directions": torch.eye(3, dtype=torch.float64)}


def never(*_: object) -> Any:
    raise AssertionError("this should have been read from the store")


def entries(directory: Path) -> list[Path]:
    return sorted(directory.glob("*/??/*.safetensors"))


def temporaries(directory: Path) -> list[Path]:
    return sorted(directory.glob("*/??/.*.tmp"))


def kept(directory: Path, key: dict[str, Any] = KEY, stage: str = "components") -> Path:
    """A store's only entry."""
    Store(directory).fetch(stage, key, lambda: MADE, code=CODE)
    (path,) = entries(directory)
    return path


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == sorted(expected)
    for name, tensor in expected.items():
        assert tensor_digest(found[name]) == tensor_digest(tensor)


# --- computed once, then read


def test_what_was_computed_once_is_read(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "made" / "on the way"), Store(tmp_path / "made" / "on the way")
    assert_same(first.fetch("components", KEY, lambda: MADE, code=CODE), MADE)
    assert_same(second.fetch("components", dict(reversed(KEY.items())), never, code=CODE), MADE)
    assert (first.hits, first.misses) == (0, 1)
    assert (second.hits, second.misses) == (1, 0)


@pytest.mark.parametrize("kind", ["off", "computed", "read"])
def test_tensors_are_alike_however_they_come(tmp_path: Path, kind: str) -> None:
    """A product may differ in its last bit with a tensor's layout, so layouts must agree."""
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    made = {"turned": base.mT, "part": base[1:, 1:], "whole": base}
    store = Store(None if kind == "off" else tmp_path)
    if kind == "read":
        store.fetch("components", KEY, lambda: made, code=CODE)
    found = store.fetch("components", KEY, lambda: made, code=CODE)
    assert_same(found, made)
    storages = {tensor.untyped_storage().data_ptr() for tensor in found.values()}
    assert len(storages) == 3
    for tensor in found.values():
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
        assert tensor.data_ptr() % 64 == 0
    found["whole"].zero_()
    assert base[0, 1] == 1


def test_without_a_directory_everything_is_computed(tmp_path: Path) -> None:
    store = Store(None)
    calls = []
    for _ in range(2):
        assert_same(store.fetch("x", KEY, lambda: calls.append(1) or MADE, code=CODE), MADE)
    assert len(calls) == 2
    assert (store.hits, store.misses) == (0, 2)
    assert not list(tmp_path.iterdir())


DTYPES = [
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any bits, NaN of every kind among them; no dimension, or none filled."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    size = dtype.itemsize * torch.Size(shape).numel()
    if dtype == torch.bool:
        bits = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        return torch.tensor(bits, dtype=dtype).reshape(shape)
    content = bytearray(draw(st.binary(min_size=size, max_size=size)))
    flat = torch.frombuffer(content, dtype=dtype) if size else torch.empty(0, dtype=dtype)
    return flat.reshape(shape)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(made=st.dictionaries(names, tensors(), max_size=4))
def test_tensors_survive_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, made: dict[str, Tensor]
) -> None:
    directory = tmp_path_factory.mktemp("store")
    assert_same(Store(directory).fetch("x", KEY, lambda: made, code=CODE), made)
    assert_same(Store(directory).fetch("x", KEY, never, code=CODE), made)
    shutil.rmtree(directory)


def test_all_that_is_missing_is_computed_in_one_call(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keys = {layer: {**KEY, "layer": layer} for layer in (4, 2, 0, 3)}
    store.fetch("components", keys[2], lambda: {"x": torch.tensor(20)}, code=CODE)
    asked = []

    def make(layers: list[int]) -> dict[int, dict[str, Tensor]]:
        asked.append(layers)
        return {layer: {"x": torch.tensor(10 * layer)} for layer in reversed(layers)}

    found = store.fetch_many("components", keys, make, code=CODE)
    assert asked == [[4, 0, 3]]
    assert [(layer, int(entry["x"])) for layer, entry in found.items()] == [
        (4, 40),
        (2, 20),
        (0, 0),
        (3, 30),
    ]
    assert (store.hits, store.misses) == (1, 4)
    assert list(store.fetch_many("components", keys, never, code=CODE)) == [4, 2, 0, 3]
    assert (store.hits, store.misses) == (5, 4)
    assert store.fetch_many("components", {}, never, code=CODE) == {}


def test_making_may_fetch_from_an_earlier_stage(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def components() -> dict[str, Tensor]:
        clean = store.fetch("clean", KEY, lambda: {"x": torch.ones(2)}, code=CODE)
        return {"sum": clean["x"].sum()}

    assert store.fetch("components", KEY, components, code=CODE)["sum"] == 2
    assert len(entries(tmp_path)) == 2


def test_what_is_returned_has_the_names_that_were_asked_for(tmp_path: Path) -> None:
    said = r"expected entries for \['a', 'b'\], got \['a', 'c'\]; return each of them"
    with pytest.raises(ValueError, match=said):
        Store(tmp_path).fetch_many(
            "x", {"a": {}, "b": {"n": 1}}, lambda _: {"a": MADE, "c": MADE}, code=CODE
        )
    assert not entries(tmp_path)


def test_a_computation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).fetch("x", KEY, lambda: 1 / 0, code=CODE)  # pyright: ignore[reportArgumentType]
    assert not entries(tmp_path)
    store = Store(tmp_path)
    assert_same(store.fetch("x", KEY, lambda: MADE, code=CODE), MADE)
    assert store.misses == 1


def test_a_store_may_be_deleted_while_it_is_used(tmp_path: Path) -> None:
    def make() -> dict[str, Tensor]:
        shutil.rmtree(tmp_path)
        return MADE

    assert_same(Store(tmp_path).fetch("x", KEY, make, code=CODE), MADE)
    assert_same(Store(tmp_path).fetch("x", KEY, never, code=CODE), MADE)


def test_who_may_read_an_entry_is_the_users_choice(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = kept(tmp_path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


# --- addresses


@pytest.mark.parametrize(
    "other",
    [
        {**KEY, "layer": 4},
        {**KEY, "layer": 3.0},
        {**KEY, "layer": "3"},
        {**KEY, "tolerance": 0.1 + 2**-56},
        {**KEY, "positions": [1, 0]},
        {**KEY, "positions": None},
        {**KEY, "more": False},
        {},
    ],
)
def test_another_key_is_another_entry(tmp_path: Path, other: dict[str, Any]) -> None:
    path = kept(tmp_path)
    Store(tmp_path).fetch("components", other, dict, code=CODE)
    assert len(entries(tmp_path)) == 2
    assert path in entries(tmp_path)


def test_another_stage_library_or_code_is_another_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path)
    Store(tmp_path).fetch("clean", KEY, lambda: MADE, code=CODE)
    Store(tmp_path).fetch("components", KEY, lambda: MADE, code=[errors, artifacts])
    newer = {**artifacts._versions(), "torch": "99.0"}
    monkeypatch.setattr(artifacts, "_versions", lambda: newer)
    Store(tmp_path).fetch("components", KEY, lambda: MADE, code=CODE)
    assert len(entries(tmp_path)) == 4


def test_the_libraries_versions_are_known() -> None:
    assert artifacts._versions()["torch"] == torch.__version__
    assert set(artifacts._versions()) == {"torch", "transformers", "transformer_lens"}


json_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Lone surrogates too: a key may hold any text.
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(one=st.dictionaries(st.text(), json_data), two=st.dictionaries(st.text(), json_data))
def test_addresses_agree_where_keys_do(one: dict[str, Any], two: dict[str, Any]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    addresses = [artifacts._address("x", key, "") for key in (one, two)]
    assert (addresses[0].digest == addresses[1].digest) == same
    assert artifacts._address("x", dict(reversed(one.items())), "") == addresses[0]
    assert json.loads(addresses[0].identity)["key"] == one


@pytest.mark.parametrize(
    "entry",
    [
        float("nan"),
        float("inf"),
        (1, 2),
        {1: "x"},
        [{True: 1}],
        {1, 2},
        b"x",
        torch.tensor(1),
        Path(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("directory", [True, False])
def test_a_key_is_plain_data(tmp_path: Path, entry: object, directory: bool) -> None:
    with pytest.raises(ValueError, match=r"expected a key of plain JSON data .*; convert it first"):
        Store(tmp_path if directory else None).fetch("x", {"a": entry}, never, code=CODE)


@pytest.mark.parametrize("stage", ["", "../x", "a/b", "a b", "x\n"])
def test_a_stage_is_a_plain_name(tmp_path: Path, stage: str) -> None:
    with pytest.raises(ValueError, match=r"expected a stage of letters, digits, .*; rename it"):
        Store(tmp_path).fetch(stage, KEY, never, code=CODE)


# --- digests


def test_a_digest_of_tensors_by_hand() -> None:
    one = torch.tensor([1.0], dtype=torch.float64)
    content = b"torch.float64 (1,);" + bytes.fromhex("000000000000f03f")
    assert tensor_digest(one) == hashlib.sha256(content).hexdigest()
    assert tensor_digest(one, torch.zeros(0, 2)) == (
        hashlib.sha256(content + b"torch.float32 (0, 2);").hexdigest()
    )


def test_a_digest_sees_type_shape_order_and_every_bit() -> None:
    zeros = torch.zeros(2, 2)
    different = [
        (zeros,),
        (zeros.double(),),
        (zeros.int(),),
        (zeros.reshape(4),),
        (zeros, zeros),
        (-zeros,),
        (zeros.reshape(4)[:0], zeros),
        (zeros, zeros.reshape(4)[:0]),
        (),
    ]
    assert len({tensor_digest(*group) for group in different}) == len(different)
    part = torch.arange(16.0).reshape(4, 4)[1:3, ::2]
    assert tensor_digest(part) == tensor_digest(part.clone())
    assert tensor_digest(part.mT) != tensor_digest(part)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """Writes a module, or a package, and imports it anew."""
    root = tmp_path / "code"
    root.mkdir()
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def plant(name: str, **files: str) -> ModuleType:
        for file, text in files.items():
            path = root / (f"{name}.py" if file == "source" else f"{name}/{file}.py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    yield plant
    for name in [name for name in sys.modules if name.startswith("planted_")]:
        del sys.modules[name]


def test_changed_code_is_computed_again(tmp_path: Path, planted: Callable[..., ModuleType]) -> None:
    store = Store(tmp_path / "store")
    for source, expected in [("x = 1", 1), ("x = 1", 1), ("x = 2", 2), ("x = 2  # why", 2)]:
        module = planted("planted_stage", source=source)
        made = store.fetch(
            "x", KEY, lambda module=module: {"x": torch.tensor(module.x)}, code=[errors, module]
        )
        assert made["x"] == expected
    assert (store.hits, store.misses) == (1, 3)


def test_a_digest_of_code_sees_names_and_texts_but_no_order(
    planted: Callable[..., ModuleType],
) -> None:
    one, same = planted("planted_one", source="x = 1"), planted("planted_same", source="x = 1")
    assert code_digest([one, same]) == code_digest([same, one, one])
    assert len({code_digest(group) for group in ([one], [same], [one, same], [])}) == 4


def test_a_package_counts_with_its_modules(planted: Callable[..., ModuleType]) -> None:
    before = code_digest([planted("planted_package", __init__="", inner="x = 1")])
    assert code_digest([planted("planted_package", inner="x = 1")]) == before
    assert code_digest([planted("planted_package", inner="x = 2")]) != before


def test_code_is_what_was_imported_and_not_what_was_edited_since(
    planted: Callable[..., ModuleType],
) -> None:
    module = planted("planted_edited", source="x = 1")
    before = code_digest([module])
    assert module.__file__
    Path(module.__file__).write_text("x = 2")
    assert code_digest([module]) == before
    assert code_digest([importlib.reload(module)]) != before


def test_code_without_a_source_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"expected a module with a source file, got 'sys' \(None\)"
    ):
        code_digest([sys])


# --- damage


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 16
    path.write_bytes(content)


def _anothers(path: Path) -> None:
    """The entry of another key, whole in itself."""
    elsewhere = path.parent.parent.parent / "other"
    kept(elsewhere, {**KEY, "layer": 9}).replace(path)
    shutil.rmtree(elsewhere)


def _unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _no_digest(path: Path) -> None:
    path.write_bytes(artifacts.save(MADE))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_truncated, "incomplete metadata"),
        (_emptied, "header too small"),
        (_flipped, "content that differs from its digest"),
        (_unreadable, "Too many levels of symbolic links"),
        (_anothers, "an entry with another key"),
        (_no_digest, "an entry with another key"),
        (lambda path: path.write_text("x" * 500), "header too large"),
    ],
)
def test_a_damaged_entry_is_noticed_and_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], said: str
) -> None:
    path = kept(tmp_path)
    damage(path)
    store = Store(tmp_path)
    assert_same(store.fetch("components", KEY, lambda: MADE, code=CODE), MADE)
    assert (store.hits, store.misses) == (0, 1)
    (record,) = caplog.records
    message = record.getMessage()
    assert record.levelno == logging.WARNING
    assert f"expected a whole entry at {path}, got " in message
    assert said in message
    assert message.endswith("; computing it again")
    assert "\n" not in message
    assert_same(store.fetch("components", KEY, never, code=CODE), MADE)
    assert len(caplog.records) == 1


def test_a_damaged_entry_does_not_stay_if_computing_it_fails(tmp_path: Path) -> None:
    path = kept(tmp_path)
    _flipped(path)
    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).fetch("components", KEY, lambda: 1 / 0, code=CODE)  # pyright: ignore[reportArgumentType]
    assert not path.exists()


def test_a_flipped_bit_anywhere_and_a_missing_end_are_noticed(tmp_path: Path) -> None:
    path = kept(tmp_path)
    content = path.read_bytes()
    identity = artifacts._address("components", KEY, code_digest(CODE)).identity
    assert_same(artifacts._read(path, identity), MADE)
    for index in range(len(content)):
        flipped = bytearray(content)
        flipped[index] ^= 1 << index % 8
        path.write_bytes(flipped)
        with pytest.raises(artifacts._DamagedError):
            artifacts._read(path, identity)
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(artifacts._DamagedError):
            artifacts._read(path, identity)


# --- directories that cannot be used


def test_a_store_that_cannot_be_made_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "file"
    directory.write_text("in the way")
    _cannot_be_written(directory, caplog)
    assert directory.read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_store_that_is_read_only_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o555)
    try:
        _cannot_be_written(tmp_path, caplog)
    finally:
        tmp_path.chmod(0o755)


def test_a_full_disk_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = kept(tmp_path)
    with _no_file_larger_than(100):
        _cannot_be_written(tmp_path, caplog)
    assert entries(tmp_path) == [whole]
    assert not temporaries(tmp_path)


@contextlib.contextmanager
def _no_file_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_damaged_entry_that_cannot_be_removed_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = kept(tmp_path)
    path.unlink()
    path.mkdir()
    shutil.rmtree(tmp_path / "components" / "locks")
    (tmp_path / "components" / "locks").write_text("in the way")
    assert_same(Store(tmp_path).fetch("components", KEY, lambda: MADE, code=CODE), MADE)
    warnings = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    damaged, unwritable = [entry.getMessage() for entry in warnings]
    assert damaged.endswith("got Is a directory; computing it again")
    assert unwritable.endswith("got Is a directory; nothing more is kept in this run")


def _cannot_be_written(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(directory)
    for layer in (10, 11):
        made = store.fetch("components", {**KEY, "layer": layer}, lambda: MADE, code=CODE)
        assert_same(made, MADE)
    assert store.misses == 2
    (warning,) = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert f"expected to write in {directory}, got " in warning.getMessage()
    assert warning.getMessage().endswith("; nothing more is kept in this run")


def test_without_locks_entries_are_kept_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "locks").write_text("in the way")
    kept(tmp_path)
    (record,) = caplog.records
    assert "no lock at " in record.getMessage()
    assert record.getMessage().endswith("(File exists); going without")
    assert_same(Store(tmp_path).fetch("components", KEY, never, code=CODE), MADE)


# --- concurrent jobs


@pytest.mark.parametrize("patience_s", [60.0, 0.2])
def test_a_job_waits_for_another_but_not_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, patience_s: float
) -> None:
    caplog.set_level(logging.INFO, logger="mech_arith")
    computing, finish = threading.Event(), threading.Event()

    def slow() -> dict[str, Tensor]:
        computing.set()
        assert finish.wait(60)
        return MADE

    first = threading.Thread(
        target=lambda: Store(tmp_path).fetch("components", KEY, slow, code=CODE)
    )
    first.start()
    assert computing.wait(60)
    waits = patience_s > 1
    if waits:
        threading.Timer(0.3, finish.set).start()
    second = Store(tmp_path, patience_s=patience_s)
    made = second.fetch("components", KEY, never if waits else lambda: MADE, code=CODE)
    assert_same(made, MADE)
    assert (second.hits, second.misses) == ((1, 0) if waits else (0, 1))
    finish.set()
    first.join(60)
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].endswith("waiting for another job that computes the same components")
    assert messages[1:] == (
        []
        if waits
        else [
            "artifact store: expected another job to compute components within 0.2 s, got nothing; "
            "computing it here"
        ]
    )
    assert_same(Store(tmp_path).fetch("components", KEY, never, code=CODE), MADE)


def test_sets_that_only_overlap_do_not_wait_for_each_other(tmp_path: Path) -> None:
    keys = {layer: {**KEY, "layer": layer} for layer in range(3)}

    def make(layers: list[int]) -> dict[int, dict[str, Tensor]]:
        if len(layers) == 3:
            inner = Store(tmp_path, patience_s=0.0)
            inner.fetch_many("x", {1: keys[1]}, make, code=CODE)
            assert (inner.hits, inner.misses) == (0, 1)
        return {layer: {"x": torch.tensor(layer)} for layer in layers}

    store = Store(tmp_path)
    found = store.fetch_many("x", keys, make, code=CODE)
    assert [int(entry["x"]) for entry in found.values()] == [0, 1, 2]
    assert len(entries(tmp_path)) == 3


JOB = """
import os, sys, time
from pathlib import Path
import torch
from mech_arith.common import errors
from mech_arith.common.store import Store
from mech_arith.common.digests import tensor_digest

directory = Path(sys.argv[1])

def make(layers):
    with open(directory / "computed", "a") as log:
        log.write(f"{os.getpid()}\\n")
    time.sleep(0.3)
    return {layer: {"x": torch.randn(50, 50)} for layer in layers}

print("ready", flush=True)
while not (directory / "go").exists():
    time.sleep(0.005)
store = Store(directory / "store")
found = store.fetch_many("x", {n: {"layer": n} for n in range(5)}, make, code=[errors])
print(tensor_digest(*(entry["x"] for entry in found.values())), store.hits, store.misses)
"""


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_concurrent_jobs_compute_an_entry_once(tmp_path: Path) -> None:
    jobs = [started(JOB, tmp_path) for _ in range(3)]
    try:
        for job in jobs:
            assert job.stdout
            assert job.stdout.readline() == "ready\n"
        (tmp_path / "go").touch()
        said = [job.communicate(timeout=PATIENCE_S)[0].split() for job in jobs]
    finally:
        for job in jobs:
            job.kill()
            job.communicate()
    assert len((tmp_path / "computed").read_text().split()) == 1
    assert len({digest for digest, _, _ in said}) == 1
    counts = sorted((int(hits), int(misses)) for _, hits, misses in said)
    assert counts == [(0, 5), (5, 0), (5, 0)]
    assert len(entries(tmp_path / "store")) == 5
    assert not temporaries(tmp_path / "store")


STOPPED_WRITER = """
import os, sys, time
from pathlib import Path
import torch
from mech_arith.common import errors
from mech_arith.common.store import Store

def hang(descriptor):
    print("writing", flush=True)
    time.sleep(600)

os.fsync = hang
Store(Path(sys.argv[1])).fetch("components", {"n": 1}, lambda: {"x": torch.ones(9)}, code=[errors])
"""


def test_a_killed_writer_leaves_a_temporary_that_is_swept_when_old(tmp_path: Path) -> None:
    job = started(STOPPED_WRITER, tmp_path)
    assert job.stdout
    assert job.stdout.readline() == "writing\n"
    job.send_signal(signal.SIGKILL)
    job.communicate(timeout=PATIENCE_S)
    assert not entries(tmp_path)
    (left,) = temporaries(tmp_path)

    store = Store(tmp_path, patience_s=0.0)
    made = store.fetch("components", {"n": 1}, lambda: MADE, code=CODE)
    assert_same(made, MADE)
    (path,) = entries(tmp_path)
    assert path.parent == left.parent
    assert left.exists(), "it might have been another's, at work"
    long_ago = time.time() - ABANDONED_S - 60
    os.utime(left, (long_ago, long_ago))
    path.unlink()
    kept(tmp_path, {"n": 1})
    assert not temporaries(tmp_path)
