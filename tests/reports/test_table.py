"""Tables for papers: what is in them, how numbers are rounded, and that LaTeX can read them."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from mech_arith.common.errors import UserError
from mech_arith.common.paths import SUMMARY
from mech_arith.evidence.best import best_places
from mech_arith.evidence.results import load_run, save_run
from mech_arith.reports import table as command
from mech_arith.reports.figures import __main__ as figures
from mech_arith.reports.typeset import (
    Estimate,
    Expression,
    Heading,
    P,
    Table,
    comma_separated,
    escaped,
    latex,
    markdown,
    math,
    rounded,
    rounded_p,
)
from tests.reports.test_compare import change
from tests.synthetic import save_cell
from tests.thinned import thinned


def written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> str:
    """What the command writes."""
    monkeypatch.setattr(sys, "argv", ["table", *map(str, arguments)])
    command.main()
    return capsys.readouterr().out


def rows_of(text: str) -> list[list[str]]:
    """The cells of a LaTeX table's rows, the titles first."""
    lines = [line for line in text.split("\n") if line.endswith(r"\\")]
    return [re.split(r" & ", line.removesuffix(r" \\")) for line in lines]


def check_latex(text: str) -> None:
    """Braces and dollars are balanced, every row has its cells, nothing is left unescaped."""
    code = "\n".join(line for line in text.split("\n") if not line.startswith("%"))
    bare = re.sub(r"\\[\\{}$&%_#]", "", code)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert bare.isascii()
    (aligned,) = re.findall(r"\\begin\{tabular\}\{([lc]+)\}", text)
    assert {len(row) for row in rows_of(text)} == {len(aligned)}
    outside = "".join(bare.split("$")[::2])
    assert not set("_^#%|<>") & set(outside)


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ((0.931, 0.9, 0.956), ("0.93", "0.90", "0.96")),
        ((0.5, None, None), ("0.50",)),
        ((0.9876, 0.9822, 0.9914), ("0.988", "0.982", "0.991")),  # .99 [.98, .99] hides an end
        ((0.1, 0.004, 0.2), ("0.100", "0.004", "0.200")),  # not 0: the interval is above it
        ((-0.001, -0.3, 0.2), ("-0.001", "-0.300", "0.200")),
        ((0.0, 0.0, 0.17), ("0.00", "0.00", "0.17")),
        ((1.0, 1.0, 1.0), ("1.00", "1.00", "1.00")),
        ((0.5, 0.1, float("nan")), ("0.50",)),
        ((123.4, 101.2, 140.9), ("123", "101", "141")),
        ((12.34, -1.26, 20.0), ("12.3", "-1.3", "20.0")),
        ((None, 0.1, 0.2), ()),
        ((float("nan"), None, None), ()),
    ],
)
def test_numbers_are_rounded_so_that_their_intervals_stay_true(
    numbers: tuple[Any, Any, Any], shown: tuple[str, ...]
) -> None:
    assert rounded(Estimate(*numbers)) == shown


@pytest.mark.parametrize(("p", "shown"), [(0.0004, "<0.001"), (0.0123, "0.012"), (None, "")])
def test_p_is_never_0(p: float | None, shown: str) -> None:
    assert rounded_p(p) == shown


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("a-(b-c)", "$a-(b-c)$"),
        ("price*count_2", r"$\mathit{price} \times \mathit{count\_2}$"),
        ("a//b", r"$a \mathbin{/\!/} b$"),
        ("a % 10", r"$a \bmod 10$"),
        ("max(a, b)", r"$\max(a,b)$"),
    ],
)
def test_values_are_formulas(expression: str, shown: str) -> None:
    assert math(expression) == shown


def test_signs_that_mean_something_in_latex_are_escaped() -> None:
    text = r"50% of a_b & {x} #1 $ ~ ^ \ < > |"
    shown = escaped(text)
    assert r"50\% of a\_b \& \{x\} \#1 \$ \textasciitilde{} \textasciicircum{}" in shown
    assert r"\textbackslash{} \textless{} \textgreater{} \textbar{}" in shown


TABLE = Table(
    headings=[
        Heading("value"),
        Heading("name", "name_of & |R|"),
        Heading("r", "|R|", ("r_low", "r_high")),
        Heading("p", "p"),
    ],
    rows=[
        [Expression("b-c"), "a|b_c", Estimate(-0.5, -0.6, -0.4, may_be_chance=True), P(1e-5)],
        [Expression(""), None, Estimate(None), P(None)],
    ],
    notes=["one\ntwo", "\N{DAGGER} chance"],
)


def test_a_table_in_latex() -> None:
    text = latex(TABLE)
    check_latex(text)
    assert text.startswith(
        "% one\n% two\n% dagger: chance\n% Needs: booktabs.\n\\begin{tabular}{ll"
    )
    titles, first, second = rows_of(text.replace(r"\&", "AND"))
    assert titles[1:] == [r"name\_of AND $|R|$", "$|R|$", "p"]
    number = r"$-0.50^{\dagger}$ {\footnotesize $[-0.60, -0.40]$}"
    assert first == ["$b-c$", r"a\textbar{}b\_c", number, "$<0.001$"]
    assert second == ["", "--", "--", "--"]


