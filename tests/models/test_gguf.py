"""Models in GGUF files: held against the models that the files were written from."""

import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.common.file_digests import file_digest
from mech_arith.models.kinds import ModelChoice, find_loader
from mech_arith.models.language.gguf_config import read_config
from mech_arith.models.language.gguf_conversion import (
    RECORD,
    converted_dir,
    converted_model,
    read_tokenizer,
)
from mech_arith.models.language.gguf_digits import LLAMA3, DigitRule, DigitTable, read_digits
from mech_arith.models.language.gguf_file import read_gguf
from mech_arith.models.language.loading import LoadedModel, load_pretrained
from tests.ggufs import MODELS, long_ago, write_gguf

ROOT = Path(__file__).resolve().parents[2]
T5 = {
    "t5.block_count": 2,
    "t5.embedding_length": 32,
    "t5.feed_forward_length": 64,
    "t5.attention.head_count": 4,
}
TEXT = "12-(345+6) =  7, 8-(9-10)\n"  # longer than the sliding window


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store; returns where converted files would be."""
    monkeypatch.setenv("MECH_ARITH_STORE", str(tmp_path / "store"))
    return tmp_path / "store" / "models" / "gguf"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A tiny Llama."""
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    return path


def load(file: Path) -> LoadedModel:
    return load_pretrained(
        "gguf",
        path=converted_model(file),
        hub=None,
        revision=None,
        dtype=None,
        device="cpu",
        device_map=None,
    )


# What comes out.


@pytest.mark.parametrize(
    ("model", "tokenizer", "quantised"),
    [
        *((model, "spm" if model == "gemma3" else "apart", False) for model in MODELS),
        ("llama", "threes", True),
        ("qwen2", "runs", True),
    ],
)
def test_logits_are_those_of_the_model_that_was_written(
    model: str, tokenizer: str, quantised: bool, tmp_path: Path
) -> None:
    path = tmp_path / "file.gguf"
    reference = write_gguf(path, model, tokenizer=tokenizer, quantised=quantised)
    loaded = load(path)
    tokens = loaded.tokenizer(TEXT, return_tensors="pt").input_ids
    with torch.inference_mode():
        logits, wanted = loaded.model(tokens).logits, reference(tokens).logits
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)
    assert wanted.std() > 0.5
    assert loaded.model.dtype == torch.float32
    assert loaded.model.config.tie_word_embeddings == reference.config.tie_word_embeddings


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    {
        "apart": "1 2 -( 3 4 5 + 6 ) Ġ= ĠĠ 7",
        "threes": "12 - ( 345 + 6 ) Ġ= Ġ Ġ 7",
        "runs": "12 - ( 34 5 + 6 ) Ġ = Ġ Ġ7",
        "spm": "<s> 1 2 - ( 3 4 5 + 6 ) ▁= ▁▁ 7",
    }.items(),
)
def test_the_tokenizer(tokenizer: str, words: str, tmp_path: Path) -> None:
    # Only `smollm` puts both blanks before the 7 together: digits are split off first.
    pre = "smollm" if tokenizer == "apart" else None
    write_gguf(tmp_path / "file.gguf", tokenizer=tokenizer, pre=pre)
    found = load(tmp_path / "file.gguf").tokenizer
    ids = found("12-(345+6) =  7").input_ids
    assert found.convert_ids_to_tokens(ids) == words.split(" ")
    assert (found.bos_token, found.eos_token) == ("<s>", "</s>")
    chat = found.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert str(chat).startswith("<|im_start|>system\nYou count.")


@pytest.mark.parametrize("said", [None, False])
def test_llama3_begins_with_a_bos_unless_the_file_says_otherwise(
    said: bool | None, tmp_path: Path
) -> None:
    settings = {"tokenizer.ggml.add_bos_token": said}
    write_gguf(tmp_path / "file.gguf", tokenizer="threes", settings=settings)
    ids = read_tokenizer(read_gguf(tmp_path / "file.gguf"))("12").input_ids
    assert len(ids) == (2 if said is None else 1)


