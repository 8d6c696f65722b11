"use strict";
/* All cells: their names, the table and the filters. */

const GROUPS = { model: "models", template: "templates", layers: "layers", edit: "interventions" };
/* First in names and columns, in this order. */
const FIELDS = ["model", "template", "expression", "hypothesis", "layers", "edit", "prompt", "design", "seed"];
/* With more fields that differ, the numbers would not fit beside them. */
const MOST_FIELDS = 3;
const EDIT_NAMES = { edit: "intervention" };
const fieldName = (field) => EDIT_NAMES[field] ?? field;
const fieldText = (cell, field) => String(cell.fields[field] ?? DASH);

/** A cell by what tells it from the others of this report. */
function makeNames(cells) {
  const fields = distinct([...FIELDS, ...cells.flatMap((cell) => Object.keys(cell.fields))]).filter(
    (field) => cells.some((cell) => field in cell.fields),
  );
  const known = (field) => cells.filter((cell) => field in cell.fields);
  const varying = fields.filter(
    (field) => distinct(known(field).map((cell) => fieldText(cell, field))).length > 1,
  );
  const usual = ["model", "expression", "edit"];
  const told = varying.filter((field) => field !== "template" || !expressionTells(cells));
  for (const cell of cells) {
    const shown = told.length ? told : usual.filter((field) => field in cell.fields);
    cell.parts = shown
      .filter((field) => field in cell.fields)
      .map((field) => {
        const plainly = ["model", "template", "expression", "edit"].includes(field);
        return plainly ? fieldText(cell, field) : `${field} ${fieldText(cell, field)}`;
      });
    cell.name = nameOf([cell]);
  }
  return { fields, varying, told };
}

/** Whether each expression has one template, so that its column takes room and tells nothing. */
function expressionTells(cells) {
  const expressions = distinct(cells.map((cell) => fieldText(cell, "expression")));
  const pairs = cells.map((cell) => JSON.stringify(["expression", "template"].map((field) => fieldText(cell, field))));
  return distinct(pairs).length === expressions.length;
}

/** What some cells' names have in common. */
const nameOf = ([first, ...others]) =>
  first.parts.filter((part) => others.every(({ parts }) => parts.includes(part))).join(" \u00b7 ");

const nothing = () => el("span", { class: "quiet" }, DASH);

function bestLines(cell) {
  return Object.entries(cell.best ?? {}).sort(([, a], [, b]) => (b.abs_r ?? 0) - (a.abs_r ?? 0));
}

/** The value whose edit costs most, and that edit. */
function largestDrop(cell) {
  const drops = Object.entries(cell.drops ?? {});
  return drops.sort(([, a], [, b]) => b.accuracy_drop - a.accuracy_drop)[0] ?? null;
}

/** A line for each value, the best-traced first, so that lines of all columns stand side by side. */
const showEach = (cell, shows) =>
  cell.headline?.length
    ? el("ul", { class: "plain" }, ...cell.headline.map((row) => el("li", {}, shows(row))))
    : nothing();

const showValue = (row) =>
  el("span", row.sentence ? { title: row.sentence } : {}, named(row.value), el("span", { class: "quiet" }, ` ${layerOf(row)}`));

/** What a column of the evidence shows of a value in the table of all cells: one line. */
function headlineEntry(row, column) {
  if (!isKnown(row, column)) return nothing();
  if (!column.is_text) return shownNumber(row, column);
  return el("span", whyOf(row, column), named(row[column.name], 26));
}

/** A column of the evidence in the table of all cells. */
const headlineColumn = (column) => ({
  title: column.title,
  known: (cell) => cell.headline?.some((row) => isKnown(row, column)),
  show: (cell) => showEach(cell, (row) => headlineEntry(row, column)),
  sort: (cell) => {
    const known = (cell.headline ?? []).filter((row) => isKnown(row, column));
    if (column.is_text) return known.map((row) => row[column.name]).join(" ");
    return Math.max(-9, ...known.map((row) => numberOf(row, column)));
  },
  find: (cell) =>
    column.is_text ? (cell.headline ?? []).map((row) => row[column.name] ?? "").join(" ") : "",
  number: !column.is_text,
});

