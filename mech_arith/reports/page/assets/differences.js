"use strict";
/* Two runs side by side: both numbers and B minus A. */

const ofSide = (row, side) =>
  el(
    "span",
    {},
    two(row[side]),
    el("span", { class: "quiet" }, interval(row[`${side}_low`], row[`${side}_high`])),
  );

/** A column of the site in A and in B. */
const sidesOf = (row, name) => [row[`${name}_a`], row[`${name}_b`]];

const differenceOf = (row) =>
  el(
    "span",
    row.counts == null ? {} : STANDINGS[row.counts ? "finding" : "chance"],
    el("span", { class: "number" }, two(row.difference)),
    el("span", { class: "quiet" }, interval(row.difference_low, row.difference_high)),
  );

/** Show the section of a page that compares two runs. */
async function showDifferences(differences, { columns, site }) {
  if (!differences) return;
  const { titles, quantities, notes, rows } = differences;
  const section = document.getElementById("differences");
  section.hidden = false;
  const table = el("table", { class: "compact evidence" });
  section.replaceChildren(
    el("h2", {}, "B minus A"),
    el("p", {}, "A: ", isolated(titles[0]), ". B: ", isolated(titles[1]), "."),
    ...notes.map((note) => el("p", { class: "quiet" }, isolated(note))),
    el("p", { class: "quiet" }, GREY),
    el("div", { class: "scroll" }, table),
    ...differenceFigures(rows, columns, site),
  );
  await differenceTable(table, rows, quantities, site);
}

async function differenceTable(node, rows, quantities, site) {
  const DataTable = await loadTables();
  const order = Object.keys(quantities);
  const cells = ({ cell_a, cell_b }) => `${cell_a}, ${cell_b}`;
  const all = [
    ["cells", cells, (row) => isolated(cells(row)), "string"],
    ["quantity", (row) => order.indexOf(row.quantity), (row) => quantities[row.quantity]],
    ["value", (row) => row.value, (row) => named(row.value ?? ""), "string"],
    ["layer", (row) => row.layer, (row) => String(row.layer ?? "")],
    ...site.map((name) => [name, (row) => row[`${name}_a`], (row) => named(distinct(sidesOf(row, name)).join(", ")), "string"]),
    ["strength", (row) => row.strength, (row) => String(row.strength ?? "")],
    ["A", (row) => row.a, (row) => ofSide(row, "a")],
    ["B", (row) => row.b, (row) => ofSide(row, "b")],
    ["B minus A", (row) => row.difference, differenceOf],
    ["p", (row) => row.p_holm, (row) => shownP(row.p_holm)],
  ];
  const varies = { cells, strength: (row) => row.strength };
  for (const name of site) varies[name] = (row) => sidesOf(row, name).join(", ");
  const columns = all.filter(
    ([title]) => !varies[title] || distinct(rows.filter((row) => row.layer != null).map(varies[title])).length > 1,
  );
  new DataTable(node, {
    data: rows,
    columns: columns.map(([title, sorts, shows, type]) => ({
      ...{ title: literal(title), data: null, type: type ?? "num" },
      render: (_, kind, row) => {
        if (kind === "display") return el("span", {}, shows(row));
        const missing = { string: "" }[type] ?? (title === "p" ? 2 : -Infinity);
        return sorts(row) ?? missing;
      },
    })),
    ...{ order: [[columns.length - 1, "asc"]], autoWidth: false, pageLength: 10, searching: false },
    lengthMenu: [10, 25, 100, { label: "all", value: -1 }],
    caption: "B minus A",
    language: { lengthMenu: "_MENU_ rows per page" },
    layout: { topStart: null, topEnd: null, bottomStart: ["info", "pageLength"], bottomEnd: "paging" },
  });
}

/**
 * By layer, for each value at each place of a layer: the drawn numbers of the evidence, B minus A.
 * Of one pair of cells.
 */
function differenceFigures(rows, columns, site) {
  const [first] = rows;
  const drawn = columns
    .filter((column) => column.is_drawn && column.is_compared)
    .map((column) => ({ ...column, name: column.shown, is_size: false, beside: [], p: null }))
    .map((column) => ({ ...column, low: `${column.name}_low`, high: `${column.name}_high`, null: "zero" }));
  const places = new Map();
  for (const row of rows) {
    if (row.cell_a !== first.cell_a || row.cell_b !== first.cell_b || row.layer == null) continue;
    const key = JSON.stringify([row.value, row.layer, ...site.map((name) => row[`${name}_a`])]);
    if (!places.has(key)) {
      const { value, layer, component_a: component, position_a: position, head_a: head } = row;
      places.set(key, { value, layer, component, position, head, zero: 0 });
    }
    const ends = { [`${row.quantity}_low`]: row.difference_low, [`${row.quantity}_high`]: row.difference_high };
    Object.assign(places.get(key), { [row.quantity]: row.difference, ...ends });
  }
  const points = [...places.values()];
  const known = knownColumns(points, drawn);
  if (!known.length) return [];
  const values = distinct(points.map(({ value }) => value)).sort(byLength);
  const lines = values.flatMap((value) => linesOf(points.filter((point) => point.value === value)));
  const cards = lines.map(({ title, line }) =>
    card([el("b", {}, isolated(clipped(title, 40)))], 230, () => evidenceChart(line, known, 0.05)),
  );
  const about = `B minus A by layer, with intervals: cells ${first.cell_a} and ${first.cell_b}. Dotted: no difference.`;
  return [
    el(
      "div",
      { class: "legend-line" },
      el("p", { class: "quiet" }, isolated(about)),
      keyOf(known.map(({ title }, index) => [kindColour(index), title])),
    ),
    cardsFor(distinct(points.map(({ layer }) => layer)), cards),
  ];
}

/** Points of one value by layer; where layers have several, a line for each place within them. */
function linesOf(points) {
  const several = points.length > distinct(points.map(({ layer }) => layer)).length;
  const places = several ? distinct(points.map(placeOf)) : [null];
  return places.map((place) => ({
    title: place == null ? points[0].value : `${points[0].value}, ${place}`,
    line: points
      .filter((point) => place == null || placeOf(point) === place)
      .sort((a, b) => a.layer - b.layer),
  }));
}
