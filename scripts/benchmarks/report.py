"""How long the report of a large sweep takes to write, and to open in Chromium.

    python scripts/benchmarks/report.py [--cells 500]

Needs the dev extra and Debian's packages chromium and chromium-driver.
"""

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait
from synthetic import save_sweep

from mech_arith.reports.page.build import build

OPENINGS = 3


def main() -> None:
    """Make a sweep, report on it, open the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--keep", type=Path, help="make the sweep here and leave it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.keep or Path(temporary)
        save_sweep(directory, arguments.cells)
        started, computed = time.monotonic(), time.process_time()
        page = build(directory, [directory]).page
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        wall, cpu = time.monotonic() - started, time.process_time() - computed
        print(f"{arguments.cells} cells written in {wall:.1f} s ({cpu:.1f} s of CPU)")
        print(f"memory {peak:.0f} MiB at most, of this process from its start")
        for path in [*sorted(page.parent.glob("*.parquet")), page]:
            print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
        opened = [open_page(page) for _ in range(OPENINGS)]
        for name in ("table", "charts"):
            times = [marks[name] / 1000 for marks in opened]
            print(f"{name} shown after {statistics.median(times):.2f} s (each: {times})")
        busy = statistics.median(marks["cpu"] for marks in opened)
        print(f"the page's thread computed for {busy:.2f} s: the least on a busy machine too")


def open_page(page: Path) -> dict[str, float]:
    """Milliseconds from the navigation to the table and to the first charts, in a fresh browser.

    And under `cpu` the seconds that the page's thread computed, however busy the machine was.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        options.add_argument(argument)
    with webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver")) as browser:
        browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        browser.get(page.resolve().as_uri())
        WebDriverWait(browser, 60).until(
            lambda _: browser.execute_script("return document.documentElement.dataset.ready")
        )
        marks = browser.execute_script(
            "return Object.fromEntries(performance.getEntriesByType('mark')"
            ".map(({name, startTime}) => [name, Math.round(startTime)]))"
        )
        metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        (marks["cpu"],) = [m["value"] for m in metrics if m["name"] == "TaskDuration"]
        return marks


if __name__ == "__main__":
    main()