function showDrop(cell) {
  const found = largestDrop(cell);
  if (!found) return nothing();
  const [value, drop] = found;
  const before = drop.baseline_accuracy;
  return el(
    "div",
    {},
    el("b", {}, three(drop.accuracy_drop)),
    el("span", { class: "quiet" }, ` control ${three(drop.control_drop)}`),
    el("br"),
    el("span", { class: "quiet" }, `${two(before)} \u2192 ${two(before - drop.accuracy_drop)}`),
    el("br"),
    el(
      "span",
      { class: "quiet" },
      named(value),
      `, ${layerOf(drop)}, strength ${drop.strength}`,
    ),
  );
}

function showBaseline(cell) {
  if (!cell.baseline) return nothing();
  const [accuracy, floor, p] = cell.baseline;
  return el(
    "div",
    {},
    el("b", {}, three(accuracy)),
    el("br"),
    el("span", { class: p >= 0.01 ? "warn" : "quiet" }, `floor ${three(floor)}`),
  );
}

const showStatus = (status) => el("span", { class: `status ${status}` }, status);

const showCell = (cell) =>
  el(
    "div",
    {},
    el("a", { href: cellAddress(cell), title: cell.name }, isolated(cell.id)),
    el("br"),
    copyButton(commandOf(cell), "Copy", "Copy the command"),
  );

function fieldColumn(cells, name) {
  const number = cells.every((cell) => typeof (cell.fields[name] ?? 0) === "number");
  return {
    title: fieldName(name),
    field: name,
    number,
    show: (cell) => isolated(clipped(fieldText(cell, name), 80)),
    sort: (cell) => cell.fields[name] ?? (number ? -Infinity : ""),
    find: (cell) => fieldText(cell, name),
  };
}

/** What tells the cell from the others, a line for each field. */
const settingsColumn = (names) => ({
  title: "settings",
  show: (cell) => el("ul", { class: "plain settings" }, ...names.map((name) => settingOf(cell, name))),
  sort: (cell) => names.map((name) => fieldText(cell, name)).join(" "),
  find: (cell) => names.map((name) => `${fieldName(name)} ${fieldText(cell, name)}`).join(" "),
});

const settingOf = (cell, name) =>
  el("li", {}, el("span", { class: "quiet" }, `${fieldName(name)} `), isolated(clipped(fieldText(cell, name), 60)));

/** A column for each field; of many that tell cells apart one for all. */
function fieldColumns(cells, fields, told) {
  const apart = told.length > MOST_FIELDS ? told : [];
  const own = fields.filter((name) => !apart.includes(name)).map((name) => fieldColumn(cells, name));
  return apart.length ? [...own, settingsColumn(apart)] : own;
}

/** Columns of the table; one with a `field` is left out where it does not tell cells apart, and one of
 * the evidence where no cell has it. */
const columnsOf = (cells, { fields, told }, headlines) => [
  {
    title: "cell",
    show: showCell,
    sort: (cell) => cell.place,
    find: (cell) => `${cell.id} ${cell.name} ${commandOf(cell)}`,
    number: true,
  },
  {
    title: "status",
    show: (cell) => showStatus(cell.status),
    sort: (cell) => cell.status,
    find: (cell) => cell.status,
  },
  ...fieldColumns(cells, fields, told),
  {
    title: "baseline accuracy",
    show: showBaseline,
    sort: (cell) => cell.baseline?.[0] ?? -1,
    number: true,
  },
  {
    title: "value, layer",
    known: (cell) => cell.headline?.length,
    show: (cell) => showEach(cell, showValue),
    sort: (cell) => cell.headline?.[0]?.value ?? "",
    find: (cell) => (cell.headline ?? []).map(({ value }) => value).join(" "),
  },
  ...headlines.map(headlineColumn),
  {
    title: "largest accuracy drop",
    show: showDrop,
    sort: (cell) => largestDrop(cell)?.[1].accuracy_drop ?? -2,
    number: true,
  },
  {
    title: "note",
    known: (cell) => cell.note,
    show: (cell) => isolated(clipped(cell.note, 160)),
    sort: (cell) => cell.note,
    find: (cell) => `${cell.note} ${cell.error}`,
  },
];

