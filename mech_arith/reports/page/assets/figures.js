"use strict";
/* The charts of a cell's own page. */

const LARGEST_KEY = 12;
/* A map's rows are as high as its labels up to so many, and lower beyond. */
const MAP_ROWS = 16;
/* Of a panel for one layer, in pixels. */
const PANEL = { width: 150, height: 128 };

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
    card([el("b", {}, isolated(clipped(name, 40)))], mapHeight(74, 22, Math.min(map.layers.length, MAP_ROWS)), () =>
      heatmap({
        rows: map.layers.map(String),
        columns: map.positions.map((place, index) => [shownToken(map.tokens[index]), String(place)]),
        r: map.r[value],
        about: (layer, place) => positionPoint(cell, map, value, layer, place),
        xTitle: "token and position",
        yTitle: "layer (0-based)",
        ...{ most: 30, mostRows: MAP_ROWS },
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
      `R ${two(r)} of component ${map.component[value][layer][place]}` +
        (map.head ? `, head ${map.head[value][layer][place]}` : ""),
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
  const best = placeOf(bestLines(cell)[0]?.[1] ?? {});
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

/** Which colour is what. */
const keyOf = (entries, title = "") =>
  el(
    "p",
    { class: "key" },
    title,
    ...entries.map(([colour, name, kind]) =>
      el("span", {}, el("i", { class: kind, style: `color:${colour}` }), String(name)),
    ),
  );

/** Which colour is which layer, of many layers some; and what a control looks like. */
function layerKey(layers, kind) {
  const step = Math.ceil(layers.length / LARGEST_KEY);
  const shown = layers
    .map((layer, index) => [depthColour(index, layers.length), layer])
    .filter((_, index) => index % step === 0);
  return keyOf([...shown, [CONTROL, "its control, in the same colour", kind]], "layer ");
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
  const cards = (height, make) =>
    values.map((value) =>
      card([el("b", {}, isolated(clipped(value, 40)))], height, () => make(value, of(value))),
    );
  const intro = (...more) =>
    el("div", { class: "legend-line" }, el("p", { class: "quiet" }, about), ...more);
  const bars = [
    el("h2", {}, "Largest accuracy drop by layer"),
    intro(layerKey(layers, "pale")),
    cardsFor(layers, cards(250, (value, found) => layerChart(cell, value, found, layers))),
  ];
  if (!hasDoses(lines)) return bars;
  const panels = panelGrid(layers.length);
  const arms = [[CONTROL, "edited"], [CONTROL, "its control: random directions moved as far", "dotted"]];
  const charts = cards(panels.height, (value, found) =>
    doseChart(cell, value, found, layers, unit, edit, panels),
  );
  return [
    el("h2", {}, `Accuracy drop against strength of ${edit}, a panel for each layer`),
    intro(keyOf(arms)),
    el("div", { class: `cards ${panels.across > 3 ? "full" : "wide"}` }, ...charts),
    ...bars,
  ];
}

/** Whether there is a strength to draw drops against another. */
const hasDoses = (lines) => lines.some(({ strengths }) => strengths.length > 1);

/** How many panels fit side by side, all rows about equally long; and the room that they take. */
function panelGrid(count) {
  const room = Math.min(1480, document.documentElement.clientWidth) - 120;
  const down = Math.ceil(count / Math.max(2, Math.floor(room / PANEL.width)));
  return { across: Math.ceil(count / down), down, height: 52 + down * PANEL.height };
}

/** The axes and titles of panels in rows, all of one scale. */
function panelLayout(titles, { across, down }, { x, y, xTitle, yTitle }) {
  const [gap, head] = [0.12 / across, 22 / (down * PANEL.height)];
  const [width, below] = [(1 + gap) / across - gap, down > 1 ? 8 / (down * PANEL.height) : 0];
  const layout = { annotations: [] };
  const note = { showarrow: false, font: { size: 11, color: "#333" } };
  titles.forEach((title, index) => {
    const [column, row] = [index % across, Math.floor(index / across)];
    const suffix = index ? index + 1 : "";
    const top = 1 - row / down - head;
    layout[`xaxis${suffix}`] = {
      ...{ ...AXIS, ...x, automargin: false, nticks: 5, anchor: `y${suffix}` },
      domain: [column * (width + gap), column * (width + gap) + width],
      showticklabels: index + across >= titles.length,
      ...(index ? { matches: "x" } : {}),
    };
    layout[`yaxis${suffix}`] = {
      ...{ ...AXIS, ...y, automargin: false, anchor: `x${suffix}` },
      domain: [Math.max(0, top - (1 / down - head - below)), top],
      showticklabels: column === 0,
      ...(index ? { matches: "y" } : {}),
    };
    const at = { xref: `x${suffix} domain`, yref: `y${suffix} domain`, x: 0.5, y: 1, yanchor: "bottom" };
    layout.annotations.push({ ...note, ...at, text: literal(title) });
  });
  const paper = { ...note, xref: "paper", yref: "paper" };
  layout.annotations.push(
    { ...paper, x: 0.5, y: 0, yanchor: "top", yshift: -16, text: literal(xTitle) },
    { ...paper, x: 0, y: 0.5, xanchor: "right", xshift: -32, textangle: -90, text: literal(yTitle) },
  );
  return { ...layoutOf({}), ...layout, margin: { l: 52, r: 8, t: 2, b: 36 } };
}

/** A line's drop or its control with the interval around it, where that is known. */
const bandOf = (line, name, colour) =>
  line[`${name}_low`]?.every((number) => number != null)
    ? bandTraces([{ x: line.strengths, low: line[`${name}_low`], high: line[`${name}_high`], colour }])
    : [];

/** Bars of intervals around numbers; none where they are not known. */
const errorBars = (points, color = "#333") =>
  points.some(({ ends }) => ends[0] != null)
    ? {
        ...{ type: "data", symmetric: false, thickness: 1, width: 0, color },
        array: points.map(({ y, ends }) => (ends[1] == null ? 0 : ends[1] - y)),
        arrayminus: points.map(({ y, ends }) => (ends[0] == null ? 0 : y - ends[0])),
      }
    : undefined;

function doseChart(cell, value, lines, layers, unit, edit, grid) {
  const colours = lines.map((line) => depthColour(layers.indexOf(line.layer), layers.length));
  const arms = [true, false].flatMap((isControl) =>
    lines.map((line, index) => ({
      lines: [dosePoints(cell, value, line, isControl)],
      ...{ name: `layer ${line.layer}${isControl ? " control" : ""}`, colour: colours[index] },
      ...(isControl ? { width: 1.2, dash: "dot" } : { width: 1.8 }),
    })),
  );
  const { traces, pointOf } = lineTraces(arms);
  const at = (place) => (place ? { xaxis: `x${place + 1}`, yaxis: `y${place + 1}` } : {});
  traces.forEach((trace, index) => Object.assign(trace, at(index % lines.length)));
  for (const [index, line] of lines.entries()) {
    const bands = [...bandOf(line, "control", CONTROL), ...bandOf(line, "drop", colours[index])];
    traces.push(...bands.map((band) => Object.assign(band, at(index))));
  }
  const layout = panelLayout(lines.map((line) => `layer ${line.layer}`), grid, {
    x: {},
    y: dropAxis(traces.flatMap((trace) => trace.y)),
    xTitle: `strength of ${edit} (${unit})`,
    yTitle: "accuracy drop (share)",
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
      color: rows.map(({ layer }) => depthColour(layers.indexOf(layer), layers.length)),
      opacity: isControl ? 0.4 : 1,
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
