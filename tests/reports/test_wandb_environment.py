"""W&B's environment variables, in W&B's own order."""

from typing import Any

import pytest

from mech_arith.common.errors import UserError
from mech_arith.reports.wandb import not_followed, place

NOTHING: dict[str, Any] = {
    "mode": None,
    "project": None,
    "entity": None,
    "group": None,
    "tags": (),
}
EVERYTHING = {
    "WANDB_MODE": "disabled",
    "WANDB_PROJECT": "theirs",
    "WANDB_ENTITY": "team",
    "WANDB_RUN_GROUP": "grouped",
    "WANDB_TAGS": "x,y",
}


def test_nothing_set_is_offline_in_the_usual_project() -> None:
    found = place(**NOTHING, environment={})
    assert (found.mode, found.project, found.entity) == ("offline", "mech_arith", None)
    assert (found.group, found.tags, found.sweep_id) == (None, (), None)


def test_the_variables_count_where_the_configuration_says_nothing() -> None:
    found = place(**NOTHING, environment=EVERYTHING)
    assert (found.mode, found.project, found.entity) == ("disabled", "theirs", "team")
    assert (found.group, found.tags) == ("grouped", ("x", "y"))


def test_the_configuration_comes_first() -> None:
    own: dict[str, Any] = {
        "mode": "online",
        "project": "p",
        "entity": "e",
        "group": "g",
        "tags": ("t",),
    }
    found = place(**own, environment=EVERYTHING)
    assert (found.mode, found.project, found.entity) == ("online", "p", "e")
    assert (found.group, found.tags) == ("g", ("t",))


def test_a_run_of_an_agent_goes_where_its_sweep_is() -> None:
    own: dict[str, Any] = NOTHING | {"project": "p", "entity": "e"}
    found = place(**own, environment=EVERYTHING | {"WANDB_SWEEP_ID": "s"})
    assert (found.sweep_id, found.project, found.entity) == ("s", "theirs", "team")


@pytest.mark.parametrize(("said", "mode"), [("dryrun", "offline"), ("run", "online")])
def test_old_names_of_modes(said: str, mode: str) -> None:
    assert place(**NOTHING, environment={"WANDB_MODE": said}).mode == mode


def test_an_unknown_mode_is_one_line() -> None:
    with pytest.raises(UserError, match=r"expected WANDB_MODE to be one of online, .* got 'maybe'"):
        place(**NOTHING, environment={"WANDB_MODE": "maybe"})
    asked: dict[str, Any] = NOTHING | {"mode": "online"}
    assert place(**asked, environment={"WANDB_MODE": "x"}).mode == "online"


def test_what_is_not_followed_is_said() -> None:
    assert not_followed(EVERYTHING) is None
    line = not_followed({"WANDB_RUN_ID": "abc", "WANDB_NAME": "mine"})
    assert line is not None
    assert line.startswith("W&B: WANDB_RUN_ID, WANDB_NAME are not followed")
    assert not_followed({"WANDB_RUN_ID": "abc", "WANDB_SWEEP_ID": "s"}) is None
