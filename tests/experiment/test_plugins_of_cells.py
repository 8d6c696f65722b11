"""A cell sees the plugins that it names, whatever cells ran before it in the process."""

import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from mech_arith.common.errors import UserError
from mech_arith.common.plugins import load_plugins, using_plugins
from mech_arith.directions import METHODS
from mech_arith.evidence.columns import TABLES
from mech_arith.evidence.results import RunResult, load_run
from mech_arith.experiment.api import compose
from mech_arith.experiment.identity import identify
from mech_arith.interventions.edits import EDITS
from mech_arith.models.kinds import MODELS
from mech_arith.reports.figures import draw_cell
from mech_arith.reports.figures.__main__ import main as draw_again
from mech_arith.reports.figures.registered import FIGURES
from tests.running import SMALL, main
from tests.synthetic import save_cell

PLUGIN = """
from dataclasses import dataclass
from matplotlib.figure import Figure
from mech_arith.directions.base import METHODS
from mech_arith.directions.methods.pca import PCAFitter
from mech_arith.evidence.columns import NUMBER, Column, register_column
from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.base import Edit
from mech_arith.models.kinds import MODELS
from mech_arith.models.loaders.arithmetic import Arithmetic
from mech_arith.reports.figures import figure

@METHODS.register("own")
@dataclass
class Own(PCAFitter):
    power: float = {number}.0

    def update(self, activations, values):
        super().update(activations.abs() ** self.power, values)

@EDITS.register("own")
@dataclass(frozen=True)
class OwnEdit(Edit):
    unit, no_change = "times {number}", 0.0

    def moved(self, coordinate, strength, *, sd, wanted):
        return coordinate + {number} * strength * sd

@MODELS.register("own")
class OwnLoader(Arithmetic):
    def prompt_name(self, choice):
        return "way {number}"

@figure("own", needs=("evidence",))
def drawn(evidence, *, title, level):
    made = Figure(figsize=({number}, 1))
    made.subplots().plot(evidence["r"])
    return made

register_column("evidence", Column("own", NUMBER, "Number {number}.", of=lambda row: {number}.0))
"""

CELL = (
    *(one for one in SMALL if not one.startswith("intervention.strengths")),
    *("layers=early", "intervention=shift", "intervention.strengths=[0,2]"),
    *("store.enabled=false", "tracing.position_map=false"),
)


def written(directory: Path, number: int) -> Path:
    path = directory / f"number_{number}.py"
    path.write_text(PLUGIN.format(number=number), encoding="utf-8")
    return path


def plain_tables(run: RunResult) -> dict[str, pd.DataFrame]:
    return {name: table.drop(columns="identity") for name, table in run.tables.items()}


@pytest.mark.slow
def test_each_cell_of_a_process_is_as_it_is_alone(monkeypatch, tmp_path):
    """With one file, without, and with another file that uses the same five names."""
    one, other = written(tmp_path, 1), written(tmp_path, 2)
    alone = tmp_path / "alone"
    alone.mkdir()
    assert main(monkeypatch, alone, *CELL) == 0
    sweep = [f"plugins=[{one}],[],[{other}]", "tracing.method=own,pca,own"]
    sweep += ["intervention.edit=own,shift,own", "model.kind=own,arithmetic,own"]
    together = "sweep.together=[plugins,tracing.method,intervention.edit,model.kind]"
    assert main(monkeypatch, tmp_path, *CELL, *sweep, together, sweep=True) == 0

    runs = [load_run(tmp_path / "run" / str(number)) for number in range(3)]
    lone = plain_tables(load_run(alone / "run"))
    for name, table in plain_tables(runs[1]).items():
        pd.testing.assert_frame_equal(table, lone[name])
    assert "own" not in runs[1].tables["evidence"]
    assert not (runs[1].directory / "figures" / "own.png").exists()
    for run, number in ((runs[0], 1.0), (runs[2], 2.0)):
        assert set(run.tables["evidence"]["own"]) == {number}
        assert set(run.tables["effects"]["strength_unit"]) == {f"times {number:.0f}"}
        assert set(run.tables["effects"]["prompt"]) == {f"way {number:.0f}"}
    strongest = [run.tables["correlations"]["r"].abs().to_numpy() for run in runs]
    assert not np.array_equal(strongest[0], strongest[2])
    drawn = [(runs[i].directory / "figures" / "own.png").read_bytes() for i in (0, 2)]
    assert drawn[0] != drawn[1]
    joined = pd.read_parquet(tmp_path / "run" / "sweep_evidence.parquet")
    assert joined.groupby("cell")["own"].first().tolist() == pytest.approx(
        [1.0, np.nan, 2.0], nan_ok=True
    )


