"use strict";
/* Rival hypotheses: which one the interventions support, a row per cell and two hypotheses, and one
   for all steps of a hypothesis together. */

const shareOf = (pair, name) =>
  el(
    "li",
    {},
    isolated(name),
    ` ${two(pair.share?.[name])}${interval(pair.share_low?.[name], pair.share_high?.[name])}`,
    el("span", { class: "quiet" }, `, chance ${two(pair.floor?.[name])}`),
  );

const linkTo = (cell) =>
  el("span", {}, el("a", { href: cellAddress(cell) }, isolated(cell.id)), el("span", { class: "quiet" }, " ", isolated(cell.name)));

const supportOf = (cell, [names, pair]) => [
  linkTo(cell),
  isolated(`${names}?`),
  el("b", {}, isolated(pair.text)),
  el("ul", { class: "plain", title: pair.numbers }, ...Object.keys(pair.supported).map((name) => shareOf(pair, name))),
  el("span", {}, `${pair.clearest.n_distinguishing} pairs, ${layerOf(pair.clearest)}`),
];

const togetherOf = (cell, [name, found]) => [
  linkTo(cell),
  isolated(`${name}, as a whole?`),
  el("span", {}, el("b", {}, isolated(found.text)), el("br"), isolated(found.places)),
  el(
    "ul",
    { class: "plain" },
    shareOf(
      {
        share: { [name]: found.telling },
        share_low: { [name]: found.telling_low },
        share_high: { [name]: found.telling_high },
        floor: { [name]: found.floor },
      },
      name,
    ),
  ),
  el("span", {}, `${found.n_telling} choices`),
];

/** The section, of the cells that the filters leave; hidden where no cell has any. */
function showHypotheses(cells, all) {
  const place = document.getElementById("hypotheses");
  const rowsOf = ({ hypotheses = {}, alignments = {}, ...cell }) => [
    ...Object.entries(hypotheses).map((pair) => supportOf(cell, pair)),
    ...Object.entries(alignments).map((found) => togetherOf(cell, found)),
  ];
  place.closest("section").hidden = !all.some((cell) => rowsOf(cell).length);
  const rows = cells.flatMap(rowsOf);
  const heads = ["cell", "hypotheses", "the interventions support", "answers as each expects, at the clearest place", "counted"];
  place.replaceChildren(
    rows.length ? plainTable("", heads, rows) : el("p", { class: "quiet" }, "no cell here compares hypotheses"),
  );
}
