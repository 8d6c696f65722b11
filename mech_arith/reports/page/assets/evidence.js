"use strict";
/* A cell's evidence: how sure each number is, and what each direction carries. Which columns there
   are, what they are called and what stands beside them is said once, in mech_arith/evidence/columns. */

const REDS_AND_BLUES = "#b2182b #ef8a62 #fddbc7 #f7f7f7 #d1e5f0 #67a9cf #2166ac"
  .split(" ")
  .map((colour, index, all) => [index / (all.length - 1), colour]);

const size = (number) => (number == null ? number : Math.abs(number));

/** A column's number, as it is shown. */
const numberOf = (row, column) => (column.is_size ? size(row[column.name]) : row[column.name]);

/** The ends of its interval, turned where a number that is shown without its sign is negative. */
function endsOfNumber(row, column) {
  const [low, high] = [row[column.low], row[column.high]];
  return column.is_size && row[column.name] < 0 && low != null ? [-high, -low] : [low, high];
}

const isKnown = (row, column) => row[column.name] != null;

/** The columns that have an entry in some row. */
const knownColumns = (rows, columns) =>
  columns.filter((column) => rows.some((row) => isKnown(row, column)));

/** 'p .012', 'floor .03': what is read with a number. */
function besideOf(row, column) {
  const said = column.beside
    .filter(([, name]) => row[name] != null)
    .map(([words, name]) => `${words} ${shortly(row[name])}`);
  return row[column.p] == null ? said : [`p ${shownP(row[column.p])}`, ...said];
}

/** How a number is printed: in bold a finding, in grey what may be chance. */
const STANDINGS = { finding: { class: "finding" }, chance: { class: "doubtful", title: "may be chance" } };

/** A number with its interval. */
const shownNumber = (row, column, ...beside) =>
  el(
    "span",
    STANDINGS[row.judged?.[column.name]] ?? {},
    el("span", { class: "number" }, two(numberOf(row, column))),
    el("span", { class: "quiet" }, interval(...endsOfNumber(row, column))),
    ...beside,
  );

/** Why an entry is missing, or is what it is, when the mouse rests on it. */
const whyOf = (row, column) => (row[column.why] ? { class: "why", title: row[column.why] } : {});

/** What a column of the evidence shows of a row. */
function shownEntry(row, column) {
  if (!isKnown(row, column)) return el("span", { class: "quiet", ...whyOf(row, column) }, DASH);
  if (column.is_text) return el("span", whyOf(row, column), isolated(row[column.name]));
  const [word, text] = column.said ?? [];
  const said = row[text] ? el("span", { class: "quiet" }, ` ${word} `, named(row[text])) : null;
  const beside = besideOf(row, column);
  const more = beside.length ? el("small", {}, beside.join(", ")) : null;
  return shownNumber(row, column, said, more);
}

const GREY =
  "Bold: a finding, for its p and its interval agree that it is not chance. Grey italics: may be " +
  "chance. Plain: not judged.";

/** What the columns are, in their order. */
const legendOf = (columns) =>
  el(
    "details",
    { class: "legend" },
    el("summary", {}, "What the columns are"),
    el(
      "dl",
      { class: "quiet" },
      ...columns.flatMap((column) => [el("dt", {}, column.title), el("dd", {}, `${column.about}.`)]),
    ),
  );

