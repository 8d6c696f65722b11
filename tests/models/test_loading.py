"""Loading of pretrained models: every architecture, every way to fail."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    T5Config,
)

from mech_arith.common.errors import UserError
from mech_arith.models.language.hf_files import quiet, weights_digest
from mech_arith.models.language.loading import DTYPES, LoadedModel, load_pretrained, load_tokenizer
from mech_arith.models.language.packaged import PACKAGED
from tests.lms import ARCHITECTURES, TOKENIZERS, smollm2, tiny_lm, tiny_tokenizer

__all__ = ["smollm2"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]
TEXT = "12-(345+6) = 7, 8-(9-10)\n"  # longer than the sliding windows


def load(path: Path | None, name: str = "hf_dir", **options: Any) -> LoadedModel:
    """`load_pretrained` as for model=hf_dir on the CPU."""
    plain = {"hub": None, "revision": None, "dtype": None, "device": "cpu", "device_map": None}
    return load_pretrained(name, path=path, **(plain | options))


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return tiny_lm("llama", tmp_path / "llama")


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | changes))


# What comes out.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_logits_are_those_of_transformers_and_of_the_bridge(
    architecture: str, tmp_path: Path
) -> None:
    directory = tiny_lm(architecture, tmp_path)
    loaded = load(directory)
    tokens = loaded.tokenizer(TEXT, return_tensors="pt").input_ids
    with quiet():
        reference = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager")
        bridge = TransformerBridge.boot_transformers(
            str(directory), tokenizer=loaded.tokenizer, dtype=torch.float32
        )
    with torch.inference_mode():
        logits = loaded.model(tokens).logits
        torch.testing.assert_close(logits, reference(tokens).logits, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(logits, bridge(tokens), atol=2e-5, rtol=1e-4)
    assert logits.std() > 0.5  # else agreement would say little
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])  # transformers would replace Qwen2's
def test_the_tokenizer_is_the_one_in_the_directory(
    architecture: str, kind: str, tmp_path: Path
) -> None:
    found = load_tokenizer(tiny_lm(architecture, tmp_path, tokenizer=kind))
    made = tiny_tokenizer(kind)
    assert found(TEXT).input_ids == made(TEXT).input_ids
    assert found.eos_token_id == made.eos_token_id
    assert found.chat_template == made.chat_template
    assert (found(TEXT).input_ids[0] == made.bos_token_id) == (kind == "bos")


def test_a_tokenizer_without_tokenizer_json_is_built_from_its_vocabulary(tmp_path: Path) -> None:
    directory = tiny_lm("gpt2", tmp_path, tokenizer="spaced")
    model = json.loads((directory / "tokenizer.json").read_text())["model"]
    (directory / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(merge) for merge in model["merges"])
    (directory / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    assert load_tokenizer(directory).tokenize("3 + 12") == ["3", "Ġ+", "Ġ12"]


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_dtype(name: str, llama: Path) -> None:
    model = load(llama, dtype=name).model
    assert {p.dtype for p in model.parameters()} == {getattr(torch, name)}


def test_no_dtype_is_the_one_of_the_weights(llama: Path) -> None:
    load(llama, dtype="bfloat16").model.save_pretrained(llama)
    assert load(llama).model.dtype == torch.bfloat16


def test_a_device_map_places_the_model(llama: Path) -> None:
    loaded = load(llama, device=None, device_map="auto")
    tokens = loaded.tokenizer(TEXT, return_tensors="pt").input_ids.to(loaded.model.device)
    plain = load(llama).model(tokens.cpu()).logits
    torch.testing.assert_close(loaded.model(tokens).logits.cpu(), plain, atol=1e-4, rtol=1e-4)


def test_loading_says_nothing(llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(llama)
    assert capfd.readouterr() == ("", "")


def test_the_digest_is_of_the_weights(llama: Path, tmp_path: Path) -> None:
    again, other = tiny_lm("llama", tmp_path / "b"), tiny_lm("llama", tmp_path / "c", seed=1)
    change_config(again, max_position_embeddings=64)
    assert load(llama).digest == load(again).digest != load(other).digest


def test_shards_load_and_their_names_count(llama: Path, tmp_path: Path) -> None:
    whole, shards = load(llama), tmp_path / "shards"
    with quiet():
        whole.model.save_pretrained(shards, max_shard_size="50KB")
        whole.tokenizer.save_pretrained(shards)
    assert len(list(shards.glob("*.safetensors"))) > 1
    loaded = load(shards)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[name])
    assert loaded.digest != whole.digest


def test_weights_in_another_format_beside_them_do_not_count(llama: Path) -> None:
    before = weights_digest(llama)
    save_file({"x": torch.zeros(1)}, llama / "consolidated.safetensors")
    assert weights_digest(llama) == before


# Directories that are wrong, each in one line.


def check_refused(directory: Path | None, said: str, **options: Any) -> None:
    with pytest.raises(UserError, match=said) as caught:
        load(directory, **options)
    assert "\n" not in str(caught.value)


def test_no_directory(tmp_path: Path) -> None:
    check_refused(tmp_path / "none", r"expected a model's directory at .*none, found none; set")
    (tmp_path / "file").touch()
    check_refused(tmp_path / "file", r"found a file; set model\.path=DIR$")
    (tmp_path / "a.gguf").touch()
    check_refused(tmp_path / "a.gguf", "found a file; set .*DIR, or model=gguf for this file$")
    check_refused(None, "expected model.path=DIR .* for model=hf_dir, got none")


def test_no_config(llama: Path) -> None:
    (llama / "config.json").write_text("{")
    check_refused(llama, "with config.json in .*, got Expecting property name")
    (llama / "config.json").write_text("[]")
    check_refused(llama, "expected a JSON object in .*config.json, got list")
    (llama / "config.json").unlink()
    check_refused(llama, "expected a Hugging Face model with config.json in .*No such file")


def test_no_tokenizer(llama: Path) -> None:
    (llama / "tokenizer.json").write_text('{"model": 3}')
    check_refused(llama, "expected a tokenizer in .*, got ")
    (llama / "tokenizer.json").unlink()
    check_refused(llama, r"expected a tokenizer \(tokenizer.json\) in .*, found none; save it")


def test_a_slow_tokenizer(tmp_path: Path) -> None:
    directory = tiny_lm("gpt2", tmp_path)
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.json").write_text(json.dumps({"a": 0, "<unk>": 1}))
    settings = {"tokenizer_class": "CTRLTokenizer", "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "merges.txt").write_text("#version: 0.2\n\n")
    check_refused(directory, "expected a fast tokenizer .* got the slow CTRLTokenizer")


def test_no_weights(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    check_refused(llama, "expected model.safetensors in .*, found no weights; save the model as")
    (llama / "pytorch_model.bin").touch()
    check_refused(llama, "found only pytorch_model.bin, which are not read; save the model as")
    (llama / "a.gguf").touch()
    check_refused(llama, r"found only a\.gguf, py.*; set model=gguf model\.path=.*llama/a\.gguf")


def test_a_missing_shard(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": torch.zeros(1)}, llama / "model-1.safetensors")
    check_refused(llama, "names in .*, model-2.safetensors missing; copy or download")


def test_truncated_weights(llama: Path) -> None:
    whole = (llama / "model.safetensors").read_bytes()
    (llama / "model.safetensors").write_bytes(whole[:-100])
    check_refused(llama, "expected whole safetensors at .*, got .*; copy or download")


def test_weights_of_another_shape_or_incomplete(llama: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file(tensors | {name: torch.zeros(3, 3)}, llama / "model.safetensors", {"format": "pt"})
    check_refused(llama, "expected weights of LlamaForCausalLM in .*, got RuntimeError")
    del tensors[name]
    save_file(tensors, llama / "model.safetensors", {"format": "pt"})
    check_refused(llama, f"expected all weights .* 1 are missing .{re.escape(name)}")


def test_a_config_that_contradicts_itself(llama: Path) -> None:
    change_config(llama, hidden_size="wide")
    check_refused(llama, "expected a configuration of LlamaForCausalLM in .*, got ")


def test_a_masked_language_model(llama: Path) -> None:
    config = AutoConfig.for_model(
        "bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=10
    )
    with quiet():
        AutoModelForMaskedLM.from_config(config).save_pretrained(llama)
    check_refused(llama, "expected a causal language model in .*, got BertForMaskedLM; choose")
    change_config(llama, architectures=["BertLMHeadModel"])
    check_refused(llama, "got BertLMHeadModel; choose")


def test_an_encoder_decoder(llama: Path) -> None:
    config = T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=10)
    with quiet():
        AutoModelForSeq2SeqLM.from_config(config).save_pretrained(llama)
    check_refused(llama, "causal language model in .*, got T5ForConditionalGeneration; choose")


def test_an_architecture_that_transformer_lens_does_not_know(llama: Path) -> None:
    change_config(llama, model_type="helium", architectures=["HeliumForCausalLM"])
    check_refused(llama, "TransformerLens knows in .*, got HeliumForCausalLM; choose a model such")


def test_a_model_without_attention(llama: Path) -> None:
    config = {"model_type": "mamba", "architectures": ["MambaForCausalLM"], "hidden_size": 16}
    (llama / "config.json").write_text(json.dumps(config))
    check_refused(llama, "expected a Transformer with attention heads in .*, got MambaForCausalLM")


def test_remote_code(llama: Path) -> None:
    change_config(llama, model_type="mine", auto_map={"AutoConfig": "evil.Config"})
    (llama / "evil.py").write_text("raise SystemExit('executed')")
    check_refused(llama, "transformers .* knows in .*, got 'mine'; it asks for code of its own")
    change_config(llama, model_type="llama", architectures=["MineForCausalLM"])
    check_refused(llama, "got MineForCausalLM; it asks for code of its own .* never run")
    # Where the class is one of transformers', that one is used.
    change_config(llama, architectures=["LlamaForCausalLM"])
    assert load(llama).model.config.model_type == "llama"


def test_an_unknown_model_type(llama: Path) -> None:
    change_config(llama, model_type="mine")
    check_refused(llama, "got 'mine'; choose another model")


def test_quantised_weights(llama: Path) -> None:
    change_config(llama, quantization_config={"quant_method": "gptq"})
    check_refused(llama, "expected weights in float32, .*, got quantised ones; choose")


# Where it is to be put.


def test_placement(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_refused(llama, "unknown dtype 'int8'; expected one of: float32", dtype="int8")
    check_refused(llama, "unknown device 'tpu'", device="tpu")
    check_refused(llama, "unknown device 'None'", device=None)
    check_refused(llama, "unknown model.device_map 'x'", device=None, device_map="x")
    check_refused(llama, "either a device or model.device_map, got device=cpu", device_map="auto")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    check_refused(llama, "install it with `pip install acc", device=None, device_map="auto")


def test_more_gpus_than_there_are(llama: Path) -> None:
    check_refused(llama, r"expected a GPU for device=cuda:99, found \d+; choose", device="cuda:99")


# Hugging Face's cache.

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds one repository, owner/tiny, at one commit, which is also its branch."""
    directory = tmp_path / "hub"
    repository = directory / "models--owner--tiny"
    tiny_lm("gpt2", repository / "snapshots" / REVISION)
    (repository / "refs").mkdir()
    (repository / "refs" / "step143000").write_text(REVISION)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(directory))
    return directory


