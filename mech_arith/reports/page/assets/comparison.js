"use strict";
/* The charts that put cells beside each other; they follow the filters. */

const MAPS_AT_FIRST = 12;
const DRAWN_AT_ONCE = 4;
const LARGEST_LEGEND = 16;

/** What a cell's map says at one value and layer. */
function mapPoint(cell, row, column) {
  const { values, layers, r, component, position } = cell.map;
  const number = r[row][column];
  const what =
    `|R| ${short(number == null ? null : Math.abs(number))} with ${values[row]}, ` +
    `layer ${layers[column]}, cell ${cell.id}`;
  const command = traceCommand(cell, { layer: layers[column] });
  return {
    lines: [
      `${values[row]}, layer ${layers[column]}: |R| ${two(number == null ? null : Math.abs(number))}`,
      `R ${two(number)} of component ${component[row][column]}, ${position[row][column]}`,
      "click: its command",
    ],
    show: () => showCommand({ what, command, cell, linked: true }),
  };
}

const drawMap = (cell) =>
  heatmap({
    rows: cell.map.values,
    columns: cell.map.layers.map(String),
    r: cell.map.r,
    about: (row, column) => mapPoint(cell, row, column),
    xTitle: "layer (0-based)",
    framed: [],
  });

/** Cells by their maps: those whose map is the same in every number share it. */
function byMap(cells) {
  const groups = new Map();
  for (const cell of cells) {
    const key = JSON.stringify([cell.map, cell.baseline[3]]);
    groups.set(key, [...(groups.get(key) ?? []), cell]);
  }
  return [...groups.values()];
}

/** The heading of a map: every cell that has it, and what they have in common. */
function mapHeading(cells) {
  const shared = nameOf(cells);
  const link = (cell, name) =>
    el("a", { href: cellAddress(cell), title: cell.name }, name, isolated(clipped(cell.id, 40)));
  const [first, ...others] = cells.slice(0, MAPS_AT_FIRST);
  const left = cells.length - MAPS_AT_FIRST;
  return [
    link(first, others.length ? "cells " : "cell "),
    ...others.flatMap((cell) => [", ", link(cell, "")]),
    ...(left > 0 ? [` and ${left} more`] : []),
    " ",
    el("span", { class: "quiet", title: shared }, isolated(clipped(shared, 90))),
    el("span", { class: "quiet" }, `${shared ? ", " : ""}n = ${cells[0].baseline[3] ?? "?"}`),
  ];
}

function showMaps(cells) {
  const grid = document.getElementById("maps");
  const more = document.getElementById("maps-more");
  const traced = byMap(cells.filter((cell) => cell.map));
  let shown = 0;
  const add = (count) => {
    for (const alike of traced.slice(shown, shown + count)) {
      const [cell] = alike;
      grid.append(card(mapHeading(alike), 66 + 24 * cell.map.values.length, () => drawMap(cell)));
    }
    shown = Math.min(traced.length, shown + count);
    const left = traced.length - shown;
    const button = (count) => {
      const node = el("button", { type: "button" }, `${count} more`);
      node.addEventListener("click", () => add(count));
      return node;
    };
    more.replaceChildren(
      traced.length ? `${shown} of ${counted(traced.length, "map")} shown ` : "no cell with a result here ",
      ...(left ? [button(Math.min(left, MAPS_AT_FIRST))] : []),
      ...(left > MAPS_AT_FIRST ? [" ", button(left)] : []),
    );
  };
  grid.replaceChildren();
  add(MAPS_AT_FIRST);
}

/** The first maps are drawn wherever they are, so that scrolling finds them there. */
const firstCharts = () =>
  Promise.all([...document.querySelectorAll("#maps .plot")].slice(0, DRAWN_AT_ONCE).map(drawNow));