async function evidenceTable(rows, columns, site) {
  if (!rows.length) return [];
  const DataTable = await loadTables();
  const places = [
    ["value", (row) => row.value, (row) => named(row.value), "string"],
    ["layer", (row) => row.layer, (row) => String(row.layer)],
    ...site
      .filter((name) => distinct(rows.map((row) => row[name])).length > 1)
      .map((name) => [name, (row) => row[name], (row) => named(String(row[name])), "string"]),
    ["component", (row) => row.component, (row) => String(row.component)],
  ];
  const known = knownColumns(rows, columns);
  const numbers = known.map((column) => [
    column.title,
    (row) => (column.is_text ? row[column.name] : numberOf(row, column)),
    (row) => shownEntry(row, column),
    column.is_text ? "string" : "num",
  ]);
  const node = el("table", { class: "compact evidence" });
  const box = el("div", { class: "scroll" }, node);
  new DataTable(node, {
    data: rows,
    columns: [...places, ...numbers].map(([title, sorts, shows, type]) => ({
      title: literal(title),
      data: null,
      type: type ?? "num",
      render: (_, kind, row) => {
        if (kind === "display") return el("span", {}, shows(row));
        return sorts(row) ?? (type === "string" ? "" : -Infinity);
      },
    })),
    ...{ order: [], autoWidth: false, pageLength: 25, searching: false },
    lengthMenu: [10, 25, 100, { label: "all", value: -1 }],
    caption: "Evidence",
    language: { lengthMenu: "_MENU_ rows per page" },
    layout: {
      ...{ topStart: null, topEnd: null },
      ...{ bottomStart: rows.length > 25 ? ["info", "pageLength"] : null },
      ...{ bottomEnd: rows.length > 25 ? "paging" : null },
    },
  });
  return [
    el("h2", {}, "Evidence: what is known of each value at each layer"),
    el(
      "p",
      { class: "quiet" },
      "Component with the largest |R| on the fit split; numbers of the report split, in brackets " +
        `their intervals. Every p is corrected for all that was tested in this cell. ${GREY}`,
    ),
    legendOf(known),
    box,
    ...evidenceFigures(rows, known.filter((column) => column.is_drawn)),
  ];
}

/** Per layer the row that is marked as the best one on the fit split. */
const bestByLayer = (rows) => rows.filter((row) => row.best).sort((a, b) => a.layer - b.layer);

/** Held and used: per value |R|, how often the answer follows and its slope, by layer. */
function evidenceFigures(rows, columns) {
  if (columns.length < 2) return [];
  const values = distinct(rows.map((row) => row.value)).sort(byLength);
  const layers = distinct(rows.map((row) => row.layer)).length;
  const cards = values.map((value) =>
    card([el("b", {}, isolated(clipped(value, 40)))], 230, () =>
      evidenceChart(bestByLayer(rows.filter((row) => row.value === value)), columns),
    ),
  );
  return [
    el("h2", {}, "Held and used: the evidence by layer"),
    el(
      "div",
      { class: "legend-line" },
      el(
        "p",
        { class: "quiet" },
        "The numbers of the table above with their intervals. Dotted: what chance gives. A value is " +
          "held where |R| is large, and used where the answer follows it: the slope is near 1.",
      ),
      keyOf(columns.map(({ title }, index) => [kindColour(index), title])),
    ),
    cardsFor(Array(layers).fill(), cards),
  ];
}

function evidenceChart(rows, columns, top = 1.05) {
  const ends = [];
  const traces = columns.flatMap((column, index) => {
    const shown = rows.filter((row) => isKnown(row, column));
    const points = shown.map((row) => ({ y: numberOf(row, column), ends: endsOfNumber(row, column) }));
    ends.push(...points.flatMap((point) => [point.y, ...point.ends]));
    // A little beside each other, so that one interval does not hide the other.
    const x = shown.map(({ layer }) => layer + 0.12 * (index - (columns.length - 1) / 2));
    const colour = kindColour(index);
    const line = {
      ...{ type: "scatter", mode: "lines+markers", x, y: points.map(({ y }) => y) },
      ...{ line: { color: colour, width: 1.4 }, marker: { color: colour, size: 5 } },
      error_y: errorBars(points, colour),
      hovertext: shown.map((row) =>
        label(
          `${column.title} ${two(numberOf(row, column))}${interval(...endsOfNumber(row, column))}`,
          besideOf(row, column).join(", "),
          `${row.value}, layer ${row.layer}, component ${row.component}, ${placeOf(row)}`,
        ),
      ),
      hoverinfo: "text",
    };
    const floors = shown.filter((row) => row[column.null] != null);
    const floor = {
      ...{ type: "scatter", mode: "lines", hoverinfo: "skip" },
      ...{ x: floors.map(({ layer }) => layer), y: floors.map((row) => row[column.null]) },
      line: { color: colour, width: 1, dash: "dot" },
    };
    return floors.length ? [line, floor] : [line];
  });
  const known = ends.filter((end) => end != null);
  const layers = rows.map(({ layer }) => layer);
  const step = Math.max(1, Math.ceil((Math.max(...layers) - Math.min(...layers) + 1) / 12));
  const layout = layoutOf({
    xaxis: { title: titled("layer (0-based)"), tick0: 0, dtick: step },
    yaxis: { range: [Math.min(-0.05, ...known) - 0.03, Math.max(top, ...known) + 0.03], dtick: 0.5 },
  });
  return { traces, layout };
}

