"use strict";
/* A cell's own page: what it found, how it was run, and how to run it again. */

async function showCellPage(cell, { cells, chunk, columns, site }) {
  const main = document.getElementById("cell");
  const page = (await cellChunk(Math.floor(cell.place / chunk)))[cell.place % chunk];
  const parts = [pageHeader(cell, cells), el("h2", {}, "Command"), commandBlock(commandOf(cell))];
  if (!page.summary) main.replaceChildren(...parts, ...withoutResult(cell, page.config));
  else {
    main.replaceChildren(
      ...parts,
      ...warningsOf(page.summary),
      ...verdictsOf(page.summary),
      ...hypothesesOf(page.summary),
      el("h2", {}, "Headline numbers"),
      ...headlines(cell, page, columns),
      ...(await evidenceTable(page.evidence, columns, site)),
      ...tracingFigures(cell, page.traced),
      ...editFigures(cell, page.edited),
      ...tokenFigures(page.tokens),
      ...specificityFigures(page.specificity),
      ...figureFiles(page.figures),
      el("h2", {}, "What made these numbers"),
      factTable(page.summary),
      ...configOf(page.config),
    );
  }
}

function pageHeader(cell, cells) {
  const neighbour = (step, text) => {
    const other = cells[cell.place + step];
    return other ? el("a", { href: cellAddress(other) }, text) : null;
  };
  return el(
    "header",
    {},
    el(
      "nav",
      { "aria-label": "Cells" },
      el("a", { href: "#" }, "\u2190 all cells"),
      neighbour(-1, "previous"),
      neighbour(1, "next"),
    ),
    el("h1", { tabindex: "-1" }, "Cell ", isolated(cell.id), " ", showStatus(cell.status)),
    el("p", { class: "quiet" }, isolated(cell.name)),
    el(
      "dl",
      { class: "fields" },
      ...Object.entries(cell.fields).map(([name, value]) =>
        el("div", {}, el("dt", {}, fieldName(name)), el("dd", {}, isolated(value ?? DASH))),
      ),
    ),
  );
}

const withoutResult = (cell, config) => [
  el("h2", {}, "No result"),
  el("p", { class: "warn" }, isolated(cell.note || cell.status)),
  cell.error && cell.error !== cell.note ? el("pre", { dir: "auto" }, cell.error) : null,
  ...(config ? configOf(config, ".hydra/config.yaml") : []),
].filter(Boolean);

const warningsOf = (summary) =>
  summary.warnings?.length
    ? [
        el("h2", {}, "Warnings"),
        el("ul", { class: "warn" }, ...summary.warnings.map((text) => el("li", {}, isolated(text)))),
      ]
    : [];

/** Which of two rival hypotheses the interventions support, and how all steps of each do together. */
function hypothesesOf({ hypotheses = {}, alignments = {} }) {
  const pairs = Object.entries(hypotheses);
  const together = Object.entries(alignments);
  if (!pairs.length && !together.length) return [];
  return [
    el("h2", {}, "How is the answer computed?"),
    el(
      "ul",
      { class: "hypotheses" },
      ...pairs.map(([names, pair]) =>
        el("li", {}, isolated(`${names}? ${pair.text}`), el("br"), isolated(pair.numbers)),
      ),
      ...together.map(([name, found]) =>
        el("li", {}, isolated(`${name}: ${found.text}`), el("br"), isolated(found.places)),
      ),
    ),
  ];
}

/** For each value where it is held and where it is used, in words. */
function verdictsOf({ verdicts = {} }) {
  const values = Object.keys(verdicts).sort(byLength);
  if (!values.length) return [];
  return [
    el("h2", {}, "Where each value is held, and where it is used"),
    el("ul", {}, ...values.map((value) => el("li", {}, isolated(verdicts[value].text)))),
  ];
}

const tile = (name, number, about, ends = "", standing = {}) =>
  el(
    "div",
    { ...standing, class: `tile ${standing.class ?? ""}` },
    el("span", {}, name),
    el("b", {}, number, el("small", {}, ends)),
    el("small", {}, about),
  );

