"use strict";
/* A cell's own page: what it found, how it was run, and how to run it again. */

async function showCellPage(cell, cells, chunkSize) {
  const main = document.getElementById("cell");
  const page = (await cellChunk(Math.floor(cell.place / chunkSize)))[cell.place % chunkSize];
  const parts = [pageHeader(cell, cells), el("h2", {}, "Command"), commandBlock(commandOf(cell))];
  if (!page.summary) main.replaceChildren(...parts, ...withoutResult(cell));
  else {
    main.replaceChildren(
      ...parts,
      ...warningsOf(page.summary),
      el("h2", {}, "Headline numbers"),
      ...headlines(cell, page),
      ...tracingFigures(cell, page.traced),
      ...editFigures(cell, page.edited),
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

const withoutResult = (cell) => [
  el("h2", {}, "No result"),
  el("p", { class: "warn" }, isolated(cell.note || cell.status)),
  cell.error ? el("pre", { dir: "auto" }, cell.error) : null,
].filter(Boolean);

const warningsOf = (summary) =>
  summary.warnings?.length
    ? [
        el("h2", {}, "Warnings"),
        el("ul", { class: "warn" }, ...summary.warnings.map((text) => el("li", {}, isolated(text)))),
      ]
    : [];

const tile = (name, number, about) =>
  el("div", { class: "tile" }, el("span", {}, name), el("b", {}, number), el("small", {}, about));

function headlines(cell, page) {
  const { summary } = page;
  const [accuracy, floor] = cell.baseline;
  const drop = largestDrop(cell);
  const best = bestLines(cell)[0];
  const [searched, edits] = cell.searched;
  return [
    el(
      "div",
      { class: "tiles" },
      tile("baseline accuracy", three(accuracy), `floor ${three(floor)}; n = ${summary.n_report}`),
      best
        ? tile("best |R|", two(best[1].abs_r), `${best[0]}, layer ${best[1].layer}; of ${searched}`)
        : null,
      drop
        ? tile("largest accuracy drop", three(drop[1].accuracy_drop), `${drop[0]}; of ${edits} edits`)
        : null,
      drop ? tile("its control", three(drop[1].control_drop), "random direction, moved as far") : null,
    ),
    el("div", { class: "pair" }, bestTable(cell), dropTable(cell)),
  ];
}

function plainTable(caption, heads, rows) {
  return el(
    "table",
    { class: "plain-table" },
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((entry) => el("td", {}, entry))))),
  );
}

const bestTable = (cell) =>
  plainTable(
    "Best component per value: chosen on the fit split, |R| on the report split",
    ["value", "|R|", "R where answered right", "layer", "component", "position", ""],
    bestLines(cell).map(([value, found]) => [
      isolated(value),
      two(found.abs_r),
      two(found.r_passed),
      found.layer,
      found.component,
      isolated(found.position),
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
        isolated(value),
        three(found.accuracy_drop),
        three(found.control_drop),
        found.layer,
        found.component,
        isolated(found.position),
        found.strength,
        found.n,
        copyButton(editCommand(cell, found), "Copy command"),
      ]),
  );
}

/** What a component's |R| says: at [value][layer][component] of a site. */
function componentPoint(cell, site, value, layer, component) {
  const r = site.r[value][layer][component];
  const [name, depth, number] = [site.values[value], site.layers[layer], site.components[component]];
  return {
    lines: [
      `${name}, layer ${depth}, component ${number}: R ${two(r)}`,
      `fit split ${two(site.r_fit[value][layer][component])}, ` +
        `answered right ${two(site.r_passed[value][layer][component])}`,
      `explains ${two(site.variance[layer][component])} of the variance; n = ${site.n ?? "?"}`,
      "click: its command",
    ],
    show: () =>
      showCommand({
        what: `R ${two(r)}: cell ${cell.id}, ${name}, layer ${depth}, component ${number}`,
        command: traceCommand(cell, { layer: depth }),
        cell,
      }),
  };
}

const transposed = (rows) => rows[0].map((_, column) => rows.map((row) => row[column]));

function siteCards(cell, site) {
  return site.values.map((name, value) =>
    card([el("b", {}, isolated(clipped(name, 40)))], 60 + 20 * site.components.length, () =>
      heatmap({
        rows: site.components.map(String),
        columns: site.layers.map(String),
        r: transposed(site.r[value]),
        about: (component, layer) => componentPoint(cell, site, value, layer, component),
        xTitle: "layer (0-based)",
        yTitle: "component",
        framed: site.layers
          .map((_, layer) => [site.best[value][layer], layer])
          .filter(([component, layer]) => site.r_fit[value][layer][component] != null),
      }),
    ),
  );
}

function mapCards(cell, map) {
  return map.values.map((name, value) =>
    card([el("b", {}, isolated(clipped(name, 40)))], 74 + 22 * map.layers.length, () =>
      heatmap({
        rows: map.layers.map(String),
        columns: map.positions.map((place, index) => [shownToken(map.tokens[index]), String(place)]),
        r: map.r[value],
        about: (layer, place) => positionPoint(cell, map, value, layer, place),
        xTitle: "token and position",
        yTitle: "layer (0-based)",
        most: 30,
      }),
    ),
  );
}

/** A token with white space that can be seen. */
const shownToken = (token) => (token.trim() ? token.replaceAll("\n", "\u21b5") : "\u2423");