def test_a_table_in_markdown() -> None:
    lines = markdown(TABLE).split("\n")
    assert lines[0] == r"|  | name\_of & \|R\| | \|R\| | p |"
    assert lines[2] == "| `b-c` | a\\|b\\_c | -0.50\N{DAGGER} [-0.60, -0.40] | <0.001 |"


def test_a_table_as_csv_has_its_numbers_in_full() -> None:
    found = pd.read_csv(StringIO(comma_separated(TABLE)))
    assert list(found) == ["value", "name", "r", "r_low", "r_high", "p"]
    assert found.iloc[0].tolist() == ["b-c", "a|b_c", -0.5, -0.6, -0.4, 1e-5]
    assert found.iloc[1].isna().all()


def test_the_evidence_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_cell(tmp_path / "run", edit="interchange")
    text = written(monkeypatch, capsys, run)
    check_latex(text)
    assert "% python -m mech_arith model=arith_decoder problems.seed=0\n% (identity 0000" in text
    titles, first, *_ = rows_of(text)
    assert titles[:2] == ["value", "layer"]
    assert "$|R|$" in titles
    assert first[:2] == ["$a$", "0"]
    found = pd.read_csv(StringIO(written(monkeypatch, capsys, run, "--format", "csv")))
    best = best_places(load_run(run).tables["evidence"])
    merged = found.merge(best, on=["value", "layer"], suffixes=("", "_of_run"))
    assert len(merged) == len(best) == len(found)
    assert merged["abs_r"].tolist() == merged["r"].abs().tolist()
    assert (merged["abs_r"] - merged["abs_r_low"]).min() >= 0
    assert merged["slope_low"].tolist() == merged["slope_low_of_run"].tolist()


def test_columns_are_those_that_are_asked_for_and_chance_has_a_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_cell(tmp_path / "run")
    change(run, r=-0.5, r_low=-0.6, r_high=-0.4, p_holm=0.2, r_counts=False)
    options = ("--columns", "p_holm,r", "--format", "markdown")
    lines = written(monkeypatch, capsys, run, *options).split("\n")
    assert lines[0] == r"| value | layer | p holm | \|R\| |"
    assert "| `b` | 0 | 0.200 | 0.50\N{DAGGER} [0.40, 0.60] |" in lines
    headed = ("--columns", "p_holm,abs_r", "--format", "markdown")
    assert written(monkeypatch, capsys, run, *headed).split("\n") == lines


def test_runs_of_a_sweep_are_told_apart_by_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_cell(tmp_path / "0", seed=0)
    save_cell(tmp_path / "1", seed=1, model="gpt2_a")
    text = written(monkeypatch, capsys, tmp_path)
    check_latex(text)
    titles, first, *_, last = rows_of(text)
    assert titles[:3] == ["model", "seed", "value"]
    assert (first[0], last[0]) == (r"arith\_decoder", r"gpt2\_a")
    found = written(monkeypatch, capsys, tmp_path, tmp_path / "0", "--format", "csv")
    assert len(found.split("\n")) == 1 + 2 * 20 + 1  # each run once


