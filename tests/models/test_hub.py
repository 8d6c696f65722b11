"""Models of the hub, through Hugging Face's own client, from a hub on this machine."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mech_arith.common.errors import UserError
from mech_arith.models.kinds import ModelChoice, find_loader
from mech_arith.models.language import hub as hub_module
from mech_arith.models.language.hub import commit_of, is_repository
from tests.hub_server import COMMIT, Hub, serving
from tests.lms import tiny_lm

ROOT = Path(__file__).parents[2]

ASK = """
import sys
from mech_arith.common.errors import UserError
from mech_arith.models.language.hub import commit_of, fetched
for hub in sys.argv[1:]:
    name, _, revision = hub.partition("@")
    try:
        found = fetched(name, revision or None)
        print(commit_of(found), sorted(path.name for path in found.iterdir()))
    except UserError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tiny_lm("gpt2", tmp_path_factory.mktemp("served"))
    (directory / "pytorch_model.bin").write_bytes(b"never read")
    return directory


def fetch(endpoint: str, home: Path, *hubs: str, offline: bool = False) -> list[str]:
    """What comes of each OWNER/NAME@REVISION, one line each."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    environment |= {
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "NO_PROXY": "*",
    }
    command = [sys.executable, "-c", ASK, *hubs]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(hubs), done.stdout + done.stderr
    return lines


@pytest.mark.slow
def test_a_repository_is_downloaded_once_and_found_without_the_hub(model, tmp_path):
    with serving(Hub({"owner/tiny": model})) as hub:
        (found,) = fetch(hub.endpoint, tmp_path, "owner/tiny")
        assert found.startswith(COMMIT)
        assert "model.safetensors" in found
        assert "pytorch_model.bin" not in found
        hub.asked.clear()
        assert fetch(hub.endpoint, tmp_path, f"owner/tiny@{COMMIT}") == [found]
        assert hub.asked == []  # a commit does not move
        assert fetch(hub.endpoint, tmp_path, "owner/tiny") == [found]
        assert any("revision/main" in path or path.endswith("owner/tiny") for path in hub.asked)
        hub.asked.clear()
        assert fetch(hub.endpoint, tmp_path, "owner/tiny", offline=True) == [found]
        assert hub.asked == []
    assert fetch(hub.endpoint, tmp_path, "owner/tiny") == [found]  # the server is gone


@pytest.mark.slow
def test_what_the_hub_refuses_is_one_line(model, tmp_path):
    served = Hub({"owner/tiny": model, "meta/gated": model}, gated={"meta/gated"})
    with serving(served) as hub:
        gated, branch, unknown = fetch(
            hub.endpoint, tmp_path, "meta/gated", "owner/tiny@step9", "owner/none"
        )
    assert f"gated; ask for it at {hub.endpoint}/meta/gated, then set HF_TOKEN" in gated
    assert "expected a revision of owner/tiny, got 'step9', which it does not have" in branch
    assert "expected a repository of the hub, got owner/none, which is not there or priv" in unknown


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_one_line_after_a_while(tmp_path):
    with serving(Hub({}, silent=True)) as hub:
        (said,) = fetch(hub.endpoint, tmp_path, "owner/tiny")
    assert f"expected owner/tiny at revision main in the cache {tmp_path}" in said
    assert "found none: " in said
    (said,) = fetch("http://127.0.0.1:9", tmp_path, "owner/tiny")
    assert "expected owner/tiny at revision main" in said
    assert "cannot be reached" in said


@pytest.mark.slow
def test_a_download_that_breaks_off_is_said_and_goes_on(model, tmp_path):
    with serving(Hub({"owner/tiny": model}, cut="tokenizer.json")) as hub:
        (said,) = fetch(hub.endpoint, tmp_path, "owner/tiny")
        assert "expected to download all of owner/tiny" in said
        assert "start again" in said
        (said,) = fetch(hub.endpoint, tmp_path, "owner/tiny", offline=True)
        assert "expected owner/tiny at revision main" in said
        assert "found a part of it" in said
        hub.cut = ""
        (found,) = fetch(hub.endpoint, tmp_path, "owner/tiny")
    assert found.startswith(COMMIT)


def test_without_a_network_a_model_is_refused_in_seconds(tmp_path):
    """Imports come on top of the wait: those of transformers take as long as all others."""
    assert hub_module.ANSWER_S <= 8
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mech_arith.common.errors import UserError\n"
        "from mech_arith.models.kinds import ModelChoice, find_loader\n"
        "try:\n"
        "    find_loader('hf').files(ModelChoice('hf', 'hf', Path('owner/tiny')))\n"
        "except UserError as error:\n"
        "    print(error)\n"
        "print([name for name in ('transformers', 'transformer_lens') if name in sys.modules])\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    said, imported = done.stdout.splitlines()
    assert "expected owner/tiny at revision main in the cache" in said
    assert imported == "[]"


def test_a_thread_that_hangs_is_left(monkeypatch):
    with pytest.raises(OSError, match=r"does not answer within 0\.01 s"):
        hub_module._within(0.01, lambda: str(time.sleep(60)))


def test_the_commit_is_that_of_a_snapshot():
    assert commit_of(Path("models--a--b/snapshots") / COMMIT) == COMMIT
    assert commit_of(Path("models--a--b/snapshots/main")) is None
    assert commit_of(Path("elsewhere") / COMMIT) is None


def test_names_of_the_hub():
    assert all(is_repository(name) for name in ("a/b", "Qwen/Qwen2.5-0.5B", "meta-llama/Llama_3"))
    assert not any(is_repository(name) for name in ("a", "a/b/c", "./a", "../a", "/a/b", "~/a"))


def choice(path: object, **more: object) -> ModelChoice:
    return ModelChoice("hf", "hf", None if path is None else Path(str(path)), **more)  # type: ignore[arg-type]


def test_one_path_names_a_directory_or_a_repository(model, tmp_path, monkeypatch):
    loader = find_loader("hf")
    assert {path.parent for path in loader.files(choice(model))} == {model}
    assert loader.commit(choice(model)) is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "tiny").symlink_to(model)
    loader.check(choice("owner/tiny"))  # a directory that is there
    with pytest.raises(UserError, match=r"no model\.revision with model.path=owner/tiny"):
        loader.check(choice("owner/tiny", revision="main"))
    loader.check(choice("owner/other", revision="main"))
    with pytest.raises(UserError, match=r"expected owner/other at revision main .* HF_HUB_OFFLINE"):
        loader.files(choice("owner/other", revision="main"))


@pytest.mark.parametrize("path", ["nowhere", "/not/there", "a/b/c"])
def test_a_path_that_is_nothing(path):
    with pytest.raises(UserError, match="which is none of them; give a name on the hub, or what"):
        find_loader("hf").check(choice(path))
    with pytest.raises(UserError, match=r"expected model.path with model=hf, got none"):
        find_loader("hf").check(choice(None))