async function makeTable(cells, named, evidence, onChange) {
  const DataTable = await loadTables();
  const { fields, varying, told } = named;
  const headlines = evidence.filter((column) => column.is_headline);
  const columns = columnsOf(cells, named, headlines);
  const shown = (column) =>
    column.known ? cells.some(column.known) : !column.field || told.includes(column.field);
  const table = new DataTable("#cells", {
    data: cells,
    columns: columns.map((column) => ({
      title: literal(column.title), // which DataTables takes for HTML
      data: null,
      type: column.number ? "num" : "string",
      visible: shown(column),
      searchable: false, // DataTables would search what it first takes for HTML
      render: (_, kind, cell) => (kind === "display" ? column.show(cell) : column.sort(cell)),
    })),
    order: [],
    autoWidth: false,
    pageLength: 10,
    lengthMenu: [10, 25, 100, { label: "all", value: -1 }],
    caption: "Cells of this report",
    language: { lengthMenu: "_MENU_ cells per page", zeroRecords: "no cell fits the filters" },
    layout: { topStart: null, topEnd: null, bottomStart: ["info", "pageLength"], bottomEnd: "paging" },
  });
  const rows = cells.flatMap((cell) => cell.headline ?? []);
  if (rows.length) document.getElementById("legend").replaceChildren(legendOf(knownColumns(rows, headlines)));
  document.getElementById("grey").textContent = GREY;
  const same = fields.filter((name) => !varying.includes(name));
  const first = (name) => cells.find((cell) => name in cell.fields);
  const unknown = cells.some((cell) => same.some((name) => !(name in cell.fields)));
  if (cells.length > 1 && same.length) {
    document
      .getElementById("same")
      .replaceChildren(
        unknown ? "The same wherever it is known: " : "The same in all: ",
        ...same.flatMap((name, place) => [
          place ? ", " : "",
          `${fieldName(name)} `,
          isolated(clipped(fieldText(first(name), name), 80)),
        ]),
      );
  }
  for (const cell of cells) {
    cell.words = columns.map((column) => column.find?.(cell) ?? "").join(" ").toLowerCase();
  }
  const chosen = () => table.rows({ search: "applied", order: "applied" }).data().toArray();
  table.on("draw", () => onChange(chosen()));
  return { table, chosen };
}

function makeFilters(cells, table) {
  const form = document.getElementById("filters");
  const selects = Object.entries({ ...GROUPS, status: "statuses" }).map(([name, all]) => {
    const text = (cell) => (name === "status" ? cell.status : fieldText(cell, name));
    const counts = new Map();
    for (const cell of cells) counts.set(text(cell), (counts.get(text(cell)) ?? 0) + 1);
    const select = el(
      "select",
      { name },
      el("option", { value: "" }, `all ${all}`),
      ...[...counts].map(([entry, count], place) =>
        el("option", { value: String(place + 1) }, `${clipped(entry, 40)} (${count})`),
      ),
    );
    const entries = [...counts.keys()];
    select.addEventListener("change", () => {
      const wanted = select.value && entries[Number(select.value) - 1];
      table.search.fixed(name, wanted === "" ? null : (_, cell) => text(cell) === wanted).draw();
    });
    return { select, node: el("label", {}, fieldName(name), select), many: counts.size > 1 };
  });
  const search = el("input", { type: "search", placeholder: "any text", name: "text" });
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (_, cell) => words.every((word) => cell.words.includes(word));
    table.search.fixed("text", words.length ? fits : null).draw();
  });
  const count = el("output", { id: "count", "aria-live": "polite" });
  const reset = el("button", { type: "button" }, "Reset");
  reset.addEventListener("click", () => {
    form.reset();
    for (const name of [...selects.map(({ select }) => select.name), "text"]) {
      table.search.fixed(name, null);
    }
    table.draw();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  const nodes = selects.map(({ node }) => node);
  form.replaceChildren(...nodes, el("label", {}, "search", search), reset, count);
  return (chosen) => (count.textContent = `${chosen.length} of ${counted(cells.length, "cell")}`);
}
