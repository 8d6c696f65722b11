"""The report's page in a real browser: clicked, hovered, and fed with hostile text."""

import json
import math
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.ui import WebDriverWait

from mech_arith.evidence.ranks import at_headline
from mech_arith.evidence.results import load_run, save_run
from mech_arith.reports.page import write_report
from mech_arith.reports.page.build import build_comparison
from tests.reports.test_page import save_plan
from tests.running import SMALL, main
from tests.synthetic import save_cell, save_sweep
from tests.waiting import PATIENCE_S

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="no chromium and chromedriver here; `make test-browser` installs them",
    ),
]

HOSTILE = (
    "\"><img src=x onerror='window.hacked=1'></script><script>window.hacked=1</script>"
    "<b>{{7*7}}</b> %{x} ${1} &amp; \u202eRTL\u05d0 a\nsecond line " + "long" * 60
)


class Page:
    """The page under test."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser

    def open(self, path: Path, address: str = "") -> None:
        self.browser.get("about:blank")
        self.browser.get(path.resolve().as_uri() + address)
        self.until("return document.documentElement.dataset.ready")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def until(self, script: str, *arguments: Any) -> Any:
        return WebDriverWait(self.browser, PATIENCE_S).until(lambda _: self.run(script, *arguments))

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def column(self, title: str) -> list[str]:
        """What the table shows under a title."""
        titles = [text.replace("\n", " ") for text in self.texts("#cells thead th")]
        return self.texts(f"#cells tbody td:nth-child({titles.index(title) + 1})")

    def options(self, name: str) -> list[str]:
        return [option.text for option in Select(self.one(f"select[name={name}]")).options]

    def choose(self, name: str, start: str) -> None:
        """Pick the option that begins so."""
        select = Select(self.one(f"select[name={name}]"))
        (text,) = [o.text for o in select.options if o.text.startswith(start)]
        select.select_by_visible_text(text)

    def drawn(self, selector: str) -> WebElement:
        """A chart, scrolled to and drawn."""
        element = self.one(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        self.until("return document.querySelector(arguments[0]).dataset.drawn", selector)
        return self.one(selector)

    def hover(self, target: WebElement) -> str:
        """What the chart says when the mouse is over an element in it."""
        ActionChains(self.browser).move_to_element(target).perform()
        shown = "return [...document.querySelectorAll('.hoverlayer text')]"
        self.until(f"{shown}.length > 0")
        return self.run(f"{shown}.map((text) => text.textContent).join(' ')")

    def click(self, target: WebElement) -> str:
        """The command that a click on a point shows."""
        self.hover(target)
        ActionChains(self.browser).click().perform()
        self.until("return !document.getElementById('reproduce').hidden")
        return self.one("#reproduce code").text

    def problems(self) -> list[str]:
        """What the console complained of, since the last time."""
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that were asked for, since the last time."""
        entries = [
            json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")
        ]
        return [
            entry["params"]["request"]["url"]
            for entry in entries
            if entry["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=Service(str(DRIVER))) as started:
        yield started


@pytest.fixture
def page(browser: webdriver.Chrome) -> Iterator[Page]:
    """A page that must not complain, nor ask the network for anything, whatever a test does."""
    shown = Page(browser)
    shown.problems()
    shown.requests()
    yield shown
    assert shown.problems() == []
    outside = ("http:", "https:", "ws:", "wss:")
    assert [url for url in shown.requests() if url.startswith(outside)] == []
    assert shown.run("return window.hacked") is None


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen cells with a result, one that failed and one that never started: their report."""
    directory = tmp_path_factory.mktemp("sweep")
    for index in range(14):
        save_cell(
            directory / str(index),
            model=("arith_decoder", "arith_encoder")[index % 2],
            edit=("scale", "shift")[index // 2 % 2],
            seed=index,
            warnings=("look at this",) if index == 3 else (),
        )
    (directory / "14").mkdir()
    (directory / "14" / "error.txt").write_text("expected this, got that\nTraceback: line 1\n")
    save_plan(directory, *(str(index) for index in range(16)))
    return write_report(directory)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of cells whose every text is an attack."""
    directory = tmp_path_factory.mktemp("hostile")
    values = ("a", HOSTILE)
    fields = {"prompt": HOSTILE, "layers": HOSTILE, HOSTILE: HOSTILE}
    for index, model in enumerate([HOSTILE, "plain"]):
        save_cell(
            directory / str(index),
            model=model,
            template=HOSTILE,
            expression=HOSTILE,
            values=values,
            positions=HOSTILE,
            seed=index,
            fields=fields,
            warnings=(HOSTILE,),
        )
    failed = directory / "<img src=x onerror=alert(1)>"
    failed.mkdir()
    (failed / "error.txt").write_text(HOSTILE)
    save_plan(directory, "0", "1", failed.name)
    return write_report(directory)


def test_the_table_and_the_charts_are_there(page: Page, sweep: Path) -> None:
    page.open(sweep)
    assert page.one("#about").text.startswith("16 cells: 14 done, 1 failed, 1 missing")
    assert len(page.all("#cells tbody tr")) == 10
    assert page.one("#same").text.startswith(
        "The same wherever it is known: template nested_subtraction"
    )
    assert page.column("baseline accuracy")[0] == "0.980\nfloor 0.010"
    lines = page.column("|R|")[0].splitlines()
    best = [line.split(" ")[0] for line in lines]
    assert all(re.search(r"^\d\.\d\d \[\S+, \S+\]$", line) for line in lines)
    assert best == sorted(best, reverse=True)
    values = page.column("value, layer")[0].splitlines()
    assert len(values) == len(best) == 5
    assert all(re.search(r"^\S+ layer \d$", line) for line in values)
    run = load_run(sweep.parent / "0")
    assert best[0] == f"{max(found['abs_r'] for found in run.summary['best'].values()):.2f}"
    worst = max(run.summary["largest_drop"].values(), key=lambda drop: drop["accuracy_drop"])
    assert page.column("largest accuracy drop")[0].startswith(f"{worst['accuracy_drop']:.3f}")
    assert f"control {worst['control_drop']:.3f}" in _flat(page.column("largest accuracy drop")[0])
    for chart in ("#scale", "#maps .plot", "#doses .plot", "#layers .plot"):
        assert page.drawn(chart).find_elements(By.CSS_SELECTOR, "svg.main-svg")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two cells of which one was asked whether answers follow, and one of an
    earlier version, which knew no intervals.
    """
    directory = tmp_path_factory.mktemp("asked")
    save_cell(directory / "0", edit="interchange")
    save_cell(directory / "1")
    old = load_run(save_cell(directory / "2"))
    gone = ("excess_drop", "counterfactual", "inference", "verdicts")
    summary = {name: entry for name, entry in old.summary.items() if name not in gone}
    for found in summary["best"].values():
        for name in ("r_low", "r_high", "p_holm"):
            found.pop(name, None)
    ends = [name for name in old.tables["effects"] if name.endswith(("_low", "_high"))]
    tables = {
        "correlations": old.tables["correlations"],
        "effects": old.tables["effects"].drop(columns=ends),
    }
    save_run(directory / "2", tables=tables, summary=summary, config_yaml="")
    (directory / "2" / "evidence.parquet").unlink()
    return write_report(directory)


def test_the_table_says_how_sure_its_numbers_are(page: Page, asked: Path) -> None:
    page.open(asked)
    summary = load_run(asked.parent / "0").summary
    values = [line.split(" ")[0] for line in page.column("value, layer")[0].splitlines()]
    for title, name, headline in (
        ("drop beyond drawn directions", "excess_drop", summary["excess_drop"]),
        ("IIA", "iia", summary["counterfactual"]),
        ("slope", "slope", _at_best(asked.parent / "0")),
    ):
        lines = page.column(title)[0].splitlines()
        assert all(re.search(r"^\S+ \[\S+, \S+\]$", line) for line in lines)
        shown = [line.split(" ")[0] for line in lines]
        assert shown == [_signed(headline[value][name]) for value in values]
    assert page.column("slope")[1:] == ["\n".join(["\N{EN DASH}"] * 5)] * 2
    said = [str(one.get_attribute("title")) for one in page.all("#cells .doubtful")]
    assert set(said) <= {"may be chance"}
    assert len(page.all("#cells .finding")) > 10


def _at_best(run: Path) -> dict[str, dict[str, Any]]:
    """Per value its row of evidence at the layer that is best on the fit split."""
    evidence = load_run(run).tables["evidence"]
    best = evidence.loc[evidence["r_fit"].abs().groupby(evidence["value"]).idxmax()]
    return {row["value"]: row for row in best.to_dict(orient="records")}


def test_columns_that_no_cell_has_are_left_out(page: Page, tmp_path: Path) -> None:
    run = load_run(save_cell(tmp_path / "run"))
    excess = [name for name in run.tables["evidence"] if name.startswith("excess")]
    evidence = run.tables["evidence"].drop(columns=excess).assign(slope=None)
    tables = run.tables | {"evidence": evidence}
    summary = {name: entry for name, entry in run.summary.items() if name != "verdicts"}
    save_run(tmp_path / "run", tables=tables, summary=summary, config_yaml="")
    page.open(write_report(tmp_path))
    titles = [text.replace("\n", " ") for text in page.texts("#cells thead th")]
    assert "drop beyond drawn directions" not in titles
    assert not {"IIA", "slope", "note"} & set(titles)
    assert "IIA" not in page.run("return document.getElementById('legend').textContent")
    assert "largest accuracy drop" in titles


def test_a_cells_evidence_can_be_sorted(page: Page, asked: Path) -> None:
    page.open(asked, "#cell=0")
    rows = load_run(asked.parent / "0").tables["evidence"]
    assert len(page.all("table.evidence tbody tr")) == len(rows) == 20
    heads = page.texts("table.evidence thead th")
    titles = [text.replace("\n", " ") for text in heads]
    assert "position" not in titles  # there is one
    column = titles.index("drop beyond drawn directions")
    page.run("arguments[0].scrollIntoView({block: 'center'})", page.one("table.evidence"))
    page.all("table.evidence thead th")[column].click()
    page.until("return document.querySelector('table.evidence th[aria-sort=ascending]') !== null")
    cells = page.texts(f"table.evidence tbody td:nth-child({column + 1})")
    shown = [float(text.split(" ")[0].replace("\N{MINUS SIGN}", "-")) for text in cells]
    assert shown == pytest.approx(sorted(rows["excess_drop"]), abs=0.006)
    assert all(
        re.search(r"^\S+ \[\S+, \S+\]\np \S+( \S+)?, edited \S+, control \S+$", text)
        for text in cells
    )
    place = titles.index("|R|") + 1
    marked = f"table.evidence tbody td:nth-child({place}) .doubtful"
    assert len(page.all(marked)) == (~rows["r_counts"]).sum() > 0
    verdicts = page.texts(f"table.evidence tbody td:nth-child({titles.index('verdict') + 1})")
    assert verdicts.count("not held") == (~rows["held"]).sum() > 0
    assert "not corrected" not in page.one("#cell").text
    slopes = page.texts(f"table.evidence tbody td:nth-child({titles.index('slope') + 1})")
    assert sorted(float(_ascii(text.split(" ")[0])) for text in slopes) == pytest.approx(
        sorted(rows["slope"]), abs=0.006
    )


def test_the_slope_is_drawn_beside_what_a_value_is_held_by(page: Page, asked: Path) -> None:
    page.open(asked, "#cell=0")
    rows = load_run(asked.parent / "0").tables["evidence"].query("value == 'a'")
    chart = page.drawn("#cell .plot")  # of a, the first value
    found = page.run(
        "return arguments[0].data.filter((trace) => trace.error_y)"
        ".map((trace) => [trace.y, trace.error_y.array])",
        chart,
    )
    wanted = [rows["r"].abs(), rows["iia"], rows["slope"]]
    for (y, above), numbers in zip(found, wanted, strict=True):
        assert y == pytest.approx(numbers.tolist(), abs=1e-4)
        assert len(above) == 4
    floor = page.run(
        "return arguments[0].data.filter((trace) => trace.line.dash).map((t) => t.y)", chart
    )
    assert floor == [[0.03] * 4, [0.01] * 4]  # of the answers that follow, and of the slope
    assert re.search(
        r"\|R\| \d\.\d\d \[", page.hover(chart.find_element(By.CSS_SELECTOR, ".point"))
    )


def test_specificity_has_a_map_per_layer(page: Page, asked: Path) -> None:
    page.open(asked, "#cell=0")
    maps = page.run(
        "return [...document.querySelectorAll('#cell h2')].find("
        "(head) => head.textContent.startsWith('Specificity')).nextSibling.nextSibling"
    )
    plots = maps.find_elements(By.CSS_SELECTOR, ".plot")
    assert len(plots) == 4
    page.run("arguments[0].scrollIntoView({block: 'center'})", plots[0])
    page.until("return arguments[0].dataset.drawn", plots[0])
    rows = load_run(asked.parent / "0").tables["specificity"].query("layer == 0")
    order = ["a", "b", "c", "b-c", "a-(b-c)"]
    wanted = rows.explode("direction_of").pivot(
        index="direction_of", columns="changed", values="slope"
    )
    z = page.run("return arguments[0].data[0].z", plots[0])
    for row, value in zip(z, order, strict=True):
        assert row == pytest.approx(wanted.loc[value, order].tolist(), abs=1e-4)
    assert re.search(r"direction of \S+, \S+ changed", page.hover(plots[0]))


def test_intervals_stand_around_lines_and_bars(page: Page, asked: Path) -> None:
    page.open(asked, "#cell=1")
    titled = "return [...document.querySelectorAll('#cell h2')].findIndex"
    assert page.run(f"{titled}((head) => head.textContent.startsWith('Accuracy drop'))") >= 0
    plots = page.all("#cell .plot")
    dose, bars = plots[10], plots[15]  # after components and positions of five values each
    for plot in (dose, bars):
        page.run("arguments[0].scrollIntoView({block: 'center'})", plot)
        page.until("return arguments[0].dataset.drawn", plot)
    filled = (
        "return arguments[0].data.filter((trace) => trace.fill === 'toself')"
        ".map((trace) => trace.xaxis ?? 'x')"
    )
    panels = ["x", "x2", "x3", "x4"]
    assert page.run(filled, dose) == [panel for panel in panels for _ in range(2)]
    ends = page.run("return [...arguments[0].data].map((trace) => trace.error_y.array)", bars)
    assert ends[0] == pytest.approx([0.06] * 4)
    page.open(asked, "#cell=2")  # of an earlier version
    dose = page.all("#cell .plot")[10]
    page.run("arguments[0].scrollIntoView({block: 'center'})", dose)
    page.until("return arguments[0].dataset.drawn", dose)
    assert page.run(filled, dose) == []
    assert not page.all("table.evidence")


def test_500_cells_open(page: Page, tmp_path: Path) -> None:
    """How soon they do, scripts/benchmarks/report.py measures."""
    save_sweep(tmp_path, 500)
    page.open(write_report(tmp_path))
    assert len(page.all("#cells tbody tr")) == 10
    for chart in ("#maps .plot", "#doses .plot"):
        assert page.drawn(chart).find_elements(By.CSS_SELECTOR, "svg.main-svg")
    page.choose("model", "gpt2")
    assert page.one("#count").text == "100 of 500 cells"


def test_filters_choose_cells_and_charts_follow(page: Page, sweep: Path) -> None:
    page.open(sweep)
    page.choose("model", "arith_encoder")
    page.choose("edit", "shift")
    assert page.one("#count").text == "3 of 16 cells"
    assert page.texts("#cells td:first-child a") == ["3", "7", "11"]
    assert page.texts("#maps .card a") == ["cell 3", "cell 7", "cell 11"]
    assert page.texts("#doses figcaption b") == ["shift"]
    search = page.one("input[type=search]")
    search.send_keys("seed 7")
    assert page.texts("#cells td:first-child a") == ["7"]
    page.one("#filters button").click()
    assert page.one("#count").text == "16 of 16 cells"
    assert search.get_attribute("value") == ""
    page.choose("status", "failed")
    assert page.column("note") == ["expected this, got that"]
    search.send_keys("no such text")
    assert page.one("#count").text == "0 of 16 cells"


def test_columns_sort_by_their_numbers(page: Page, sweep: Path) -> None:
    page.open(sweep)
    titles = page.texts("#cells thead th")
    page.all("#cells thead th")[titles.index("seed")].click()
    assert page.column("seed")[:3] == ["0", "1", "2"]
    page.all("#cells thead th")[titles.index("seed")].click()
    assert page.column("seed")[:4] == ["15", "14", "13", "12"]  # those without results too
    assert page.texts("#maps .card a")[:2] == ["cell 13", "cell 12"]


def test_more_maps_on_demand(page: Page, sweep: Path) -> None:
    page.open(sweep)
    assert len(page.all("#maps .card")) == 12
    page.run("document.querySelector('#maps-more button').click()")
    assert len(page.all("#maps .card")) == 14
    assert page.one("#maps-more").text == "14 of 14 maps shown"


def test_a_cell_has_an_address_and_the_back_button_works(page: Page, sweep: Path) -> None:
    page.open(sweep)
    page.choose("model", "arith_encoder")
    page.all("#cells tbody a")[1].click()
    page.until("return !document.getElementById('cell').hidden")
    assert page.run("return location.hash") == "#cell=3"
    assert page.one("#cell h1").text == "Cell 3 done"
    assert "look at this" in page.texts("#cell .warn li")
    assert "number of problems" not in page.one("#cell pre").text
    page.browser.back()
    page.until("return !document.getElementById('overview').hidden")
    assert page.one("#count").text == "7 of 16 cells"  # the filter stands
    page.browser.forward()
    page.until("return !document.getElementById('cell').hidden")
    page.open(sweep, "#cell=14")
    assert page.one("#cell h1").text == "Cell 14 failed"
    assert "expected this, got that\nTraceback: line 1" in page.texts("#cell pre")
    assert page.one("#cell code").text == "python -m mech_arith problems.seed=14"
    page.open(sweep, "#cell=99")
    assert page.one("#cell h1").text == "No such cell in this report"


def test_the_overview_behind_an_opened_cell_is_drawn_in_its_width(page: Page, sweep: Path) -> None:
    page.open(sweep, "#cell=2")
    page.one("#cell nav a").click()
    page.until("return !document.getElementById('overview').hidden")
    for chart in ("#maps .plot", "#doses .plot"):
        drawn = page.drawn(chart)
        width = "return arguments[0].querySelector('svg.main-svg').getBoundingClientRect().width"
        assert page.run(width, drawn) == pytest.approx(drawn.size["width"], abs=2)


def test_of_equal_drops_the_curves_show_the_one_that_the_table_names(
    page: Page, tmp_path: Path
) -> None:
    run = load_run(save_cell(tmp_path / "run", values=("z", "a")))
    effects = run.tables["effects"]
    most = effects["accuracy_drop"].max()
    tied = (effects["arm"] == "target") & (effects["strength"] == effects["strength"].max())
    effects.loc[tied, "accuracy_drop"] = most
    worst = run.summary["largest_drop"]
    drops = {value: {**drop, "accuracy_drop": most} for value, drop in worst.items()}
    summary = run.summary | {"largest_drop": drops}
    save_run(tmp_path / "run", tables=run.tables, summary=summary, config_yaml="")
    page.open(write_report(tmp_path))
    said = page.column("largest accuracy drop")[0]
    (value,) = re.findall(r"^(\S+), layer", said, re.MULTILINE)
    page.drawn("#doses .plot")
    shown = page.run("return document.querySelector('#doses .plot').data.at(-1).hovertext")
    assert f"direction for {value}, layer" in shown[0]


def test_colours_are_for_the_cells_that_have_lines(page: Page, tmp_path: Path) -> None:
    save_cell(tmp_path / "1")
    save_plan(tmp_path, "0", "1")
    page.open(write_report(tmp_path))
    page.drawn("#doses .plot")
    lines = page.run(
        "return document.querySelector('#doses .plot')"
        ".data.map((line) => [line.name, line.line.color])"
    )
    assert lines[1:] == [["arith_decoder", "#0072b2"]] * 2  # its control, and itself


def test_hypotheses_have_a_row_for_two_of_them_and_one_for_all_steps_together(
    page: Page, tmp_path: Path
) -> None:
    together = {
        "text": "supported, all 4 steps together (rank 8)",
        "places": "ones: layer 1",
        "telling": 0.97,
        "telling_low": 0.9,
        "telling_high": 0.99,
        "floor": 0.1,
        "n_telling": 40,
    }
    save_cell(tmp_path / "0")
    path = save_cell(tmp_path / "1", seed=1) / "summary.json"
    summary = json.loads(path.read_text()) | {"alignments": {"digits": together}}
    path.write_text(json.dumps(summary))
    page.open(write_report(tmp_path))
    (row,) = page.all("#hypotheses tbody tr")
    said = _flat(row.text)
    assert "digits, as a whole?" in said
    assert "supported, all 4 steps together (rank 8)" in said
    assert "ones: layer 1" in said
    assert "digits 0.97 [.90, .99], chance 0.10" in said
    assert said.endswith("40 choices")


def test_a_report_without_edits_says_so_in_both_sections(page: Page, tmp_path: Path) -> None:
    run = load_run(save_cell(tmp_path / "run"))
    tables = {"correlations": run.tables["correlations"]}
    summary = run.summary | {"largest_drop": {}}
    save_run(tmp_path / "run", tables=tables, summary=summary, config_yaml="")
    page.open(write_report(tmp_path))
    for section in ("#doses", "#layers"):
        assert page.one(section).text == "no cell with edits here"
    assert page.one("#about").text.startswith("1 cell: 1 done")
    assert page.one("#maps-more").text == "1 of 1 map shown"


def test_maps_of_two_layers_leave_their_heading_alone(page: Page, tmp_path: Path) -> None:
    save_cell(tmp_path / "run", n_layers=2, n_components=2)
    page.open(write_report(tmp_path), "#cell=run")
    for index in (0, 5):  # components, and the map of positions
        plot = page.all("#cell .plot")[index]
        page.run("arguments[0].scrollIntoView({block: 'center'})", plot)
        page.until("return arguments[0].dataset.drawn", plot)
        title, heading = page.run(
            "return [arguments[0].querySelector('.ytitle'), arguments[0].previousElementSibling]"
            ".map((node) => node.getBoundingClientRect()).map(({top, bottom}) => [top, bottom])",
            plot,
        )
        assert title[0] >= heading[1]


def test_a_failed_cell_has_its_fields_and_its_config(page: Page, tmp_path: Path) -> None:
    save_cell(tmp_path / "0")
    (tmp_path / "1" / ".hydra").mkdir(parents=True)
    (tmp_path / "1" / "error.txt").write_text("expected this, got that\n")
    (tmp_path / "1" / ".hydra" / "config.yaml").write_text(
        "model: {name: gpt2, kind: language_model, path: null}\n"
        "template: {name: sum_of_two, expression: a+b}\n"
        "layers: {part: early, start: null, stop: null, step: 1}\n"
        "intervention: {edit: shift}\nproblems: {seed: 1}\n"
    )
    save_plan(tmp_path, "0", "1", "2")
    page.open(write_report(tmp_path))
    for index, settings in enumerate(page.column("settings")):
        assert f"seed {index}" in settings.splitlines()
    assert "model" not in page.one("#same").text
    page.choose("model", "gpt2")
    assert page.column("status") == ["failed"]
    page.one("#cells tbody a").click()
    page.until("return !document.getElementById('cell').hidden")
    assert "gpt2 \u00b7 a+b" in page.one("#cell header .quiet").text
    assert "early" in page.texts("#cell dd")
    assert "sum_of_two" in page.run("return document.querySelector('#cell details').textContent")


def test_an_error_of_one_line_is_said_once(page: Page, tmp_path: Path) -> None:
    save_cell(tmp_path / "0")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "error.txt").write_text("expected this, got that\n")
    save_plan(tmp_path, "0", "1")
    page.open(write_report(tmp_path), "#cell=1")
    assert page.one("#cell").text.count("expected this, got that") == 1


def test_the_figures_of_a_cell_show_its_tables(page: Page, sweep: Path) -> None:
    page.open(sweep, "#cell=1")
    charts = page.all("#cell .plot")
    assert len(charts) == 5 * 4  # values x (components, positions, dose, layers)
    for index in range(len(charts)):
        page.run("document.querySelectorAll('#cell .plot')[arguments[0]].scrollIntoView()", index)
        page.until(
            "return document.querySelectorAll('#cell .plot')[arguments[0]].dataset.drawn", index
        )
    run = load_run(sweep.parent / "1")
    rows = run.tables["correlations"].query("position == 'all' and value == 'a'")
    wanted = rows.pivot(index="component", columns="layer", values="abs_r").to_numpy()
    z = page.run("return document.querySelectorAll('#cell .plot')[0].data[0].z")
    assert all(
        abs(shown - number) < 1e-4
        for line, numbers in zip(z, wanted, strict=True)
        for shown, number in zip(line, numbers, strict=True)
    )
    edits = run.tables["effects"].query("arm == 'control' and layer == 0")
    of_a = edits[[("a" in names) for names in edits["chosen_for"]]]
    control = page.run("return document.querySelectorAll('#cell .plot')[10].data[0].y")
    assert control[: len(of_a)] == pytest.approx(of_a["accuracy_drop"].tolist(), abs=1e-4)


def test_the_components_of_many_positions_are_shown_one_position_at_a_time(
    page: Page, tmp_path: Path
) -> None:
    run = load_run(save_cell(tmp_path / "run", positions="each"))
    correlations = run.tables["correlations"]
    best = {value: {**found, "position": "5"} for value, found in run.summary["best"].items()}
    save_run(
        tmp_path / "run", tables=run.tables, summary=run.summary | {"best": best}, config_yaml=""
    )
    page.open(write_report(tmp_path), "#cell=run")
    titled = "return [...document.querySelectorAll('h2')].map((head) => head.textContent)"
    assert "|R| of components, positions: 5" in page.run(titled)
    page.choose("position", "13")
    assert "|R| of components, positions: 13" in page.run(titled)
    page.drawn("#cell .plot")
    rows = correlations.query("position == '13' and value == 'a'")
    wanted = rows.pivot(index="component", columns="layer", values="abs_r").to_numpy()
    z = page.run("return document.querySelector('#cell .plot').data[0].z")
    assert z[0] == pytest.approx(wanted[0], abs=1e-4)


def test_heads_are_told_apart(page: Page, tmp_path: Path) -> None:
    run = load_run(save_cell(tmp_path / "run", heads=(0, 11)))
    page.open(write_report(tmp_path), "#cell=run")
    page.choose("position", "all, head 11")
    titled = "return [...document.querySelectorAll('h2')].map((head) => head.textContent)"
    assert "|R| of components, positions: all, head 11" in page.run(titled)
    rows = run.tables["correlations"].query("head == '11' and position == 'all' and value == 'a'")
    wanted = rows.pivot(index="component", columns="layer", values="abs_r").to_numpy()
    page.drawn("#cell .plot")
    z = page.run("return document.querySelector('#cell .plot').data[0].z")
    assert z[0] == pytest.approx(wanted[0], abs=1e-4)
    titles = page.texts("#cell table.evidence thead th")
    assert "head" in titles
    best = run.summary["best"]["a"]
    line = next(
        row for row in page.texts("#cell table.plain-table tbody tr") if row.startswith("a ")
    )
    assert f"all, head {best['head']}" in line


RANKS = {"das": (1, 4), "pca": (1, 2, 4, 8)}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a cell for each method that was asked at its ranks, and of one that was not."""
    directory = tmp_path_factory.mktemp("ranks")
    for place, (method, asked) in enumerate(RANKS.items()):
        path = save_cell(
            directory / method, edit="interchange", seed=place, fields={"tracing": method}
        )
        run = load_run(path)
        evidence = run.tables["evidence"]
        tables = {"evidence": pd.concat([_of_rank(evidence, rank) for rank in asked])}
        save_run(path, tables=run.tables | tables, summary=run.summary, config_yaml=run.config_yaml)
    save_cell(directory / "scale", fields={"tracing": "pls"})
    return write_report(directory)


def _of_rank(evidence: pd.DataFrame, rank: int) -> pd.DataFrame:
    """The larger the rank, the more answers follow; random frames do so too."""
    numbers = {name: evidence[name] * rank / 8 for name in ("iia", "iia_low", "iia_high")}
    return evidence.assign(rank=rank, iia_random=0.01 * rank, floor=0.02, **numbers)


LINES = "return document.querySelectorAll('#ranks .plot')[arguments[0]].data.map((trace) => "


def test_the_chart_of_ranks_has_the_tables_numbers(page: Page, ranks: Path) -> None:
    page.open(ranks)
    page.drawn("#ranks .plot")
    cards = page.texts("#ranks figcaption")
    assert [text.partition(",")[0] for text in cards] == ["a", "b", "c", "b-c", "a-(b-c)"]
    assert all(text.endswith("2 cells") for text in cards)
    lines = page.run(
        LINES + "[trace.name, trace.line.dash ?? '', trace.y, trace.error_y?.array])", 0
    )
    for method in RANKS:
        rows = at_headline(load_run(ranks.parent / method).tables["evidence"])["a"]
        for column, dash in (
            ("iia", ""),
            ("iia_random", "dot"),
            ("ceiling", "dash"),
            ("floor", "longdashdot"),
        ):
            (shown,) = [y for name, of, y, _ in lines if (name, of) == (method, dash)]
            assert shown[:-1] == pytest.approx([row[column] for row in rows], abs=1e-4)
        (bars,) = [bars for name, dash, _, bars in lines if (name, dash) == (method, "")]
        above = [row["iia_high"] - row["iia"] for row in rows]
        assert bars[:-1] == pytest.approx(above, abs=1e-4)
    legend = page.one("#ranks .plot").find_elements(By.CSS_SELECTOR, ".legendtext")
    assert [text.text for text in legend] == ["das", "pca"]
    ticks = page.run("return document.querySelector('#ranks .plot').layout.xaxis.ticktext")
    assert ticks == ["1", "2", "4", "8"]


def test_values_methods_and_ranks_can_be_chosen(page: Page, ranks: Path) -> None:
    page.open(ranks)
    assert page.options("ranks-method") == ["all", "das", "pca"]
    assert page.options("ranks-rank") == ["all", "1", "2", "4", "8"]
    page.choose("ranks-value", "b-c")
    assert [text.partition(",")[0] for text in page.texts("#ranks figcaption")] == ["b-c"]
    page.choose("ranks-method", "das")
    page.drawn("#ranks .plot")
    assert set(page.run(f"{LINES}trace.name)", 0)) == {"das"}
    page.choose("ranks-rank", "4")
    page.drawn("#ranks .plot")
    (row,) = (
        row
        for row in at_headline(load_run(ranks.parent / "das").tables["evidence"])["b-c"]
        if row["rank"] == 4
    )
    shown = page.run(f"{LINES}[trace.line.dash ?? '', trace.y])", 0)
    assert {dash: y[0] for dash, y in shown}[""] == pytest.approx(row["iia"], abs=1e-4)
    page.choose("ranks-rank", "2")  # das was not asked at it
    assert page.one("#ranks").text == "no cell here was asked for this"
    for name in ("value", "method", "rank"):
        page.choose(f"ranks-{name}", "all")
    assert len(page.all("#ranks figcaption")) == 5


def test_a_point_of_the_chart_of_ranks_says_what_it_is(page: Page, ranks: Path) -> None:
    page.open(ranks)
    page.choose("ranks-value", "c")
    chart = page.drawn("#ranks .plot")
    said = page.hover(chart.find_elements(By.CSS_SELECTOR, ".scatterlayer .point")[-1])
    assert re.search(r"IIA \d\.\d{3} \[\S+ \S+\], rank \d", said)
    assert re.search(r"random \S+, floor \S+, ceiling \S+", said)


def test_where_no_cell_has_several_ranks_there_is_no_chart_of_them(page: Page, sweep: Path) -> None:
    page.open(sweep)
    assert not page.one("#ranks-title").is_displayed()


def test_two_runs_of_heads_have_a_chart_for_each_head(page: Page, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        save_cell(tmp_path / name, heads=(0, 11), n_layers=2, seed=seed)
    built = build_comparison(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    page.open(built.page)
    page.drawn("#differences .plot")
    cards = page.texts("#differences .cards figcaption")
    assert cards[:2] == ["a, all, head 0", "a, all, head 11"]
    assert len(cards) == 2 * 5


def test_hovering_a_curve_says_what_it_is_and_a_click_how_to_have_it_again(
    page: Page, sweep: Path
) -> None:
    page.open(sweep)
    point = page.drawn("#doses .plot").find_elements(By.CSS_SELECTOR, ".scatterlayer .point")[-2]
    said = page.hover(point)
    assert re.search(r"accuracy drop \d\.\d{3} \[\S+ \S+\], control \S+ ?cell \d+: arith_\w+", said)
    command = page.click(point)
    assert re.fullmatch(
        r"python -m mech_arith model=arith_\w+ problems.seed=\d+ layers.start=\d layers.stop=\d "
        r"layers.step=1 tracing.position_map=false 'intervention.strengths=\[\S+\]'",
        command,
    )
    assert page.one("#reproduce p").text.startswith("accuracy drop")
    page.one("#reproduce button[aria-label=Close]").click()
    assert not page.one("#reproduce").is_displayed()


def test_a_control_has_the_hue_of_its_target_and_is_told_from_it(page: Page, asked: Path) -> None:
    page.open(asked, "#cell=1")
    dose = page.drawn("#cell .cards.full .plot")
    lines = page.run(
        "return arguments[0].data.filter((trace) => trace.mode === 'lines+markers')"
        ".map((trace) => [trace.xaxis ?? 'x', trace.line.color, trace.line.dash ?? 'solid'])",
        dose,
    )
    by_panel: dict[str, dict[str, str]] = {}
    for panel, colour, dash in lines:
        by_panel.setdefault(panel, {})[dash] = colour
    assert [set(arms) for arms in by_panel.values()] == [{"solid", "dot"}] * 4
    assert all(arms["solid"] == arms["dot"] for arms in by_panel.values())
    assert len({arms["solid"] for arms in by_panel.values()}) == 4
    bars = page.run(
        "const plot = [...document.querySelectorAll('#cell .plot')].at(-1);"
        "plot.scrollIntoView({block: 'center'}); return plot"
    )
    page.until("return arguments[0].dataset.drawn", bars)
    target, control = page.run(
        "return arguments[0].data.map((trace) => [trace.marker.color, trace.marker.opacity])", bars
    )
    assert target[0] == control[0]
    assert target[1] > control[1]


def test_cells_that_share_a_map_show_it_once(page: Page, tmp_path: Path) -> None:
    save_cell(tmp_path / "0", edit="scale")
    save_cell(tmp_path / "1", edit="shift")
    save_cell(tmp_path / "2", seed=1)
    page.open(write_report(tmp_path))
    assert page.one("#maps-more").text == "2 of 2 maps shown"
    shared, alone = page.texts("#maps figcaption")
    assert shared == "cells 0, 1 seed 0, n = 500"
    assert alone == "cell 2 scale \N{MIDDLE DOT} seed 1, n = 500"


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two cells of 30 layers and one of six."""
    directory = tmp_path_factory.mktemp("deep")
    save_cell(directory / "0", n_layers=30, edit="interchange")
    save_cell(directory / "1", n_layers=30, edit="scale", seed=1)
    save_cell(directory / "2", n_layers=6, edit="scale", seed=2)
    return write_report(directory)


@pytest.fixture
def small_window(page: Page) -> Iterator[Page]:
    """The page in a window of 1280 x 720."""
    window = {"width": 1280, "height": 720, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    yield page
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


OUTSIDE = """
const shown = [...document.querySelectorAll('main:not([hidden]) *')]
  .filter((node) => node.getClientRects().length && !node.closest('caption'));
return shown.filter((node) => {
  const { left, right } = node.getBoundingClientRect();
  return right > left && (left < -1 || right > innerWidth + 1);
}).map((node) => `${node.tagName} ${node.textContent.slice(0, 40)}`);
"""

COLLIDING = """
const found = [];
for (const plot of document.querySelectorAll('main:not([hidden]) .plot')) {
  for (const axis of ['.xtick', '.ytick', '.annotation']) {
    const boxes = [...plot.querySelectorAll(`${axis} text`)]
      .map((node) => node.getBoundingClientRect());
    boxes.forEach((a, index) => boxes.slice(index + 1).forEach((b) => {
      const across = a.right >= b.left && b.right >= a.left;
      const down = a.bottom >= b.top + 2 && b.bottom >= a.top + 2;
      if (across && down) found.push([plot.previousElementSibling.textContent, axis]);
    }));
  }
}
return found;
"""


@pytest.mark.parametrize("address", ["", "#cell=0", "#cell=1", "#cell=2"])
def test_nothing_is_clipped_or_collides_at_1280_by_720(
    address: str, small_window: Page, deep: Path
) -> None:
    page = small_window
    page.open(deep, address)
    assert page.run("return innerWidth") == 1280
    for index in range(
        page.run("return document.querySelectorAll('main:not([hidden]) .plot').length")
    ):
        plot = page.all("main:not([hidden]) .plot")[index]
        page.run("arguments[0].scrollIntoView()", plot)
        page.until("return arguments[0].dataset.drawn", plot)
    assert page.run(OUTSIDE) == []
    assert page.run(COLLIDING) == []


def test_models_and_templates_fit_beside_the_numbers(small_window: Page, tmp_path: Path) -> None:
    """As in `make sweep`. A template is shown where its expression does not tell it from others."""
    page = small_window
    asked = [("nested_subtraction", "a-(b-c)"), ("sum_then_difference", "a+b-c")]
    for index in range(4):
        template, expression = asked[index // 2]
        save_cell(
            tmp_path / str(index),
            seed=index,
            model=("arith_encoder", "arith_decoder")[index % 2],
            template=template,
            expression=expression,
            edit="interchange",
            fields={"seed": 0},
        )
    page.open(write_report(tmp_path))
    assert page.texts("#cells thead th")[:4] == ["cell", "status", "model", "expression"]
    assert page.run(OUTSIDE) == []
    page.one("input[type=search]").send_keys("sum_then")
    page.until("return document.querySelector('#count').textContent === '2 of 4 cells'")

    save_cell(tmp_path / "4", seed=4, template="word_savings", fields={"seed": 0})
    page.open(write_report(tmp_path))
    assert "template" in page.one("#cells").text


def test_many_swept_options_stand_in_one_column(small_window: Page, tmp_path: Path) -> None:
    """The numbers stay in the window."""
    page = small_window
    for index in range(4):
        save_cell(
            tmp_path / str(index),
            seed=index,
            edit=("scale", "shift")[index % 2],
            fields={
                "intervention.strengths": f"[{index}, 1]",
                "problems.n": 100 * index + 100,
                "prompt": ("chat, 8 shots", "qa, 4 shots")[index % 2],
                "design": ("uniform", "decorrelated b-c")[index // 2],
            },
        )
    page.open(write_report(tmp_path))
    titles = page.texts("#cells thead th")
    assert titles[:3] == ["cell", "status", "settings"]
    settings = page.column("settings")[1].splitlines()
    assert settings[:2] == ["intervention shift", "prompt qa, 4 shots"]
    assert {"intervention.strengths [1, 1]", "problems.n 200", "seed 1"} <= set(settings)
    assert page.run(OUTSIDE) == []
    page.one("input[type=search]").send_keys("strengths [1,")
    assert page.texts("#cells td:first-child a") == ["1"]


def test_layer_0_is_at_the_top_where_rows_are_layers_and_at_the_left_where_columns_are(
    page: Page, deep: Path
) -> None:
    page.open(deep)
    columns = page.run(TICKS, page.drawn("#maps .plot"), ".xtick", "left")
    assert columns[0] == "0"
    assert [int(text) for text in columns] == sorted(int(text) for text in columns)
    page.open(deep, "#cell=2")
    titled = "return [...document.querySelectorAll('#cell h2')].find((head) => head.textContent"
    maps = page.run(f"{titled} === 'Best |R| by position').nextSibling.nextSibling")
    plot = maps.find_element(By.CSS_SELECTOR, ".plot")
    page.run("arguments[0].scrollIntoView({block: 'center'})", plot)
    page.until("return arguments[0].dataset.drawn", plot)
    assert page.run(TICKS, plot, ".ytick", "top") == list("012345")


TICKS = """
const [plot, axis, side] = arguments;
return [...plot.querySelectorAll(`${axis} text`)]
  .map((node) => [node.getBoundingClientRect()[side], node.textContent])
  .sort((a, b) => a[0] - b[0])
  .map(([, text]) => text);
"""


def test_edits_of_one_strength_have_no_dose(page: Page, tmp_path: Path) -> None:
    run = load_run(save_cell(tmp_path / "run"))
    effects = run.tables["effects"].query("strength == 2.0")
    tables = run.tables | {"effects": effects}
    save_run(tmp_path / "run", tables=tables, summary=run.summary, config_yaml="")
    path = write_report(tmp_path)
    page.open(path)
    assert page.one("#doses").text == "every edit here has one strength: see below"
    page.open(path, "#cell=run")
    heads = page.texts("#cell h2")
    assert "Largest accuracy drop by layer" in heads
    assert not [head for head in heads if head.startswith("Accuracy drop against")]


def test_two_runs_stand_side_by_side(small_window: Page, tmp_path: Path) -> None:
    page = small_window
    for seed, name in enumerate(("a", "b")):
        save_cell(tmp_path / name, edit="interchange", seed=seed)
    built = build_comparison(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    page.open(built.page)
    table = built.compared.table
    titles = page.texts("#differences thead th")
    assert titles == ["quantity", "value", "layer", "strength", "A", "B", "B minus A", "p"]
    shown = page.texts("#differences tbody tr:first-child td")
    first = table.sort_values("p_holm", kind="stable").iloc[0]
    assert shown[-2].split(" ")[0] == _signed(first["difference"])
    assert page.one("#differences").text.count("independent samples") == 1
    plot = page.drawn("#differences .plot")
    slopes = table.query("quantity == 'slope' and value == 'a'")["difference"]
    assert page.run("return arguments[0].data.at(-2).y", plot) == pytest.approx(
        slopes.tolist(), abs=1e-4
    )
    assert page.run(OUTSIDE) == []
    assert "comparison.parquet" in page.one("footer").text
    assert "sweep.parquet" not in page.one("footer").text
    page.open(write_report(tmp_path / "a"))
    assert not page.one("#differences").is_displayed()


def test_hovering_a_map(page: Page, sweep: Path) -> None:
    page.open(sweep)
    plot = page.drawn("#maps .plot")
    said = page.hover(plot)
    assert re.search(r"layer \d: \|R\| 0\.\d\d ?R \S+ of component \d+, all", said)
    assert "intervention.edit=none" in page.click(plot)


def test_commands_are_copied(page: Page, sweep: Path) -> None:
    page.open(sweep)
    page.all("#cells tbody button.copy")[1].click()
    page.until(
        "return [...document.querySelectorAll('.copy')].some(b => b.textContent == 'Copied')"
    )
    search = page.one("input[type=search]")
    search.send_keys(Keys.CONTROL, "v")
    assert search.get_attribute("value") == (
        "python -m mech_arith model=arith_encoder problems.seed=1"
    )


def test_hostile_text_is_text(page: Page, hostile: Path) -> None:
    page.open(hostile)
    shown = page.run("return document.getElementById('cells').textContent")
    assert "<img src=x onerror=" in shown
    assert "{{7*7}}" in shown
    page.choose("model", HOSTILE[:10])
    assert page.one("#count").text == "1 of 3 cells"
    page.one("input[type=search]").send_keys("<script>window")
    assert page.one("#count").text == "1 of 3 cells"
    plot = page.drawn("#maps .plot")
    assert '"><img src=x' in plot.get_attribute("textContent")
    assert "<img src=x" in page.hover(plot) + plot.get_attribute("textContent")
    page.drawn("#doses .plot")
    page.drawn("#layers .plot")
    assert page.run("return document.querySelectorAll('img, svg a, iframe, object').length") == 0


@pytest.mark.parametrize("cell", ["0", "2"])
def test_hostile_text_is_text_on_a_cells_page(cell: str, page: Page, hostile: Path) -> None:
    page.open(hostile)
    page.all("#cells tbody tr td:first-child a")[int(cell)].click()
    page.until("return !document.getElementById('cell').hidden")
    for index in range(len(page.all("#cell .plot"))):
        page.run("document.querySelectorAll('#cell .plot')[arguments[0]].scrollIntoView()", index)
        page.until(
            "return document.querySelectorAll('#cell .plot')[arguments[0]].dataset.drawn", index
        )
    assert "<script>window.hacked=1</script>" in page.run("return cell.textContent")
    assert page.run("return document.querySelectorAll('img, svg a, iframe, object').length") == 0
    width = page.run("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1], "long text pushes the page apart"


def test_controls_can_be_reached_by_keyboard(page: Page, sweep: Path) -> None:
    page.open(sweep)
    reached = []
    for _ in range(9):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        reached.append(page.run("return document.activeElement.name || ''"))
    assert [name for name in reached if name] == [
        *("model", "template", "layers", "edit", "status", "text")
    ]
    assert page.run(
        "return [...document.querySelectorAll('select, input')].every(x => x.labels[0])"
    )


def test_the_commands_give_the_same_numbers(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those beside the headline numbers, narrowed to one layer and strength."""
    assert main(monkeypatch, tmp_path / "whole", *SMALL, "problems.n=100") == 0
    page.open(write_report(tmp_path / "whole" / "run"), "#cell=run")
    tables = page.all("#cell .plain-table")
    assert len(tables) == 2
    for table in tables:
        (row, *_) = table.find_elements(By.CSS_SELECTOR, "tbody tr")
        value, number, beside, *_ = [td.text for td in row.find_elements(By.CSS_SELECTOR, "td")]
        button = row.find_element(By.CSS_SELECTOR, "button")
        command = shlex.split(str(button.get_attribute("title")))
        assert command[:3] == ["python", "-m", "mech_arith"]
        again = tmp_path / str(tables.index(table))
        assert main(monkeypatch, again, *command[3:]) == 0
        summary = load_run(again / "run").summary
        layers = set(load_run(again / "run").tables["correlations"]["layer"])
        assert len(layers) == 1
        if table is tables[0]:
            found = summary["best"][value]
            assert (number, beside) == (f"{found['abs_r']:.2f}", _signed(found["r_passed"]))
        else:
            found = summary["largest_drop"][value]
            assert number == _signed(found["accuracy_drop"], 3)
            assert beside == _signed(found["control_drop"], 3)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _ascii(text: str) -> str:
    return text.replace("\N{MINUS SIGN}", "-")


def _signed(number: float, digits: int = 2) -> str:
    """As the page writes it."""
    assert math.isfinite(number)
    return f"{number:.{digits}f}".replace("-", "\u2212")


def test_a_cells_figures_are_read_from_disk(page: Page, tmp_path: Path):
    save_cell(tmp_path / "0")
    figures = tmp_path / "0" / "figures"
    figures.mkdir()
    Image.new("RGB", (30, 20)).save(figures / "own.png")
    (figures / "broken.png").write_bytes(b"no image")
    page.open(write_report(tmp_path), "#cell=0")
    page.run("document.querySelector('.files img').scrollIntoView()")  # read when they are seen
    page.until("return document.querySelectorAll('.files figure').length == 1")
    page.until("return document.querySelector('.files img').naturalWidth == 30")
    assert page.texts(".files figcaption") == ["own"]