def test_two_runs_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        save_cell(tmp_path / name, edit="interchange")
    change(tmp_path / "a", slope=0.1, slope_low=-0.2, slope_high=0.4)
    change(tmp_path / "b", slope=0.8, slope_low=0.4, slope_high=1.2)
    places = (tmp_path / "a", tmp_path / "b", "--compare")
    text = written(monkeypatch, capsys, *places)
    check_latex(text)
    assert "% A: python -m mech_arith" in text
    rows = [row for row in rows_of(text) if row[:3] == ["slope", "$b$", "0"]]
    (of_b,) = rows
    assert of_b[3].startswith("$0.10$")
    assert of_b[5].startswith(r"$0.70^{\dagger}$ {\footnotesize $[0.20, 1.20]$}")  # Holm's p
    options = ("--columns", "accuracy_drop,abs_r", "--format", "csv")
    found = pd.read_csv(StringIO(written(monkeypatch, capsys, *places, *options)))
    assert list(dict.fromkeys(found["quantity"])) == ["accuracy drop", "|R|"]
    assert {"strength", "difference_low", "p_holm"} <= set(found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing"], "expected a directory of runs, got '.*missing'; give one that exists"),
        (["empty"], "expected a finished run in .*empty, found none; run it to its end"),
        (
            ["a", "--columns", "excess_dop"],
            "unknown column 'excess_dop'; nearest of .*: excess_drop,",
        ),
        (["a", "--columns", ""], "unknown column ''; nearest of"),
        (["a", "--compare"], "expected two directories with --compare, got 1; give A and B"),
        (["a", "a", "a", "--compare"], "expected two directories with --compare, got 3"),
        (["a", "a", "--compare", "--columns", "slop"], "unknown column 'slop'; expected one of: "),
        (["a", "empty", "--compare"], "expected finished runs in .*empty"),
    ],
)
def test_bad_input_ends_in_one_line(
    arguments: Sequence[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_cell(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(sys, "argv", ["table", *arguments])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert re.match(f"error: {said}", str(end.value.code))
    assert "\n" not in str(end.value.code)


def without_column(run: Path) -> None:
    path = run / "evidence.parquet"
    pd.read_parquet(path).drop(columns=["value"]).to_parquet(path)


def without_key(key: str, run: Path) -> None:
    summary = json.loads((run / SUMMARY).read_text())
    del summary[key]
    (run / SUMMARY).write_text(json.dumps(summary))


def without_tables(run: Path) -> None:
    summary = json.loads((run / SUMMARY).read_text())
    (run / SUMMARY).write_text(json.dumps(summary | {"tables": {}}))


@pytest.mark.parametrize(
    ("module", "tamper", "lacking"),
    thinned(
        [
            (command, without_column, "value"),
            (command, partial(without_key, "cell"), "cell"),
            (command, partial(without_key, "command"), "command"),
            (figures, without_column, "value"),
            (figures, partial(without_key, "cell"), "cell"),
            (figures, without_tables, "correlations"),
        ],
        2,
    ),
)
def test_a_run_that_lacks_something_is_one_line(
    module: ModuleType,
    tamper: Callable[[Path], None],
    lacking: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_cell(tmp_path)
    tamper(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        module.main()
    said = f"error: expected a readable run in .*, got KeyError: '{lacking}'; run it again"
    assert re.fullmatch(said, str(end.value.code))


def test_names_between_commas_may_have_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_cell(tmp_path)
    spaced, plain = (
        written(monkeypatch, capsys, tmp_path, "--columns", columns)
        for columns in ("abs_r, slope", "abs_r,slope")
    )
    assert spaced == plain


def test_figures_that_cannot_be_written_are_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        save_cell(tmp_path / name)
    (tmp_path / "b" / "figures").write_text("a file")
    monkeypatch.setattr(sys, "argv", ["figures", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        figures.main()
    assert re.search(
        r"that can be written, got .*b/figures'.*; make room there", str(end.value.code)
    )
    assert not list(tmp_path.glob("a/figures/*"))


@pytest.mark.parametrize("module", ["mech_arith.reports.table", "mech_arith.reports.papers"])
def test_what_reads_the_command_line_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "pandas", "pyarrow", "matplotlib"} & set(found.stdout.split())


def test_iia_by_rank_has_a_row_for_each_rank(tmp_path: Path) -> None:
    run = save_cell(tmp_path / "run", edit="interchange")
    one = load_run(run)
    table = one.tables["evidence"]
    both = pd.concat([table, table.assign(rank=4, iia=0.25)], ignore_index=True)
    save_run(
        run,
        tables={**one.tables, "evidence": both},
        summary=one.summary,
        config_yaml=one.config_yaml,
    )
    found = command.evidence([run], ranks=True)
    names = [heading.name for heading in found.headings]
    rank, iia = names.index("rank"), names.index("iia")
    assert {row[rank] for row in found.rows} == {1, 4}
    assert {row[iia].number for row in found.rows if row[rank] == 4} == {0.25}
    assert len(command.evidence([run]).rows) == len(found.rows) / 2
    save_cell(tmp_path / "scaled")
    with pytest.raises(UserError, match="expected answers towards other values with --ranks"):
        command.evidence([tmp_path / "scaled"], ranks=True)


def with_ranks(directory: Path, method: str, **what: Any) -> Path:
    """A made-up run of one method at ranks 1 and 4."""
    run = save_cell(directory, edit="interchange", fields={"tracing": method}, **what)
    one = load_run(run)
    table = one.tables["evidence"]
    both = pd.concat([table, table.assign(rank=4, iia=0.25)], ignore_index=True)
    tables = {**one.tables, "evidence": both}
    save_run(run, tables=tables, summary=one.summary, config_yaml=one.config_yaml)
    return run


def test_methods_are_drawn_in_one_figure_for_each_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in ("pca", "das"):
        with_ranks(tmp_path / f"decoder {method}", method)
    with_ranks(tmp_path / "encoder", "pls", model="arith_encoder")
    save_cell(tmp_path / "scaled")  # asked at no rank
    monkeypatch.setattr(sys, "argv", ["figures", str(tmp_path), "--ranks", "--format", "svg"])
    figures.main()
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert all(path.parent == tmp_path / "figures" for path in paths)
    numbers = {path.stem: pd.read_csv(path) for path in paths if path.suffix == ".csv"}
    decoder, encoder = (
        next(table for name, table in numbers.items() if model in name)
        for model in ("arith_decoder", "arith_encoder")
    )
    assert set(decoder["method"]) == {"pca", "das"}
    assert set(encoder["method"]) == {"pls"}
    assert set(decoder.query("rank == 4")["iia"]) == {0.25}
    assert len(decoder) == 2 * 2 * 5
    assert not list(tmp_path.glob("encoder/figures/*"))


def test_without_ranks_there_is_nothing_to_draw_of_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_cell(tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["figures", str(tmp_path), "--ranks"])
    with pytest.raises(SystemExit, match="expected runs of several ranks with --ranks, found none"):
        figures.main()