def test_nothing_of_a_plugin_is_left_behind(tmp_path):
    own = written(tmp_path, 3)
    with using_plugins([]):
        load_plugins([str(own)])
        for registry in (METHODS, EDITS, MODELS, FIGURES):
            assert "own" in registry.names()
        assert "own" in [column.name for column in TABLES["evidence"]]
    for registry in (METHODS, EDITS, MODELS, FIGURES):
        assert "own" not in registry.names()
        with pytest.raises(UserError, match=r"unknown .* 'own'"):
            registry.find("own")
    assert "own" not in [column.name for column in TABLES["evidence"]]


def test_built_ins_that_a_plugin_imports_first_are_there_for_all(tmp_path):
    with using_plugins([]):
        load_plugins([str(written(tmp_path, 4))])
    assert METHODS.find("pca").__name__ == "PCAFitter"
    assert set(FIGURES.names()) >= {"correlations", "effects", "evidence"}


def test_two_files_of_one_cell_cannot_use_one_name(tmp_path):
    paths = [str(written(tmp_path, number)) for number in (5, 6)]
    with using_plugins([]):
        for _ in range(2):
            with pytest.raises(UserError, match=r"new name .*number_6.py, got .*number_5.py has"):
                load_plugins(paths)
        assert len(load_plugins([paths[0], paths[0]])) == 2


def test_one_file_cannot_use_a_name_twice(tmp_path):
    path = written(tmp_path, 7)
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\nEDITS.register('own')(OwnEdit)\n", encoding="utf-8")
    with using_plugins([]), pytest.raises(UserError, match=r"new name for this edit .*, got 'own'"):
        load_plugins([str(path)])


def test_a_cell_from_python_keeps_its_plugins(tmp_path):
    cells = [
        compose(
            f"plugins=[{written(tmp_path, number)}]",
            "tracing.method=own",
            "problems.n=60",
            "tracing.n_components=2",
            "intervention=none",
            "store.enabled=false",
        )
        for number in (8, 1)
    ]
    means = [cell.subspace(layer=0).mean for cell in cells]
    found = cells[1].activations(layer=0).double().abs()
    np.testing.assert_allclose(means[1], found.mean(0), rtol=1e-4)
    assert not np.allclose(means[0], means[1])


BROKEN = """
from mech_arith.reports.figures import figure, figures
from mech_arith.reports.figures.registered import Drawing
from matplotlib.figure import Figure

@figure("broken", needs=("evidence",))
def broken(evidence, *, title, level):
    return evidence["mistyped"]

@figure("none", needs=("evidence",))
def none(evidence, *, title, level):
    return None

@figures("double")
def double(tables, title, level):
    yield Drawing("evidence", lambda title, level: Figure(), (), {{"title": title, "level": level}})

@figure("fine{number}", needs=("evidence",))
def fine(evidence, *, title, level):
    return Figure()
"""


def test_a_figure_that_fails_costs_itself_alone(tmp_path, caplog):
    save_cell(tmp_path / "cell")
    tables = load_run(tmp_path / "cell").tables
    plain = {path.name: path.read_bytes() for path in draw_cell(tables, tmp_path / "a", title="t")}
    file = tmp_path / "broken.py"
    file.write_text(BROKEN.format(number=1), encoding="utf-8")
    with using_plugins([]), caplog.at_level(logging.WARNING):
        load_plugins([str(file)])
        drawn = draw_cell(tables, tmp_path / "b", title="t")
    assert {path.name for path in drawn} == {*plain, "fine1.png"}
    assert all((tmp_path / "b" / name).read_bytes() == plain[name] for name in plain)
    said = caplog.messages
    assert [line.partition(" is left out: ")[0] for line in said] == [
        f"the figure {name!r} of {file}" for name in ("broken", "none", "double")
    ]
    assert "KeyError: 'mistyped'" in said[0]
    assert "expected a new name for a figure, got 'evidence'" in said[2]