function headlines(cell, page, columns) {
  const { summary } = page;
  const [accuracy, floor] = cell.baseline;
  const drop = largestDrop(cell);
  const [searched, edits] = cell.searched;
  return [
    el(
      "div",
      { class: "tiles" },
      tile("baseline accuracy", three(accuracy), `floor ${three(floor)}; n = ${summary.n_report}`),
      ...headlineTiles(cell, columns),
      drop
        ? tile("largest accuracy drop", three(drop[1].accuracy_drop), `${clipped(drop[0], 40)}; of ${edits} edits`)
        : null,
      drop ? tile("its control", three(drop[1].control_drop), "random directions, moved as far") : null,
    ),
    el("div", { class: "pair" }, bestTable(cell), dropTable(cell)),
  ];
}

/** What is known of the best-traced value: nothing is chosen on the numbers that are shown. */
function headlineTiles(cell, columns) {
  const [row] = cell.headline;
  if (!row) return [];
  const where = `${clipped(row.value, 40)}, ${layerOf(row)}`;
  return columns
    .filter((column) => column.is_headline && !column.is_text && isKnown(row, column))
    .map((column) =>
      tile(
        column.title,
        two(numberOf(row, column)),
        [where, ...besideOf(row, column)].join("; "),
        interval(...endsOfNumber(row, column)),
        STANDINGS[row.judged[column.name]],
      ),
    );
}

function plainTable(caption, heads, rows) {
  return el(
    "table",
    { class: "plain-table" },
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((entry) => el("td", entry instanceof Node ? {} : { class: "number" }, entry))))),
  );
}

const bestTable = (cell) =>
  plainTable(
    `Best of ${cell.searched[0]} components per value: chosen on the fit split, |R| on the report split`,
    ["value", "|R|", "R where answered right", "interval of R", "layer", "component", "position", ""],
    bestLines(cell).map(([value, found]) => [
      named(value),
      two(found.abs_r),
      two(found.r_passed),
      interval(found.r_low, found.r_high).trim() || DASH,
      found.layer,
      found.component,
      isolated(placeOf(found)),
      copyButton(traceCommand(cell, found), "Copy command"),
    ]),
  );

function dropTable(cell) {
  const drops = Object.entries(cell.drops);
  if (!drops.length) return el("p", { class: "quiet" }, "No edit was asked for.");
  return plainTable(
    "Largest accuracy drop per value, beside its control",
    ["value", "drop", "control", "layer", "component", "position", "strength", "n", ""],
    drops
      .sort(([, a], [, b]) => b.accuracy_drop - a.accuracy_drop)
      .map(([value, found]) => [
        named(value),
        three(found.accuracy_drop),
        three(found.control_drop),
        found.layer,
        found.component,
        isolated(placeOf(found)),
        found.strength,
        found.n,
        copyButton(editCommand(cell, found), "Copy command"),
      ]),
  );
}

/** Everything in the summary that is not shown elsewhere, by dotted names. */
function factTable(summary) {
  const shown = ["best", "verdicts", "largest_drop", "excess_drop", "counterfactual", "hypotheses", "alignments", "cell", "warnings", "command"];
  const rows = [];
  const add = (name, value) => {
    if (name === "design.correlations") return; // of every pair of values: in the summary's file
    if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      for (const [key, entry] of Object.entries(value)) add(name ? `${name}.${key}` : key, entry);
    } else rows.push([name, value]);
  };
  const { provenance, ...rest } = summary;
  add("", provenance ?? {});
  add("", Object.fromEntries(Object.entries(rest).filter(([name]) => !shown.includes(name))));
  return el(
    "dl",
    { class: "facts" },
    ...rows.map(([name, value]) =>
      el("div", {}, el("dt", {}, isolated(name)), el("dd", {}, isolated(value ?? DASH))),
    ),
  );
}

/** The figures on disk, each read when it is scrolled to; those that are not there are left out. */
function figureFiles(figures) {
  if (!figures?.length) return [];
  const shown = figures.map(([name, address]) => {
    const image = el("img", { src: address, alt: name, loading: "lazy" });
    const figure = el("figure", {}, image, el("figcaption", {}, isolated(name)));
    image.addEventListener("error", () => figure.remove());
    return figure;
  });
  return [
    el("h2", {}, "Figures"),
    el("p", { class: "quiet" }, "Read from the run's directory: keep it where it is beside this page, or they do not show."),
    el("div", { class: "files" }, ...shown),
  ];
}

const configOf = (config, name = "config.yaml, resolved") => [
  el("h2", {}, "Configuration"),
  el(
    "details",
    {},
    el("summary", {}, name),
    copyButton(config),
    el("pre", { dir: "ltr" }, config),
  ),
];