function positionPoint(cell, map, value, layer, place) {
  const r = map.r[value][layer][place];
  const depth = map.layers[layer];
  const where = `position ${map.positions[place]} (${shownToken(map.tokens[place])})`;
  return {
    lines: [
      `${map.values[value]}, layer ${depth}, ${where}`,
      `R ${two(r)} of component ${map.component[value][layer][place]}`,
      "click: its command",
    ],
    show: () =>
      showCommand({
        what: `R ${two(r)}: cell ${cell.id}, ${map.values[value]}, layer ${depth}, ${where}`,
        command: mapCommand(cell, { layer: depth }),
        cell,
      }),
  };
}

function scaled(title, about, cards, wide) {
  const scale = el("div", { class: "scale" });
  showScale(scale);
  return [
    el("h2", {}, title),
    el("div", { class: "legend-line" }, el("p", { class: "quiet" }, about), scale),
    el("div", { class: wide ? "cards wide" : "cards" }, ...cards),
  ];
}

function tracingFigures(cell, traced) {
  const figures = traced.sites.flatMap((site) =>
    scaled(
      `|R| of components, positions: ${clipped(site.position, 40)}`,
      `${site.point}; n = ${site.n ?? "?"} problems of the report split. ` +
        "Framed: best on the fit split.",
      siteCards(cell, site),
    ),
  );
  if (!traced.map) return figures;
  const about = "Per position and layer the component that is best on the fit split, on its own.";
  return [...figures, ...scaled("Best |R| by position", about, mapCards(cell, traced.map), true)];
}

/** Which colour is which layer. */
const layerKey = (layers) =>
  el(
    "p",
    { class: "key" },
    "layer ",
    ...layers.map((layer, index) =>
      el(
        "span",
        {},
        el("i", { style: `background:${depthColour(index, layers.length)}` }),
        String(layer),
      ),
    ),
    el("span", {}, el("i", { style: `background:${CONTROL}` }), "control"),
  );

function editFigures(cell, edited) {
  if (!edited.lines.length) return [];
  const { lines, values, edit, unit, failed } = edited;
  const layers = distinct(lines.map((line) => line.layer)).sort((a, b) => a - b);
  const n = lines[0].n ?? "?";
  const about =
    `n = ${n} problems per point. Of several directions for one value and layer, the one that ` +
    `costs most accuracy.${failed ? ` Failed rows left out: ${failed}.` : ""}`;
  const of = (value) => lines.filter((line) => line.value === value);
  const cards = (make) =>
    values.map((value) =>
      card([el("b", {}, isolated(clipped(value, 40)))], 250, () => make(value, of(value))),
    );
  const intro = () =>
    el("div", { class: "legend-line" }, el("p", { class: "quiet" }, about), layerKey(layers));
  return [
    el("h2", {}, `Accuracy drop against strength of ${edit}`),
    intro(),
    el("div", { class: "cards" }, ...cards((value, found) => doseChart(cell, value, found, layers, unit, edit))),
    el("h2", {}, "Largest accuracy drop by layer"),
    intro(),
    el("div", { class: "cards" }, ...cards((value, found) => layerChart(cell, value, found, layers))),
  ];
}

function doseChart(cell, value, lines, layers, unit, edit) {
  const styles = [
    {
      lines: lines.map((line) => dosePoints(cell, value, line, true)),
      ...{ name: "control", colour: CONTROL, width: 1 },
    },
    ...lines.map((line) => ({
      lines: [dosePoints(cell, value, line, false)],
      ...{ colour: depthColour(layers.indexOf(line.layer), layers.length), width: 1.6 },
    })),
  ];
  const { traces, pointOf } = lineTraces(styles);
  const layout = layoutOf({
    xaxis: { title: titled(`strength of ${edit} (${unit})`) },
    yaxis: dropAxis(traces.flatMap((trace) => trace.y), "accuracy drop (share)"),
  });
  return { traces, layout, pointOf };
}

function layerChart(cell, value, lines, layers) {
  const rows = lines.map((line) => {
    const worst = line.drop.reduce((best, drop, at) => ((drop ?? -2) > (line.drop[best] ?? -2) ? at : best), 0);
    return { line, layer: line.layer, worst };
  });
  const arms = [false, true].map((isControl) => ({
    isControl,
    points: rows.map(({ line, worst }) => dosePoints(cell, value, line, isControl)[worst]),
  }));
  const traces = arms.map(({ isControl, points }) => ({
    type: "bar",
    x: rows.map(({ layer }) => layers.indexOf(layer)),
    y: points.map((point) => point.y),
    marker: {
      color: isControl
        ? CONTROL
        : rows.map(({ layer }) => depthColour(layers.indexOf(layer), layers.length)),
    },
    hovertext: points.map((point) => label(...point.lines)),
    hoverinfo: "text",
    textposition: "none",
  }));
  const layout = layoutOf({
    barmode: "group",
    bargap: 0.25,
    xaxis: { ...ticks(layers.map(String), 16), title: titled("layer (0-based)"), showgrid: false },
    yaxis: dropAxis(traces.flatMap((trace) => trace.y), "largest accuracy drop (share)"),
  });
  return { traces, layout, pointOf: (point) => arms[point.curveNumber].points[point.pointIndex] };
}

/** Everything in the summary that is not shown elsewhere, by dotted names. */
function factTable(summary) {
  const shown = ["best", "largest_drop", "cell", "warnings", "command"];
  const rows = [];
  const add = (name, value) => {
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

const configOf = (config) => [
  el("h2", {}, "Configuration"),
  el(
    "details",
    {},
    el("summary", {}, "config.yaml, resolved"),
    copyButton(config),
    el("pre", { dir: "ltr" }, config),
  ),
];