def test_it_is_converted_once(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mech_arith")
    directory = converted_model(file)
    moved = file.rename(tmp_path / "moved.bin")  # what it is called does not count
    assert converted_model(moved) == directory
    assert caplog.text.count("converting") == 1
    write_gguf(tmp_path / "other.gguf", seed=1)
    assert converted_model(tmp_path / "other.gguf") != directory
    record = json.loads((directory / RECORD).read_text())
    assert record["gguf"] == file_digest(moved)
    assert record["weights"] == load(moved).digest
    assert len({path.stat().st_mode for path in directory.iterdir()}) == 1  # for whoever may read


def test_as_many_heads_of_keys_as_of_queries_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    settings = {"qwen2.attention.head_count_kv": None}
    write_gguf(tmp_path / "file.gguf", "qwen2", settings=settings)
    assert read_config(read_gguf(tmp_path / "file.gguf")).num_key_value_heads == 4


def test_a_file_under_any_name(file: Path, tmp_path: Path) -> None:
    assert load(file.rename(tmp_path / "blob")).model.config.model_type == "llama"


def test_the_loader(file: Path) -> None:
    loader = find_loader("gguf")
    choice = ModelChoice("gguf", "gguf", path=file, own_style="spaced", shots=2)
    loader.check(choice)
    assert loader.files(choice) == (file,)
    assert loader.prompt_name(choice) == "spaced, 2 shots"
    assert loader.prompt_name(replace(choice, style="qa")) == "qa, 2 shots"
    assert loader.prompt_name(replace(choice, own_style=None)) == "comma, 2 shots"
    for change, said in (
        ({"path": None}, r"expected model\.path, a GGUF file, got none; set model\.path=FILE\.gg"),
        ({"hub": "a/b"}, r"expected no model\.hub for a GGUF file, got 'a/b'; leave it out"),
    ):
        with pytest.raises(UserError, match=said):
            loader.check(replace(choice, **change))


# At once, killed, damaged.


def left_in(store: Path) -> list[str]:
    return sorted(path.name for path in store.iterdir() if not path.name.endswith(".lock"))


def test_two_at_once_convert_it_once(
    file: Path, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mech_arith")
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(converted_model(file))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [converted_dir(file_digest(file))] * 3
    assert caplog.text.count("converting") == 1
    assert left_in(store) == [found[0].name]


def test_what_a_killed_conversion_has_left_is_cleared(file: Path, store: Path) -> None:
    target = converted_dir(file_digest(file))
    left = store / f".{target.name}.0123456789abcdef.tmp"
    left.mkdir(parents=True)
    long_ago(left)
    other = store / f".{'0' * 64}.0123456789abcdef.tmp"  # another file's, at work perhaps
    other.mkdir()
    again = store / f".{target.name}.fedcba9876543210.tmp"  # where locks lie, at work perhaps
    again.mkdir()
    converted_model(file)
    assert left_in(store) == sorted([other.name, again.name, target.name])


@pytest.mark.slow
def test_killed_in_the_middle_then_run_twice_at_once(file: Path, store: Path) -> None:
    command = [sys.executable, "-m", "tests.models.test_gguf", str(file)]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    target = converted_dir(file_digest(file))
    with start() as killed:
        while killed.poll() is None and not list(store.glob(f".{target.name}.*.tmp")):
            pass
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    for left in store.glob(f".{target.name}.*.tmp"):
        long_ago(left)
    both = [start(), start()]
    assert [process.communicate()[0].strip() for process in both] == [str(target)] * 2
    assert left_in(store) == [target.name]
    assert load(file).model.config.model_type == "llama"


def test_a_conversion_that_was_altered(file: Path) -> None:
    weights = converted_model(file) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"weights with digest .*; remove .*, so that the file is"):
        load(file)
    shutil.rmtree(weights.parent)
    load(file)


def test_a_store_that_cannot_be_written(file: Path, store: Path) -> None:
    store.parent.parent.mkdir()
    store.parent.touch()
    with pytest.raises(UserError, match=r"expected to write a converted model in .*; free the"):
        converted_model(file)


# Files that are wrong, each in one line, before weights are read.


def refused(path: Path, said: str, read: Any = read_gguf) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.gguf", r"expected a GGUF file at .*none\.gguf, found none; set")
    refused(tmp_path, r"expected a GGUF file at .*, found a directory; set model\.path=FILE\.gguf")


def test_another_kind_of_file(tmp_path: Path) -> None:
    path = tmp_path / "file.gguf"
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\n", b"GGML"):
        path.write_bytes(content)
        said = re.escape(f"begins with {content[:4]!r} and not with b'GGUF'; set model.path=")
        refused(path, said)


def test_another_version_or_byte_order(file: Path) -> None:
    whole = file.read_bytes()
    for version in (b"\x01\0\0\0", b"\0\0\0\x03"):
        file.write_bytes(whole[:4] + version + whole[8:])
        refused(file, "expected a whole GGUF header in .*, got .*this reader handles v2 and v3")


def test_truncated_anywhere(file: Path) -> None:
    """Cut in the counts, the settings, the tokens, the table of tensors, the weights."""
    whole = file.read_bytes()
    weights = read_gguf(file).tensors["token_embd.weight"].offset
    cuts = [5, 23, 40, 200, 700, 5000, *range(6000, weights, 1500), weights - 40]
    for cut in cuts:
        file.write_bytes(whole[:cut])
        refused(file, "expected (a whole GGUF header|[0-9]+ bytes) in .*; copy or download")
    for cut in (weights, (weights + len(whole)) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        refused(file, rf"expected {len(whole)} bytes in .*, got {cut}: the file is truncated")


def test_noise_behind_the_magic(file: Path) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        noise = generator.integers(0, 256, 500, dtype=np.uint8).tobytes()
        file.write_bytes(b"GGUF\x03\0\0\0" + (12).to_bytes(8, "little") * 2 + noise)
        refused(file, "expected a whole GGUF header in .*; copy or download the file again")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"general.architecture": "clip"}, "reads in .*, got 'clip'; known are bloom, .*, gemma3"),
        ({"tokenizer.ggml.model": "rwkv"}, r"reads in .* \(gpt2, .*\), got 'rwkv'; take the Hugg"),
        ({"tokenizer.ggml.model": None}, "a tokenizer that transformers .* got None; take"),
        ({"tokenizer.ggml.tokens": None}, "expected the tokenizer's tokens in .*, found none"),
        ({"llama.block_count": None}, r"expected llama\.block_count in .*, found none; copy"),
        ({"split.count": 3}, "expected a whole model in .*, got one of 3 parts; join them"),
    ],
)
def test_a_header_that_cannot_be_used(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "file.gguf", settings=settings)
    refused(tmp_path / "file.gguf", said)


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        # transformers would take the default, or leave it out, and answer all the same.
        (
            "gemma3",
            {"settings": {"gemma3.rope.scaling.factor": 8.0}},
            r"expected settings that transformers .* got gemma3\.rope\.scaling\.factor=8\.0; take",
        ),
        (
            "qwen2",
            {"settings": {"qwen2.attention.key_length": 16}},
            r"got qwen2\.attention\.key_length=16; take the Hugging Face directory",
        ),
        (
            "llama",
            {"tensors": {"blk.0.attn_q.bias": np.zeros(32, dtype=np.float32)}},
            r"expected [0-9]+ numbers for LlamaForCausalLM in .*does not read all of them; take",
        ),
        (
            "llama",
            {"tensors": {"rope_freqs.weight": np.linspace(1, 8, 4, dtype=np.float32)}},
            r"expected the rotary factors of Llama 3\.1 to 3\.3 in .*, got others; take",
        ),
        (
            "llama",
            {"tensors": {"blk.1.ffn_up.weight": None}},
            r"expected all weights of LlamaForCausalLM in .*, 1 are missing .model\.layers\.1\.mlp",
        ),
        (
            "llama",
            {"settings": {"llama.embedding_length": 64}},
            "expected weights of LlamaForCausalLM in .*, got RuntimeError",
        ),
        (
            "llama",
            {"settings": {"tokenizer.ggml.merges": ["a"]}},
            r"expected a tokenizer that transformers reads in .*, got ",
        ),
        (
            "llama",
            {"settings": {"general.architecture": "t5", **T5}},
            "expected a causal language model in .*, got t5; choose a model that continues text",
        ),
    ],
)
def test_a_model_that_would_be_another_one(
    model: str, changes: dict[str, Any], said: str, tmp_path: Path, store: Path
) -> None:
    write_gguf(tmp_path / "file.gguf", model, **changes)
    refused(tmp_path / "file.gguf", said, converted_model)
    assert not left_in(store)


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_a_package_is_missing(package: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    refused(file, f"expected the package {package}, .* install it with `pip install {package}`")


def test_a_disk_that_is_full(file: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    refused(file, r"expected 0\.0 GB free in .* for tiny\.gguf in float32, found", converted_model)
    assert not left_in(store)


# How digits are split.


def table(rule: DigitRule, *merges: str, blank: str = "Ġ", whole: bool = False) -> DigitTable:
    pairs = [tuple(merge.split()) for merge in merges]
    tokens = frozenset({*"0123456789", *("".join(pair) for pair in pairs)})
    ranks = {(a, b): float(i) for i, (a, b) in enumerate(pairs)}
    return DigitTable(tokens, blank, ranks, rule, whole)


def test_splits_by_hand() -> None:
    merges = ("2 3", "1 2", "12 3", "Ġ 1", "Ġ1 2")
    apart = table(DigitRule.APART, *merges)
    assert apart.split("123", after_blank=True) == ["Ġ", "1", "2", "3"]
    threes = table(DigitRule.THREES, *merges)
    assert threes.split("1234", after_blank=False) == ["1", "23", "4"]  # 2 3 comes before 1 2
    assert threes.split("12312", after_blank=False) == ["1", "23", "12"]
    whole = table(DigitRule.THREES, *merges, whole=True)
    assert whole.split("12312", after_blank=True) == ["Ġ", "123", "12"]
    runs = table(DigitRule.RUNS, *merges)
    assert runs.split("12", after_blank=False) == ["12"]
    assert runs.split("12", after_blank=True) == ["Ġ", "12"]  # 1 2 comes before Ġ 1
    assert runs.split("14", after_blank=True) == ["Ġ1", "4"]


@pytest.mark.parametrize(
    ("tokenizer", "pre", "rule"),
    [
        ("apart", "qwen2", DigitRule.APART),
        ("apart", "unheard-of", DigitRule.APART),  # nothing could be merged
        ("apart", "", DigitRule.APART),
        ("spm", None, DigitRule.APART),
        ("threes", "llama-bpe", DigitRule.THREES),
        ("runs", "gpt-2", DigitRule.RUNS),
    ],
)
def test_the_rule_of_a_file(tokenizer: str, pre: str, rule: DigitRule, tmp_path: Path) -> None:
    write_gguf(tmp_path / "file.gguf", tokenizer=tokenizer, pre=pre)
    file = read_gguf(tmp_path / "file.gguf")
    assert read_digits(file).rule is rule
    read_tokenizer(file)  # transformers' does the same


@pytest.mark.parametrize(
    ("tokenizer", "pre", "said"),
    [
        # transformers takes GPT-2's rule for a name that it does not know.
        (
            "runs",
            "deepseek-v3",
            r"expected the number in '1234' as 12 3 4, .* got 12 34 .*pre='deepseek-v3'",
        ),
        ("runs", "unheard-of", "expected a file whose rule for digits is known .*pre='unheard-of'"),
        ("runs", "", "expected a file whose rule for digits is known .*pre=None and tokens such"),
    ],
)
def test_digits_that_are_split_otherwise(
    tokenizer: str, pre: str, said: str, tmp_path: Path
) -> None:
    write_gguf(tmp_path / "file.gguf", tokenizer=tokenizer, pre=pre)
    refused(tmp_path / "file.gguf", said, converted_model)


def test_pieces_that_are_tokens_are_not_merged_in_llama3(tmp_path: Path) -> None:
    """By the merges alone 100 would be 1 00: 0 0 comes before 1 0."""
    write_gguf(tmp_path / "file.gguf", tokenizer="threes")
    tokenizer = read_tokenizer(read_gguf(tmp_path / "file.gguf"))
    assert tokenizer.tokenize("100 1000") == ["100", "Ġ", "100", "0"]
    assert "llama-bpe" in LLAMA3


def test_a_digit_that_is_no_token(tmp_path: Path) -> None:
    path = tmp_path / "file.gguf"
    write_gguf(path)
    words = read_gguf(path).texts("tokenizer.ggml.tokens") or []
    without = [word if word != "7" else "sept" for word in words]
    write_gguf(path, settings={"tokenizer.ggml.tokens": without})
    refused(
        path, "expected a token for each digit in .*, found none for 7; choose", converted_model
    )


if __name__ == "__main__":
    print(converted_model(Path(sys.argv[1])))