@pytest.mark.slow
def test_a_finished_run_is_drawn_again_with_its_plugins(tmp_path, monkeypatch, capsys, caplog):
    """Each run with its own, by the file of today; one that is gone costs its figures alone."""
    fine, gone = tmp_path / "fine.py", tmp_path / "gone.py"
    fine.write_text(BROKEN.format(number=2), encoding="utf-8")
    for name, plugins in (("with", [gone, fine]), ("without", [])):
        config = save_cell(tmp_path / name) / "config.yaml"
        text = yaml.safe_dump({"plugins": [str(path) for path in plugins]})
        config.write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["figures", str(tmp_path), "--format", "svg"])
    draw_again()
    drawn = {Path(line).relative_to(tmp_path) for line in capsys.readouterr().out.splitlines()}
    assert {path.parts[0] for path in drawn if path.name == "evidence.svg"} == {"with", "without"}
    assert [path for path in drawn if path.stem == "fine2"] == [Path("with/figures/fine2.svg")]
    assert f"the figures of {gone} are left out: expected a Python file at" in caplog.messages[0]
    assert "fine2" not in FIGURES.names()


OPTIONS = ("tracing.method=own", "intervention=none", "problems.n=60", "tracing.n_components=2")


@pytest.mark.parametrize(
    "spelling",
    [
        "tracing.options.power=2",
        "+tracing.options.power=2",
        "++tracing.options.power=2.0",
        "tracing.options={power: 2}",
        "+tracing.options={power: 2}",
    ],
)
def test_an_option_of_a_method_in_all_spellings(tmp_path, spelling):
    plugin = f"plugins=[{written(tmp_path, 9)}]"
    cell = compose(plugin, *OPTIONS, spelling)
    assert cell.prepared.method.options == {"power": 2.0}
    plain = compose(plugin, *OPTIONS)
    assert plain.prepared.method.options == {"power": 9.0}
    assert plain.prepared.method.key != cell.prepared.method.key
    assert identify(plain.settings).digest != identify(cell.settings).digest


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("tracing.options.powr=2", "unknown option of own 'powr'; expected one of: power"),
        ("tracing.options.power=much", "expected tracing.options.power of type float, got 'much'"),
        ("tracing.options.power.x=1", "expected tracing.options.power of type float, got {'x': 1}"),
        ("tracing.options=2", "expected a .*tracing.options.*2"),
    ],
)
def test_an_option_that_is_wrong_is_one_line(tmp_path, option, said):
    with pytest.raises(UserError, match=said) as refused:
        compose(f"plugins=[{written(tmp_path, 10)}]", *OPTIONS, option)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("listed", [False, True])
def test_an_option_is_swept(monkeypatch, tmp_path, listed):
    written(tmp_path, 11)
    folder = tmp_path / "conf" / "tracing"
    folder.mkdir(parents=True)
    options = "options: {power: 11.0}" if listed else ""
    (folder / "own.yaml").write_text(
        f"defaults: [pca, _self_]\nmethod: own\n{options}\n", encoding="utf-8"
    )
    given = ["plugins=[../number_11.py]", "tracing=own", "tracing.options.power=1,2"]
    small = [*SMALL, "layers=early", "intervention=none", "tracing.position_map=false"]
    folder = f"--config-dir={tmp_path}/conf"
    assert main(monkeypatch, tmp_path, *small, *given, folder, sweep=True) == 0
    runs = [load_run(tmp_path / "run" / name) for name in "01"]
    r = [run.tables["correlations"]["r"].to_numpy() for run in runs]
    assert not np.array_equal(r[0], r[1])
    assert len({run.summary["identity"] for run in runs}) == 2
    swept = pd.read_parquet(tmp_path / "run" / "sweep_correlations.parquet")
    assert set(swept["swept.tracing.options.power"]) == {"1", "2"}
