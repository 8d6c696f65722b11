"use strict";
/* Start: the table first, then the charts; and which page the address asks for. */

async function start() {
  const data = JSON.parse(await unpack("overview"));
  const { cells } = data;
  cells.forEach((cell, place) => (cell.place = place));
  const named = makeNames(cells);
  showAbout(data);
  window.addEventListener("hashchange", () => route(data));
  const { table, chosen } = await makeTable(cells, named, data.columns, (now) => follow(now));
  const showCount = makeFilters(cells, table);
  const follow = (now) => {
    showCount(now);
    showHypotheses(now, cells);
    showMaps(now);
    showRanks(now, cells);
    showCurves(now, cells);
  };
  makeChoices(cells, named.varying, () => showCurves(chosen(), cells));
  makeRankChoices(cells, () => showRanks(chosen(), cells));
  showCount(cells);
  await showDifferences(data.differences, data);
  performance.mark("table");
  await route(data);
  await pause(); // the table is painted before the charts' library is unpacked
  showScale(document.getElementById("scale"));
  follow(chosen());
  await firstCharts();
  performance.mark("charts");
  document.documentElement.dataset.ready = "yes";
}

function showAbout({ cells, written, version }) {
  const counts = new Map();
  for (const { status } of cells) counts.set(status, (counts.get(status) ?? 0) + 1);
  document
    .getElementById("about")
    .replaceChildren(
      `${counted(cells.length, "cell")}: `,
      ...[...counts].flatMap(([status, count], place) => [
        place ? ", " : "",
        `${count} `,
        showStatus(status),
      ]),
      `. Written ${written} by mech_arith ${version}.`,
    );
}

const places = { overview: 0 };

/** The cell that the address asks for; null for the overview. */
function asked({ cells }) {
  if (!location.hash.startsWith("#cell=")) return null;
  const id = location.hash.slice("#cell=".length);
  return cells.find((cell) => cellAddress(cell) === `#cell=${id}` || cell.id === id) ?? undefined;
}

async function route(data) {
  const [overview, page] = ["overview", "cell"].map((id) => document.getElementById(id));
  const cell = asked(data);
  hideCommand();
  if (!overview.hidden && cell !== null) places.overview = window.scrollY;
  if (cell) await showCellPage(cell, data);
  else if (cell === undefined) {
    page.replaceChildren(
      el("h1", { tabindex: "-1" }, "No such cell in this report"),
      el("p", {}, el("a", { href: "#" }, "\u2190 all cells")),
    );
  } else page.replaceChildren();
  overview.hidden = cell !== null;
  page.hidden = cell === null;
  document.title = `${cell ? `cell ${cell.id}, ` : ""}${data.title} - mech_arith`;
  window.scrollTo(0, cell === null ? places.overview : 0);
  if (cell !== null) page.querySelector("h1").focus({ preventScroll: true });
}

start().catch((error) => {
  document.body.prepend(el("p", { class: "warn" }, `This page could not be shown: ${error}`));
  throw error;
});
