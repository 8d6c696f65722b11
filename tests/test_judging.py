"""The rule of what counts as a finding."""

import subprocess
import sys

import pytest

from mech_arith.judging import standing


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"p": 0.05}, "finding"),
        ({"p": 0.0501}, "chance"),
        ({"p": 0.001, "low": 0.1, "high": 0.3, "by_chance": 0.0}, "finding"),
        ({"p": 0.048, "low": -0.12, "high": 0.17, "by_chance": 0.0}, "chance"),
        ({"p": 0.2, "low": 0.1, "high": 0.3, "by_chance": 0.0}, "chance"),
        ({"low": 0.1, "high": 0.3, "by_chance": 0.1}, "chance"),
        ({"low": 0.1, "high": 0.3, "by_chance": 0.4}, "finding"),
        ({"low": 0.1, "high": 0.3}, "not judged"),
        ({}, "not judged"),
    ],
)
def test_p_and_interval_have_to_agree(known: dict[str, float], said: str) -> None:
    assert standing(**known) == said


def test_a_report_is_read_without_what_computes_numbers() -> None:
    """It would take seconds to load."""
    code = "import sys, mech_arith.report.build; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "scipy"} & set(loaded.stdout.split())