/** The scale of the colours that all maps share. */
function showScale(node) {
  const bar = { orientation: "h", thickness: 10, len: 1, y: 0.5, yanchor: "middle", outlinewidth: 0 };
  const trace = {
    ...{ type: "heatmap", z: [[0, 1]], zmin: 0, zmax: 1, colorscale: BLUES, opacity: 0 },
    hoverinfo: "skip",
    colorbar: { ...bar, title: { text: "|R| on the report split", side: "top" }, dtick: 0.25 },
  };
  const hidden = { visible: false };
  const layout = layoutOf({ margin: { l: 8, r: 8, t: 0, b: 0 }, xaxis: hidden, yaxis: hidden });
  return lazily(node, () => ({ traces: [trace], layout }));
}

const ANY = "the largest drop";
const choice = { value: ANY, colour: null };

/** The line of a cell for the value that is chosen; of any value the one that the table names. */
function lineOf(cell) {
  const lines = cell.lines ?? [];
  const value = choice.value === ANY ? largestDrop(cell)?.[0] : choice.value;
  const named = lines.find((line) => line.value === value);
  if (named || choice.value !== ANY) return named;
  const largest = (line) => Math.max(...line.dose.drop.map((drop) => drop ?? -2));
  return lines.reduce(
    (best, line) => (best && largest(best) >= largest(line) ? best : line),
    undefined,
  );
}

/** What one point of a cell's curve says: (cell, value, dose or layer's row, arm). */
function editPoint(cell, value, { layer, head, strength, drop, control, isControl, n, x, ends = [] }) {
  const shown = isControl ? control : drop;
  const where = layerOf({ layer, head });
  const arm = isControl ? "control" : "accuracy drop";
  return {
    ...{ x, ends },
    y: shown,
    lines: [
      `${arm} ${three(shown)}${interval(...ends)}${isControl ? "" : `, control ${three(control)}`}`,
      `cell ${cell.id}: ${cell.name}`,
      `direction for ${value}, ${where}, strength ${strength}${n ? `, n = ${n}` : ""}`,
      "click: its command",
    ],
    show: () =>
      showCommand({
        what: `${arm} ${three(shown)}: cell ${cell.id}, ${value}, ${where}, strength ${strength}`,
        command: editCommand(cell, { layer, strength }),
        cell,
        linked: true,
      }),
  };
}

/** The ends of a point's interval; none in a run of a version that had none. */
const endsOf = (dose, place, isControl) =>
  ["low", "high"].map((end) => dose[`${isControl ? "control" : "drop"}_${end}`]?.[place]);

/** Points along a line's strengths. */
const dosePoints = (cell, value, dose, isControl) =>
  dose.strengths.map((strength, place) =>
    editPoint(cell, value, {
      ...{ layer: dose.layer, head: dose.head, strength, isControl, n: dose.n, x: strength },
      ...{ drop: dose.drop[place], control: dose.control[place] },
      ends: endsOf(dose, place, isControl),
    }),
  );

const layerPoints = (cell, line, isControl) =>
  line.layers.map(([layer, drop, control, strength]) =>
    editPoint(cell, line.value, {
      ...{ layer, drop, control, strength, isControl, n: line.dose.n, x: layer },
    }),
  );

/** Curves of many cells: a colour per kind of cell, its controls dotted in the same colour. */
function curves(cells, kinds, pointsOf, axes) {
  const drawn = cells.map((cell) => [cell, lineOf(cell)]).filter(([, line]) => line);
  const crowd = drawn.length > 30;
  const style = (isControl) =>
    isControl
      ? { width: 1.2, dash: "dot", opacity: crowd ? 0.4 : 0.8, showlegend: false }
      : { width: crowd ? 1.2 : 1.8, opacity: crowd ? 0.6 : 1 };
  const arms = [true, false].flatMap((isControl) =>
    kinds.map((kind, index) => ({
      lines: drawn
        .filter(([cell]) => fieldText(cell, choice.colour) === kind)
        .map(([cell, line]) => pointsOf(cell, line, isControl)),
      ...{ name: clipped(kind, 40), colour: kindColour(index), symbol: kindSymbol(index) },
      ...style(isControl),
    })),
  );
  const styles = [
    { lines: [[{ x: null, y: null, lines: [] }]], name: "control", colour: CONTROL, width: 1.2, dash: "dot" },
    ...arms.filter(({ lines }) => lines.length),
  ];
  const { traces, pointOf } = lineTraces(styles);
  const legend = { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } };
  const drops = traces.flatMap((trace) => trace.y);
  const layout = layoutOf({
    ...{ showlegend: kinds.length <= LARGEST_LEGEND, legend, margin: { l: 48, r: 8, t: 34, b: 40 } },
    xaxis: axes.x,
    yaxis: dropAxis(drops, axes.y),
  });
  return { traces, layout, pointOf };
}

