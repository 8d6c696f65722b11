"""Names that plugins may add to."""

import subprocess
import sys

import pytest

from mech_arith.common.errors import UserError
from mech_arith.common.registry import Registry

STATISTICS = Registry("room", "mech_arith.statistics")
"""Any package whose files could be built-ins."""


def test_built_ins_are_the_files_of_the_package():
    assert {"basic", "bootstrap", "ranks"} <= set(STATISTICS.names())
    assert "__init__" not in STATISTICS.names()


def test_names_are_listed_without_torch():
    code = (
        "import sys; from mech_arith.common.registry import Registry;"
        "print(Registry('room', 'mech_arith.statistics').names(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")
    assert "bootstrap" in done.stdout


def test_what_is_registered_is_found_and_stays_as_it_is():
    own = Registry("shape")

    @own.register("round")
    def circle() -> int:
        return 3

    assert own.names() == ("round",)
    assert own.find("round") is circle
    assert circle() == 3
    assert own.module("round") is sys.modules[__name__]


def test_an_unknown_name_is_one_line_with_the_close_and_the_valid_ones():
    with pytest.raises(UserError, match=r"^unknown room 'rank' .did you mean 'ranks'") as said:
        STATISTICS.find("rank")
    assert "bootstrap" in str(said.value)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("name", ["mine", "basic"])
def test_a_name_is_registered_once(name):
    own = Registry("room", "mech_arith.statistics")

    def register():
        own.register(name)(lambda: None)

    if name == "mine":
        register()
    with pytest.raises(UserError, match=f"new name for this room .* got '{name}', which"):
        register()


def test_a_built_in_that_registers_nothing_is_unknown():
    with pytest.raises(UserError, match="unknown room 'basic'"):
        STATISTICS.find("basic")