@pytest.mark.parametrize("revision", [REVISION, "step143000"])
def test_a_cached_repository_loads_offline(cache: Path, revision: str) -> None:
    loaded = load(None, "tiny", hub="owner/tiny", revision=revision)
    assert loaded.digest == weights_digest(cache / "models--owner--tiny" / "snapshots" / REVISION)


def test_a_path_wins_over_the_hub(llama: Path) -> None:
    assert load(llama, "gpt2", hub="owner/none").model.config.model_type == "llama"


def test_offline_and_not_in_the_cache(cache: Path) -> None:
    said = (
        "expected owner/tiny at revision 9{40} in the cache .*hub .see HF_HOME., found none: "
        "the hub is not contacted; set model.path=DIR to a local copy, or HF_HUB_OFFLINE=0 .*HF_TO"
    )
    check_refused(None, said, name="tiny", hub="owner/tiny", revision="9" * 40)
    check_refused(None, "expected owner/x at revision main", hub="owner/x")
    check_refused(None, "as OWNER/NAME in model.hub, got 'a/b/c'", hub="a/b/c")


@pytest.mark.slow
def test_online_and_out_of_reach(tmp_path: Path) -> None:
    code = (
        "from tests.models.test_loading import load\n"
        "from mech_arith.common.errors import UserError\n"
        "try: load(None, hub='owner/x')\n"
        "except UserError as error: print(error)\n"
    )
    environment = os.environ | {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    said = done.stdout.strip()
    assert "\n" not in said
    assert f"expected owner/x at revision main in the cache {tmp_path}" in said, done.stderr
    assert "not contacted" not in said


def test_named_models_are_pinned() -> None:
    files = sorted((ROOT / "conf" / "model").glob("*.yaml"))
    models: list[Any] = [OmegaConf.to_object(OmegaConf.load(file)) for file in files]
    named = [model for model in models if model.get("hub") is not None]
    assert len(named) > 10
    for model in named:
        assert re.fullmatch("[0-9a-f]{40}", model["revision"]), model["name"]
        assert model["dtype"] in DTYPES


# SmolLM2.


def test_smollm2_adds(smollm2: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load(None, "smollm2_135m", dtype="float32")
    assert loaded.digest == PACKAGED["smollm2_135m"].weights_digest
    assert sum(p.numel() for p in loaded.model.parameters()) == 134_515_008
    shots = [(1, 4), (2, 2), (5, 3), (6, 1), (3, 4), (2, 7), (1, 1), (4, 2)]
    text = "".join(f"{a} + {b} = {a + b}, " for a, b in shots) + "3 + 5 = "
    tokens = loaded.tokenizer(text, return_tensors="pt").input_ids
    with torch.inference_mode():
        answer = loaded.model(tokens).logits[0, -1].argmax().item()
    assert loaded.tokenizer.decode([answer]) == "8"
    assert capfd.readouterr() == ("", "")


def test_smollm2_has_its_tokenizer(smollm2: Path) -> None:
    tokenizer = load_tokenizer(smollm2)
    # With digits split off first, the blanks before them stay together.
    assert tokenizer.tokenize("a 12-(3-45) =  67") == [
        *("a", "Ġ", "1", "2", "-(", "3", "-", "4", "5", ")", "Ġ=", "ĠĠ", "6", "7"),
    ]
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert "named SmolLM" in str(chat)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store; returns where the model would be."""
    monkeypatch.setenv("MECH_ARITH_STORE", str(tmp_path / "store"))
    return PACKAGED["smollm2_135m"].directory


def test_smollm2_is_not_there(store: Path) -> None:
    said = (
        "expected smollm2_135m in .*, found none; run `python scripts/fetch_models.py smollm2_135m`"
    )
    check_refused(None, said, name="smollm2_135m")


def test_smollm2_is_altered(store: Path) -> None:
    tiny_lm("llama", store)
    said = (
        "expected weights with digest .*, got .*; run `python scripts/fetch_models.py smollm2_135m`"
    )
    check_refused(None, said, name="smollm2_135m")