/** A panel per kind of edit, since strengths of different edits have different units. */
function showCurves(cells, all) {
  const kinds = distinct(
    all.filter((cell) => cell.lines?.length).map((cell) => fieldText(cell, choice.colour)),
  );
  const edits = distinct(cells.filter((cell) => cell.lines?.length).map((cell) => cell.edit.join("|")));
  const [doses, layers] = ["doses", "layers"].map((id) => document.getElementById(id));
  doses.replaceChildren();
  layers.replaceChildren();
  for (const edit of edits) {
    const of = cells.filter((cell) => cell.lines?.length && cell.edit.join("|") === edit);
    const [name, unit] = of[0].edit;
    const drawn = of.filter(lineOf);
    const counts = distinct(drawn.map((cell) => lineOf(cell).dose.n ?? "?"));
    const heading = [
      el("b", {}, isolated(name)),
      el(
        "span",
        { class: "quiet" },
        ` ${counted(drawn.length, "cell")}; direction for `,
        isolated(clipped(choice.value, 40)),
        `; n = ${counts.join(" or ")} problems per point`,
      ),
    ];
    const dose = (cell, line, isControl) => dosePoints(cell, line.value, line.dose, isControl);
    const strength = { title: titled(`strength of ${name} (${unit})`) };
    const deepest = Math.max(0, ...drawn.flatMap((cell) => cell.map?.layers ?? []));
    const depth = { title: titled("layer (0-based)"), tick0: 0, dtick: Math.ceil((deepest + 1) / 16) };
    const drop = "accuracy drop (share of problems)";
    if (hasDoses(drawn.map((cell) => lineOf(cell).dose))) {
      doses.append(card(heading, 340, () => curves(of, kinds, dose, { x: strength, y: drop })));
    }
    layers.append(
      card(
        heading.map((node) => node.cloneNode(true)),
        340,
        () => curves(of, kinds, layerPoints, { x: depth, y: `largest ${drop}` }),
      ),
    );
  }
  const none = edits.length ? "every edit here has one strength: see below" : "no cell with edits here";
  for (const grid of [doses, layers]) {
    if (!grid.children.length) grid.replaceChildren(el("p", { class: "quiet" }, none));
  }
}

/** Which value's directions are drawn, and what the colours tell apart. */
function makeChoices(cells, varying, redraw) {
  const values = distinct(cells.flatMap((cell) => (cell.lines ?? []).map((line) => line.value)));
  const fields = distinct(["model", ...varying]).filter((name) => name !== "edit");
  choice.colour = fields[0];
  const make = (key, text, entries, shown) => {
    const select = el(
      "select",
      { name: key },
      ...entries.map((entry, place) => el("option", { value: place }, clipped(shown(entry), 60))),
    );
    select.addEventListener("change", () => {
      choice[key] = entries[Number(select.value)];
      redraw();
    });
    return el("label", {}, text, select);
  };
  document
    .querySelector("#doses-title ~ .legend-line .choices")
    .replaceChildren(
      make("value", "direction for", [ANY, ...values.sort(byLength)], (value) => value),
      make("colour", "colour by", fields, fieldName),
    );
}
