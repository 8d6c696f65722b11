"use strict";
/* Charts: from numbers to Plotly's traces. Each point knows what it is and the command for it. */

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const CONTROL = "#9e9e9e";
const FRAME = "#d95f02";
const BLUES = "#f7fbff #deebf7 #c6dbef #9dcae1 #6aaed6 #4191c6 #2070b4 #08509b #08306b"
  .split(" ")
  .map((colour, index, all) => [index / (all.length - 1), colour]);
/* Viridis without its lightest end, as in the figures of a run. */
const DEPTHS = "#440154 #482475 #414487 #355f8d #2a788e #21918c #22a884 #44bf70 #7ad151 #bddf26"
  .split(" ");
/* Okabe and Ito's, told apart by the colour-blind. */
const KINDS = "#0072b2 #d55e00 #009e73 #cc79a7 #56b4e9 #e69f00 #5d3a9b #333333".split(" ");
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x"];
/* A map of more columns has no numbers in its cells. */
const MANY = 10;

const kindColour = (index) => KINDS[index % KINDS.length];
const kindSymbol = (index) => SYMBOLS[Math.floor(index / KINDS.length) % SYMBOLS.length];

/** Text in which Plotly finds no tags. */
const literal = (text) =>
  String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** Lines of a hover label; an entry of several lines stays one. */
const label = (...lines) =>
  lines
    .filter((line) => line)
    .map((line) => literal(clipped(String(line).replace(/\s+/g, " "), 90)))
    .join("<br>");

function depthColour(index, count) {
  const place = count > 1 ? (index / (count - 1)) * (DEPTHS.length - 1) : 0;
  const [low, share] = [Math.floor(place), place % 1];
  const [from, to] = [DEPTHS[low], DEPTHS[Math.min(low + 1, DEPTHS.length - 1)]].map((colour) =>
    [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)),
  );
  return `rgb(${from.map((part, at) => Math.round(part + share * (to[at] - part))).join(",")})`;
}

const AXIS = { gridcolor: "#eee", zeroline: false, ticks: "", automargin: true };

