"""What makes a cell another one, and what does not."""

import dataclasses
import shutil

import pytest

from mech_arith.common.errors import UserError
from mech_arith.common.paths import checkpoints_dir
from mech_arith.experiment import identity
from mech_arith.experiment.config import (
    InterventionConfig,
    ModelConfig,
    RunConfig,
    TemplateConfig,
    WandbMode,
)
from mech_arith.experiment.identity import APART, differences, files_digest, identify


def config(**changes):
    known = RunConfig(
        template=TemplateConfig("nested", "a-(b-c)"),
        intervention=InterventionConfig(strengths=[0.0, 1.0]),
    )
    for path, value in changes.items():
        group, _, name = path.rpartition("__")
        setattr(getattr(known, group) if group else known, name, value)
    return known


def digest(**changes):
    return identify(config(**changes)).digest


def test_the_same_config_is_the_same_cell():
    assert digest() == digest()


@pytest.mark.parametrize(
    "change",
    [
        {"problems__n": 2000},
        {"problems__seed": 1},
        {"problems__operands": {"min": 1}},
        {"intervention__strengths": [0.0, 2.0]},
        {"layers__part": "late"},
        {"tracing__positions": "last"},
        {"template__expression": "a-b"},
        {"model__name": "arith_encoder"},
        {"tolerance": 2.0},
        {"prompt__date": "2025-01-02"},
    ],
)
def test_what_moves_the_numbers_makes_another_cell(change):
    assert digest(**change) != digest()


@pytest.mark.parametrize(
    "change",
    [
        {"wandb__mode": WandbMode.disabled},
        {"wandb__project": "other"},
        {"figures__format": ["pdf"]},
        {"figures__width": "neurips"},
        {"store__enabled": False},
        {"store__path": "/else/where"},
        {"batch_size": 7},
        {"threads": 1},
    ],
)
def test_what_only_shows_or_speeds_up_does_not(change):
    assert digest(**change) == digest()


def test_a_model_is_its_files_wherever_they_are(tmp_path):
    directory = checkpoints_dir() / "arith_decoder"
    shutil.copytree(directory, tmp_path / "copy")
    assert digest(model__path=str(tmp_path / "copy")) == digest()
    card = tmp_path / "copy" / "card.json"
    card.write_text(card.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert digest(model__path=str(tmp_path / "copy")) != digest()


def test_a_model_that_is_not_there_is_said():
    with pytest.raises(UserError, match="no_such_model"):
        identify(config(model__name="no_such_model"))


def test_files_count_by_name_and_content(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"x")
    two.write_bytes(b"y")
    before = files_digest((one, two))
    two.write_bytes(b"yy")
    assert files_digest((one, two)) != before
    assert files_digest((one,)) != files_digest((two,))


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A package of a module that makes numbers and one that reports them, in place of this one."""
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "tracing.py").write_text('"""Text."""\n\n\ndef f():\n    return 1\n')
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "terminal.py").write_text("x = 1\n")
    monkeypatch.setattr(identity.mech_arith, "__file__", str(tmp_path / "__init__.py"))

    def digest():
        identity.code_digest.cache_clear()
        return identity.code_digest()

    yield tmp_path, digest
    monkeypatch.undo()
    identity.code_digest.cache_clear()


@pytest.mark.parametrize(
    ("name", "text", "is_same"),
    [
        (
            "tracing.py",
            '"""Other words."""\n# why\ndef f():\n    """Says."""\n    return 1\n',
            True,
        ),
        ("tracing.py", "def f():\n    return 2\n", False),
        ("reports/terminal.py", "x = 2\n", True),
        ("another.py", "x = 2\n", False),
    ],
)
def test_code_counts_without_its_comments(code, name, text, is_same):
    directory, digest = code
    before = digest()
    (directory / name).write_text(text)
    assert (digest() == before) == is_same


def test_differences_are_named():
    before = identify(config()).determines
    now = dict(identify(config(problems__n=50, template__expression="a-b")).determines)
    said = differences(before, now)
    assert "problems.n 1000 -> 50" in said
    assert "template.expression a-(b-c) -> a-b" in said
    assert "code" not in said
    assert differences(before, {**before, "code": "x", "weights": "y"}) == "weights, code"
    versions = {**before["versions"], "torch": "9.9"}
    assert "torch" in differences(before, {**before, "versions": versions})


def test_every_key_of_the_config_has_been_thought_of():
    known = identify(config()).determines["config"]
    held = {key.split(".")[0] for key in known}
    keys = {field.name for field in dataclasses.fields(RunConfig)}
    assert held == keys - APART
    known_apart = {"wandb", "figures", "claim", "store", "batch_size", "threads", "plugins"}
    assert known_apart | {"objective"} == APART
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    in_identity = {key.partition(".")[2] for key in known if key.startswith("model.")}
    assert in_identity == fields - {"path", "hub", "revision", "verify"}


def test_an_identity_is_plain_data():
    found = identify(config())
    assert found.determines["config"]["problems.n"] == 1000
    assert not any(key.startswith("wandb") for key in found.determines["config"])
    assert dataclasses.is_dataclass(found)