/** What the slope at one place says. */
function slopePoint(map, row, column) {
  const [slope, low, high, iia] = ["slope", "slope_low", "slope_high", "iia"].map(
    (name) => map[name][row][column],
  );
  return {
    lines: [
      `direction of ${map.directions[row]}, ${map.changed[column]} changed`,
      `slope ${two(slope)}${interval(low, high)}`,
      `IIA ${two(iia)}; n = ${map.n}`,
      `layer ${map.layer}, component ${map.component[row]}, ${map.position[row]}`,
    ],
    show: hideCommand,
  };
}

/** What is known of one token of the answer and one value. */
function tokenPoint(map, row, column) {
  const of = (name) => map[name][row][column];
  return {
    lines: [
      `token ${map.tokens[column]} of the answer, ${map.values[row]} changed`,
      `IIA ${two(of("iia"))}${interval(of("iia_low"), of("iia_high"))}; n = ${of("n")}`,
      `floor ${two(of("floor"))}${of("p_max") === null ? "" : `, p ${shownP(of("p_max"))}`}, ceiling ${two(of("ceiling"))}`,
      `where the token has to be another: ${two(of("iia_changed"))}`,
      `layer ${map.layer}, component ${map.component[row]}, ${map.position[row]}`,
    ],
    show: hideCommand,
  };
}

function tokenFigures(maps) {
  if (!maps?.length) return [];
  const cards = maps.map((map) =>
    card([el("b", {}, `layer ${map.layer}`)], mapHeight(74, 24, map.values.length), () =>
      heatmap({
        rows: map.values,
        columns: map.tokens,
        r: map.iia,
        about: (row, column) => tokenPoint(map, row, column),
        ...{ xTitle: "token of the answer", yTitle: "value changed" },
      }),
    ),
  );
  return [
    el("h2", {}, "Tokens of the answer: which of them follow each value"),
    el(
      "p",
      { class: "quiet" },
      "IIA of each token: the share that is as the value put in place calls for. Tokens that need " +
        "not change are easy: the floor is what other values give by chance.",
    ),
    el("div", { class: "cards" }, ...cards),
  ];
}

function specificityFigures(maps) {
  if (!maps.length) return [];
  const cards = maps.map((map) =>
    card([el("b", {}, `layer ${map.layer}`)], mapHeight(74, 24, map.directions.length), () =>
      heatmap({
        rows: map.directions,
        columns: map.changed,
        r: map.slope,
        about: (row, column) => slopePoint(map, row, column),
        ...{ xTitle: "value changed", yTitle: "direction of", signed: true },
      }),
    ),
  );
  return [
    el("h2", {}, "Specificity: which value's change the answer follows along each direction"),
    el(
      "p",
      { class: "quiet" },
      "Slope of the answer's change against the change of an answer that follows: 1 is all of it. " +
        "A direction that holds its value alone has 1 on the diagonal and for what the value is " +
        "computed from, else 0.",
    ),
    el("div", { class: "cards" }, ...cards),
  ];
}
