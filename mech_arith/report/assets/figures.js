"use strict";
/* The charts of a cell's own page. */

const LARGEST_KEY = 12;
/* With more layers in one chart, intervals would hide the lines. */
const MOST_BANDS = 8;

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
    card([el("b", {}, isolated(clipped(name, 40)))], mapHeight(60, 20, site.components.length), () =>
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
    card([el("b", {}, isolated(clipped(name, 40)))], mapHeight(74, 22, Math.min(map.layers.length, 16)), () =>
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

/** Maps over the scale of their colours; `columns` are theirs. */
function scaled(title, about, columns, cards) {
  const scale = el("div", { class: "scale" });
  showScale(scale);
  return [
    el("h2", {}, title),
    el("div", { class: "legend-line" }, el("p", { class: "quiet" }, about), scale),
    cardsFor(columns, cards),
  ];
}

const siteFigures = (cell, site) =>
  scaled(
    `|R| of components, positions: ${clipped(site.position, 40)}`,
    `${site.point}; n = ${site.n ?? "?"} problems of the report split. ` +
      "Framed: best on the fit split.",
    site.layers,
    siteCards(cell, site),
  );

/** One of several sites at a time, first the one with the largest |R|. */
function chosenSite(cell, sites) {
  const figures = el("div");
  const best = bestLines(cell)[0]?.[1].position;
  const options = sites.map(({ position }, place) =>
    el("option", { value: place, selected: position === best }, clipped(position, 40)),
  );
  const select = el("select", { name: "position" }, ...options);
  const show = () => figures.replaceChildren(...siteFigures(cell, sites[Number(select.value)]));
  select.addEventListener("change", show);
  show();
  return [el("p", { class: "choices" }, el("label", {}, "components at position", select)), figures];
}

function tracingFigures(cell, { sites, map }) {
  const figures =
    sites.length > 1
      ? chosenSite(cell, sites)
      : sites.flatMap((site) => siteFigures(cell, site));
  if (!map) return figures;
  const about = "Per position and layer the component that is best on the fit split, on its own.";
  return [
    ...figures,
    ...scaled("Best |R| by position", about, map.positions, mapCards(cell, map)),
  ];
}

/** Which colour is which layer; of many layers, some. */
function layerKey(layers) {
  const entry = (colour, name) =>
    el("span", {}, el("i", { style: `background:${colour}` }), String(name));
  const step = Math.ceil(layers.length / LARGEST_KEY);
  const shown = layers
    .map((layer, index) => [depthColour(index, layers.length), layer])
    .filter((_, index) => index % step === 0);
  const entries = shown.map(([colour, layer]) => entry(colour, layer));
  return el("p", { class: "key" }, "layer ", ...entries, entry(CONTROL, "control"));
}

/** Panels have room for a bar or a column per layer. */
const cardsFor = (layers, cards) =>
  el("div", { class: layers.length > LARGEST_KEY ? "cards wide" : "cards" }, ...cards);

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
    cardsFor(layers, cards((value, found) => doseChart(cell, value, found, layers, unit, edit))),
    el("h2", {}, "Largest accuracy drop by layer"),
    intro(),
    cardsFor(layers, cards((value, found) => layerChart(cell, value, found, layers))),
  ];
}

/** Of every line and its control, where their intervals are known. */
const bandsOf = (lines, layers) =>
  lines
    .flatMap((line) => [
      ["control", CONTROL, line],
      ["drop", depthColour(layers.indexOf(line.layer), layers.length), line],
    ])
    .filter(([name, , line]) => line[`${name}_low`]?.every((number) => number != null))
    .map(([name, colour, line]) => ({
      ...{ x: line.strengths, low: line[`${name}_low`], high: line[`${name}_high`], colour },
    }));

/** Bars of intervals around numbers; none where they are not known. */
const errorBars = (points) =>
  points.some(({ ends }) => ends[0] != null)
    ? {
        ...{ type: "data", symmetric: false, thickness: 1, width: 0, color: "#333" },
        array: points.map(({ y, ends }) => (ends[1] == null ? 0 : ends[1] - y)),
        arrayminus: points.map(({ y, ends }) => (ends[0] == null ? 0 : y - ends[0])),
      }
    : undefined;

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
  if (lines.length <= MOST_BANDS) traces.push(...bandTraces(bandsOf(lines, layers)));
  const layout = layoutOf({
    xaxis: { title: titled(`strength of ${edit} (${unit})`) },
    yaxis: dropAxis(traces.flatMap((trace) => trace.y), "accuracy drop (share)"),
  });
  return { traces, layout, pointOf };
}

function layerChart(cell, value, lines, layers) {
  const rows = lines.map((line) => {
    const known = line.drop.map((drop) => drop ?? -2);
    return { line, layer: line.layer, worst: known.indexOf(Math.max(...known)) };
  });
  const arms = [false, true].map((isControl) => ({
    isControl,
    points: rows.map(({ line, worst }) => dosePoints(cell, value, line, isControl)[worst]),
  }));
  const traces = arms.map(({ isControl, points }) => ({
    type: "bar",
    x: rows.map(({ layer }) => layers.indexOf(layer)),
    y: points.map((point) => point.y),
    error_y: errorBars(points),
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
