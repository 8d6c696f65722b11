"""Take the picture of a sweep's report in docs/sweeps.md, in headless Chromium.

    python -m mech_arith -m +experiment=quickstart hydra.sweep.dir=multirun/quickstart
    python scripts/report_figure.py multirun/quickstart

Writes docs/figures/report.png. Needs the dev extra, and Debian's packages chromium and
chromium-driver.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from mech_arith.reports.page import write_report

TARGET = Path(__file__).parent.parent / "docs" / "figures" / "report.png"
WIDTH = 1400
END = "return document.getElementById('layers-title').getBoundingClientRect().top"
"""How far down the picture goes: what follows looks much like what is above it."""

READY = "return document.documentElement.dataset.ready"
DRAWN = "return [...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)"


def main() -> None:
    """Write the report and take its picture."""
    if len(sys.argv) != 2:
        sys.exit("expected one argument, the directory of a sweep of experiment=quickstart")
    picture = photograph(write_report(Path(sys.argv[1])))
    TARGET.parent.mkdir(exist_ok=True)
    # A palette halves the file; this way of choosing it keeps the colour scale smooth.
    picture.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(TARGET, optimize=True)
    print(TARGET)


def photograph(page: Path) -> Image.Image:
    """The page down to `END`, its charts drawn."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    with webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver")) as browser:
        browser.set_window_size(WIDTH, 1000)
        browser.get(page.resolve().as_uri())
        waiting = WebDriverWait(browser, 60)
        waiting.until(lambda _: browser.execute_script(READY))
        # A window as high as the page: charts are drawn when they come near the window.
        height = browser.execute_script("return document.documentElement.scrollHeight")
        browser.set_window_size(WIDTH, height + 200)
        waiting.until(lambda _: browser.execute_script(DRAWN))
        whole = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        return whole.crop((0, 0, whole.width, int(browser.execute_script(END))))


if __name__ == "__main__":
    main()
