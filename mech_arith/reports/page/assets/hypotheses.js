"use strict";
/* Rival hypotheses: which one the interventions support, a row per cell and two hypotheses. */

const shareOf = (pair, name) =>
  el(
    "li",
    {},
    isolated(name),
    ` ${two(pair.share?.[name])}${interval(pair.share_low?.[name], pair.share_high?.[name])}`,
    el("span", { class: "quiet" }, `, chance ${two(pair.floor?.[name])}`),
  );

const supportOf = (cell, [names, pair]) => [
  el("span", {}, el("a", { href: cellAddress(cell) }, isolated(cell.id)), el("span", { class: "quiet" }, " ", isolated(cell.name))),
  isolated(`${names}?`),
  el("b", {}, isolated(pair.text)),
  el("ul", { class: "plain", title: pair.numbers }, ...Object.keys(pair.supported).map((name) => shareOf(pair, name))),
  el("span", {}, `${pair.clearest.n_distinguishing} pairs, ${layerOf(pair.clearest)}`),
];

/** The section, of the cells that the filters leave; hidden where no cell has rivals. */
function showHypotheses(cells, all) {
  const place = document.getElementById("hypotheses");
  const rowsOf = (cell) => Object.entries(cell.hypotheses ?? {}).map((pair) => supportOf(cell, pair));
  place.closest("section").hidden = !all.some((cell) => Object.keys(cell.hypotheses ?? {}).length);
  const rows = cells.flatMap(rowsOf);
  const heads = ["cell", "hypotheses", "the interventions support", "answers as each expects, at the clearest place", "counted"];
  place.replaceChildren(
    rows.length ? plainTable("", heads, rows) : el("p", { class: "quiet" }, "no cell here has rivals"),
  );
}
