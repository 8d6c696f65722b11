"use strict";
/* All cells: their names, the table and the filters. */

const GROUPS = { model: "models", template: "templates", layers: "layers", edit: "interventions" };
/* First in names and columns, in this order. */
const FIELDS = ["model", "template", "expression", "layers", "edit", "prompt", "design", "seed"];
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
  const told = varying.filter((field) => field !== "template" || !varying.includes("expression"));
  for (const cell of cells) {
    const shown = told.length ? told : usual.filter((field) => field in cell.fields);
    cell.name = shown
      .filter((field) => field in cell.fields)
      .map((field) => {
        const plainly = ["model", "template", "expression", "edit"].includes(field);
        return plainly ? fieldText(cell, field) : `${field} ${fieldText(cell, field)}`;
      })
      .join(" \u00b7 ");
  }
  return { fields, varying };
}

const nothing = () => el("span", { class: "quiet" }, DASH);

function bestLines(cell) {
  return Object.entries(cell.best ?? {}).sort(([, a], [, b]) => (b.abs_r ?? 0) - (a.abs_r ?? 0));
}

/** The value whose edit costs most, and that edit. */
function largestDrop(cell) {
  const drops = Object.entries(cell.drops ?? {});
  return drops.sort(([, a], [, b]) => b.accuracy_drop - a.accuracy_drop)[0] ?? null;
}

const showBest = (cell) =>
  cell.map
    ? el(
        "ul",
        { class: "plain" },
        ...bestLines(cell).map(([value, found]) =>
          el(
            "li",
            {},
            sureOf(found.abs_r, ...ofSize(found), found.p_holm),
            " ",
            named(value),
            el("span", { class: "quiet" }, ` layer ${found.layer}`),
          ),
        ),
      )
    : nothing();

/** A number in bold with its interval; in grey italics if it may be chance. */
const sureOf = (number, low, high, p) =>
  el(
    "span",
    p > ALPHA ? { class: "doubtful", title: `p ${shownP(p)}, corrected` } : {},
    el("b", {}, two(number)),
    el("span", { class: "quiet" }, interval(low, high)),
  );

/** Of every value, the best-traced first: what `shows` makes of what `field` has of it. */
function showEach(cell, field, shows) {
  const found = cell[field] ?? {};
  const values = bestLines(cell).map(([value]) => value).filter((value) => value in found);
  if (!values.length) return nothing();
  const items = values.map((value) => el("li", {}, ...shows(found[value]), " ", named(value)));
  return el("ul", { class: "plain" }, ...items);
}

const showExcess = (cell) =>
  showEach(cell, "excess", (found) => [
    sureOf(found.excess_drop, found.excess_low, found.excess_high, found.excess_p_max),
    el("span", { class: "quiet" }, ` p ${shownP(found.excess_p_max)}`),
  ]);

const shortly = (number) => short(number) || DASH;

const showAgreement = (cell) =>
  showEach(cell, "agreement", (found) => [
    sureOf(found.agreement, found.agreement_low, found.agreement_high, found.agreement_p_holm),
    el("span", { class: "quiet" }, ` of ${shortly(found.floor)} to ${shortly(found.ceiling)}`),
  ]);

/** The largest number of a field over values. */
const largestOf = (cell, field, name) =>
  Math.max(-2, ...Object.values(cell[field] ?? {}).map((found) => found[name]));

function showDrop(cell) {
  const found = largestDrop(cell);
  if (!found) return nothing();
  const [value, drop] = found;
  const before = drop.baseline_accuracy;
  return el(
    "div",
    {},
    el("b", {}, three(drop.accuracy_drop)),
    el("span", { class: "quiet" }, ` ${two(before)} \u2192 ${two(before - drop.accuracy_drop)}`),
    el("br"),
    el(
      "span",
      { class: "quiet" },
      named(value),
      `, layer ${drop.layer}, strength ${drop.strength}`,
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

const showCell = (cell) => el("a", { href: cellAddress(cell), title: cell.name }, isolated(cell.id));

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

/** Columns of the table; one with a `field` is left out where all cells have the same. */
const columnsOf = (cells, fields) => [
  {
    title: "cell",
    show: showCell,
    sort: (cell) => cell.place,
    find: (cell) => `${cell.id} ${cell.name}`,
    number: true,
  },
  {
    title: "status",
    show: (cell) => showStatus(cell.status),
    sort: (cell) => cell.status,
    find: (cell) => cell.status,
  },
  ...fields.map((name) => fieldColumn(cells, name)),
  {
    title: "baseline accuracy",
    show: showBaseline,
    sort: (cell) => cell.baseline?.[0] ?? -1,
    number: true,
  },
  {
    title: "best |R|",
    show: showBest,
    sort: (cell) => bestLines(cell)[0]?.[1].abs_r ?? -1,
    find: (cell) => Object.keys(cell.best ?? {}).join(" "),
    number: true,
  },
  {
    title: "drop beyond random directions",
    field: "excess",
    show: showExcess,
    sort: (cell) => largestOf(cell, "excess", "excess_drop"),
    number: true,
  },
  {
    title: "answers that follow, of floor to ceiling",
    field: "agreement",
    show: showAgreement,
    sort: (cell) => largestOf(cell, "agreement", "agreement"),
    number: true,
  },
  {
    title: "largest accuracy drop",
    show: showDrop,
    sort: (cell) => largestDrop(cell)?.[1].accuracy_drop ?? -2,
    number: true,
  },
  {
    title: "its control",
    show: (cell) => {
      const found = largestDrop(cell);
      return found ? el("span", {}, three(found[1].control_drop)) : nothing();
    },
    sort: (cell) => largestDrop(cell)?.[1].control_drop ?? -2,
    number: true,
  },
  {
    title: "note",
    field: "note",
    show: (cell) => isolated(clipped(cell.note, 160)),
    sort: (cell) => cell.note,
    find: (cell) => `${cell.note} ${cell.error}`,
  },
  {
    title: "",
    show: (cell) => copyButton(commandOf(cell), "Copy command"),
    sort: () => "",
    find: (cell) => commandOf(cell),
    fixed: true,
  },
];

async function makeTable(cells, { fields, varying }, onChange) {
  const DataTable = await loadTables();
  const columns = columnsOf(cells, fields);
  const shown = (column) =>
    !column.field ||
    varying.includes(column.field) ||
    (column.field === "note" && cells.some((cell) => cell.note)) ||
    (["excess", "agreement"].includes(column.field) &&
      cells.some((cell) => Object.keys(cell[column.field] ?? {}).length));
  const table = new DataTable("#cells", {
    data: cells,
    columns: columns.map((column) => ({
      title: literal(column.title), // which DataTables takes for HTML
      data: null,
      type: column.number ? "num" : "string",
      visible: shown(column),
      orderable: !column.fixed,
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
  const same = fields.filter((name) => !varying.includes(name));
  const first = (name) => cells.find((cell) => name in cell.fields);
  const unknown = cells.some((cell) => same.some((name) => !(name in cell.fields)));
  if (cells.length > 1 && same.length) {
    document
      .getElementById("same")
      .replaceChildren(
        unknown ? "The same in all of which it is known: " : "The same in all: ",
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