function layoutOf(extra) {
  return {
    font: { family: FONT, size: 11, color: "#333" },
    margin: { l: 40, r: 8, t: 6, b: 34 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "#fff",
    hovermode: "closest",
    hoverlabel: { font: { family: FONT, size: 12, color: "#222" }, bgcolor: "#fff", align: "left" },
    showlegend: false,
    ...extra,
    xaxis: { ...AXIS, ...extra.xaxis },
    yaxis: { ...AXIS, ...extra.yaxis },
  };
}

const titled = (text) => ({ text: literal(text), font: { size: 11 }, standoff: 6 });

/** Ticks for things in a row, every second, third, ... of many; a name may have two lines. */
function ticks(names, most) {
  const step = Math.ceil(names.length / most);
  const places = names.map((_, place) => place).filter((place) => place % step === 0);
  return {
    tickmode: "array",
    tickvals: places,
    ticktext: places.map((place) =>
      [names[place]].flat().map((line) => literal(clipped(line, 16))).join("<br>"),
    ),
  };
}

/**
 * |R| as coloured cells, or with `signed` numbers from -1 to 1.
 * r[row][column]; about(row, column) -> {lines, what, command}; framed: [[row, column], ...].
 */
function heatmap({ rows, columns, r, about, xTitle, yTitle, framed = [], most = 16, mostRows = 24, signed = false }) {
  const shown = (number) => (number == null || signed ? number : Math.abs(number));
  const points = r.map((line, row) => line.map((_, column) => about(row, column)));
  return {
    traces: [
      {
        type: "heatmap",
        z: r.map((line) => line.map(shown)),
        zmin: signed ? -1 : 0,
        zmax: 1,
        colorscale: signed ? REDS_AND_BLUES : BLUES,
        showscale: false,
        xgap: 1,
        ygap: 1,
        text: r.map((line) => line.map((number) => short(shown(number)))),
        texttemplate: columns.length <= MANY ? "%{text}" : "",
        textfont: { size: 10 },
        hovertext: points.map((line) => line.map((point) => label(...point.lines))),
        hoverinfo: "text",
        hoverongaps: false,
      },
    ],
    layout: layoutOf({
      xaxis: { ...ticks(columns, most), title: titled(xTitle), showgrid: false },
      yaxis: {
        ...ticks(rows, mostRows),
        title: yTitle ? titled(yTitle) : undefined,
        autorange: "reversed",
        showgrid: false,
      },
      shapes: framed.map(([row, column]) => ({
        type: "rect",
        ...{ x0: column - 0.47, x1: column + 0.47, y0: row - 0.47, y1: row + 0.47 },
        line: { color: FRAME, width: 1.5 },
      })),
    }),
    pointOf: (point) => points[point.pointIndex[0]][point.pointIndex[1]],
  };
}

/** Lines of points, drawn as one trace per style, with gaps between the lines. */
function lineTraces(styles) {
  const points = [];
  const traces = styles.map(({ lines, name, colour, width, symbol, opacity, dash, showlegend, bars, group }) => {
    const trace = {
      ...{ type: "scatter", mode: "lines+markers", name: literal(name ?? ""), opacity },
      ...{ line: { color: colour, width, dash }, showlegend, legendgroup: group },
      marker: { color: colour, size: width > 1 ? 5 : 3.5, symbol: symbol ?? "circle" },
      ...{ x: [], y: [], customdata: [], hovertext: [], hoverinfo: "text", connectgaps: false },
    };
    for (const line of lines) {
      for (const point of [...line, null]) {
        trace.x.push(point?.x ?? null);
        trace.y.push(point?.y ?? null);
        trace.hovertext.push(point ? label(...point.lines) : "");
        trace.customdata.push(point ? points.push(point) - 1 : null);
      }
    }
    const drawn = lines.flatMap((line) => [...line, { y: null, ends: [] }]);
    return bars ? { ...trace, error_y: errorBars(drawn, colour) } : trace;
  });
  return { traces, pointOf: (point) => points[point.customdata] };
}

/** The bands of intervals around lines, each {x, low, high, colour}; behind nothing, but faint. */
const bandTraces = (bands) =>
  bands.map(({ x, low, high, colour }) => ({
    ...{ type: "scatter", mode: "lines", fill: "toself", fillcolor: colour, opacity: 0.2 },
    ...{ line: { width: 0 }, hoverinfo: "skip", showlegend: false },
    x: [...x, ...x.toReversed()],
    y: [...high, ...low.toReversed()],
  }));

/** Ends of an axis of accuracy drops: they may be negative, and are at most 1. */
function dropAxis(drops, title) {
  const lowest = Math.min(0, ...drops.filter((drop) => drop != null));
  return {
    range: [lowest < 0 ? lowest - 0.05 : -0.03, 1.03],
    dtick: 0.25,
    tickformat: ".2f",
    title: title ? titled(title) : undefined,
    zeroline: true,
    zerolinecolor: "#888",
    zerolinewidth: 1,
  };
}

const waiting = new Map();
window.addEventListener("beforeprint", () => {
  for (const node of [...waiting.keys()]) if (node.offsetParent) drawNow(node);
});
const nearWindow = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) drawNow(target);
  },
  { rootMargin: "400px" },
);

/** Draw into an element when it comes near the window; `make` -> {traces, layout, pointOf}. */
function lazily(node, make) {
  waiting.set(node, make);
  nearWindow.observe(node);
}

/** What is hidden has no width to draw in: it waits on, and is drawn once it is shown. */
async function drawNow(node) {
  const Plotly = await loadPlotly();
  const make = waiting.get(node);
  if (!make || !node.offsetParent) return;
  waiting.delete(node);
  nearWindow.unobserve(node);
  const { traces, layout, pointOf } = make();
  await Plotly.newPlot(node, traces, layout, { displayModeBar: false, responsive: true });
  if (pointOf) node.on("plotly_click", ({ points }) => pointOf(points[0]).show());
  node.dataset.drawn = "yes";
}

/** Room for rows of a map between its axes' titles, at least for the title beside it. */
const mapHeight = (frame, row, rows) => Math.max(150, frame + row * rows);

/** A chart with its heading, in a card. */
function card(heading, height, make) {
  const plot = el("div", { class: "plot", style: `height:${height}px` });
  const node = el("figure", { class: "card" }, el("figcaption", {}, ...heading), plot);
  lazily(plot, make);
  return node;
}
