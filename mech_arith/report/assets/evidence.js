"use strict";
/* A cell's evidence: how sure each number is, and what each direction carries. */

const REDS_AND_BLUES = "#b2182b #ef8a62 #fddbc7 #f7f7f7 #d1e5f0 #67a9cf #2166ac"
  .split(" ")
  .map((colour, index, all) => [index / (all.length - 1), colour]);

/** A number with its interval, and the mark of one that may be chance. */
const sure = (number, low, high, p) =>
  el(
    "span",
    p > ALPHA ? { class: "doubtful", title: `p ${shownP(p)}` } : {},
    two(number),
    el("span", { class: "quiet" }, interval(low, high)),
  );

/** Columns of the table: [title, what sorts, what is shown]; those that no row has are left out. */
const EVIDENCE = [
  ["|R|", (row) => size(row.r), (row) => sure(size(row.r), ...ofSize(row), row.p_holm)],
  ["p (corrected)", (row) => row.p_holm, (row) => shownP(row.p_holm)],
  [
    "least |R|, another value held fixed",
    (row) => size(row.least_partial_r),
    (row) =>
      el(
        "span",
        {},
        two(size(row.least_partial_r)),
        row.least_partial_given ? el("span", { class: "quiet" }, " given ", named(row.least_partial_given)) : null,
      ),
  ],
  [
    "R, all others held fixed",
    (row) => row.partial_r,
    (row) =>
      el(
        "span",
        row.partial_r_undefined ? { title: `not defined: ${row.partial_r_undefined}` } : {},
        two(row.partial_r),
      ),
  ],
  ["share of the variance (Shapley)", (row) => row.shapley, (row) => two(row.shapley)],
  [
    "drop beyond random directions",
    (row) => row.excess_drop,
    (row) => sure(row.excess_drop, row.excess_low, row.excess_high, row.excess_p_max),
  ],
  ["its p (largest of all)", (row) => row.excess_p_max, (row) => shownP(row.excess_p_max)],
  ["drop", (row) => row.target_drop, (row) => two(row.target_drop)],
  ["of random directions", (row) => row.control_drop, (row) => two(row.control_drop)],
  [
    "answers that follow",
    (row) => row.agreement,
    (row) => sure(row.agreement, row.agreement_low, row.agreement_high, row.agreement_p_holm),
  ],
  ["floor", (row) => row.floor, (row) => two(row.floor)],
  ["ceiling", (row) => row.ceiling, (row) => two(row.ceiling)],
  [
    "slope",
    (row) => row.slope,
    (row) => el("span", {}, two(row.slope), el("span", { class: "quiet" }, interval(row.slope_low, row.slope_high))),
  ],
];

const size = (number) => (number == null ? number : Math.abs(number));

/** The interval of R, turned where R is negative, so that it goes with |R|. */
const ofSize = ({ r, r_low, r_high }) =>
  r < 0 && r_low != null ? [-r_high, -r_low] : [r_low, r_high];

async function evidenceTable(rows) {
  if (!rows.length) return [];
  const DataTable = await loadTables();
  const places = [
    ["value", (row) => row.value, (row) => named(row.value), "string"],
    ["layer", (row) => row.layer, (row) => String(row.layer)],
    ["position", (row) => row.position, (row) => named(row.position), "string"],
    ["component", (row) => row.component, (row) => String(row.component)],
  ].filter(([title]) => title !== "position" || distinct(rows.map((row) => row.position)).length > 1);
  const known = EVIDENCE.filter(([, sorts]) => rows.some((row) => sorts(row) != null));
  const node = el("table", { class: "compact evidence" });
  const box = el("div", { class: "scroll" }, node);
  new DataTable(node, {
    data: rows,
    columns: [...places, ...known].map(([title, sorts, shows, type]) => ({
      title: literal(title),
      data: null,
      type: type ?? "num",
      render: (_, kind, row) => (kind === "display" ? el("span", {}, shows(row)) : (sorts(row) ?? -Infinity)),
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
        "their intervals. Grey italics: p above .05, corrected for all that was tested in this cell (R: Holm; drops: " +
        "the largest of all targets under their controls; answers that follow: against the floor, " +
        "not corrected). Drops are means over all strengths; floor: by chance, with other values; ceiling: the whole activation.",
    ),
    box,
  ];
}

/** What the slope at one place says. */
function slopePoint(map, row, column) {
  const [slope, low, high, agreement] = ["slope", "slope_low", "slope_high", "agreement"].map(
    (name) => map[name][row][column],
  );
  return {
    lines: [
      `direction of ${map.directions[row]}, ${map.changed[column]} changed`,
      `slope ${two(slope)}${interval(low, high)}`,
      `answers that follow ${two(agreement)}; n = ${map.n}`,
      `layer ${map.layer}, component ${map.component[row]}, ${map.position[row]}`,
    ],
    show: hideCommand,
  };
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
