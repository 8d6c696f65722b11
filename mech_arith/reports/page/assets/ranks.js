"use strict";
/* IIA against the rank of the subspace: a card per model, expression and value, a line per method. */

const EVERY = "all";
const rankChoice = { value: EVERY, method: EVERY, rank: EVERY };

const methodOf = (cell) => fieldText(cell, "tracing");
const chosenFor = (key, entry) => rankChoice[key] === EVERY || rankChoice[key] === entry;

/** Every line of every cell: its points by rank, in the chosen methods, values and ranks. */
function rankLines(cells) {
  return cells.flatMap((cell) =>
    (cell.ranks ?? [])
      .filter((line) => line.rank.length > 1)
      .filter((line) => chosenFor("method", methodOf(cell)) && chosenFor("value", line.value))
      .filter((line) => line.rank.some((rank) => chosenFor("rank", rank)))
      .map((line) => ({ cell, line })),
  );
}

/** What is known at one rank of a line; of `name`, which is IIA or what stands beside it. */
function rankPoint({ cell, line }, name, place, x) {
  return {
    ...{ x, y: line[name][place] },
    ends: name === "iia" ? [line.iia_low[place], line.iia_high[place]] : [],
    lines: [
      `IIA ${three(line.iia[place])}${interval(line.iia_low[place], line.iia_high[place])}, rank ${line.rank[place]}`,
      `random ${three(line.iia_random[place])}, floor ${three(line.floor[place])}, ceiling ${three(line.ceiling[place])}`,
      `cell ${cell.id}: ${cell.name}`,
      `${line.value}, ${layerOf(line)}${line.n ? `, n = ${line.n}` : ""}`,
    ],
    show: () =>
      showCommand({ what: `IIA by rank: cell ${cell.id}, ${line.value}`, command: cell.command, cell, linked: true }),
  };
}

const RANK_ARMS = {
  ceiling: { dash: "dash", width: 1 },
  floor: { dash: "longdashdot", width: 1 },
  iia_random: { dash: "dot", width: 1.2 },
  iia: { width: 1.8, bars: true },
};

/** The chart of one card: methods side by side at each rank, so that intervals do not hide. */
function rankChart(lines, ranks, kinds) {
  const at = (rank, kind) => ranks.indexOf(rank) + 0.3 * ((kinds.indexOf(kind) + 0.5) / kinds.length - 0.5);
  const shown = (line) => line.rank.map((rank, place) => [rank, place]).filter(([rank]) => ranks.includes(rank));
  const styles = Object.entries(RANK_ARMS).flatMap(([name, style]) =>
    kinds.map((kind, index) => ({
      lines: lines
        .filter(({ cell }) => methodOf(cell) === kind)
        .map((of) => shown(of.line).map(([rank, place]) => rankPoint(of, name, place, at(rank, kind)))),
      ...{ name: clipped(kind, 40), colour: kindColour(index), symbol: kindSymbol(index) },
      ...style,
      ...{ showlegend: name === "iia", group: kind },
    })),
  );
  const { traces, pointOf } = lineTraces(styles.filter((style) => style.lines.length));
  const layout = layoutOf({
    showlegend: kinds.length <= LARGEST_LEGEND,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } },
    margin: { l: 48, r: 8, t: 34, b: 40 },
    xaxis: { ...ticks(ranks.map(String), 16), range: [-0.5, ranks.length - 0.5], title: titled("rank of the subspace") },
    yaxis: { range: [-0.03, 1.03], dtick: 0.25, tickformat: ".2f", title: titled("IIA (share of answers)") },
  });
  return { traces, layout, pointOf };
}

/** The section, of the cells that the filters leave; hidden where none has several ranks. */
function showRanks(cells, all) {
  const grid = document.getElementById("ranks");
  const every = all.flatMap((cell) => (cell.ranks ?? []).map((line) => ({ cell, line })));
  const compared = every.filter(({ line }) => line.rank.length > 1);
  grid.closest("section").hidden = !compared.length;
  grid.replaceChildren();
  const kinds = distinct(compared.map(({ cell }) => methodOf(cell)));
  const lines = rankLines(cells).sort((a, b) => byLength(a.line.value, b.line.value));
  const titleOf = ({ cell, line }) => `${line.value}, ${["model", "expression"].map((f) => fieldText(cell, f)).join(" \u00b7 ")}`;
  for (const title of distinct(lines.map(titleOf))) {
    const here = lines.filter((of) => titleOf(of) === title);
    const ranks = distinct(here.flatMap(({ line }) => line.rank))
      .filter((rank) => chosenFor("rank", rank))
      .sort((a, b) => a - b);
    const heading = [
      el("b", {}, isolated(clipped(title, 80))),
      el("span", { class: "quiet" }, ` ${counted(here.length, "cell")}`),
    ];
    grid.append(card(heading, 300, () => rankChart(here, ranks, kinds)));
  }
  if (!lines.length) grid.append(el("p", { class: "quiet" }, "no cell here was asked for this"));
}

/** The choices above the cards: a value, a method, a rank, or all of them. */
function makeRankChoices(cells, redraw) {
  const lines = cells.flatMap((cell) => (cell.ranks ?? []).map((line) => ({ cell, line })));
  const entries = {
    value: distinct(lines.map(({ line }) => line.value)).sort(byLength),
    method: distinct(lines.map(({ cell }) => methodOf(cell))),
    rank: distinct(lines.flatMap(({ line }) => line.rank)).sort((a, b) => a - b),
  };
  const choices = Object.entries(entries).map(([key, found]) => {
    const known = [EVERY, ...found];
    const options = known.map((entry, place) => el("option", { value: place }, clipped(String(entry), 60)));
    const select = el("select", { name: `ranks-${key}` }, ...options);
    select.addEventListener("change", () => {
      rankChoice[key] = known[Number(select.value)];
      redraw();
    });
    return el("label", {}, key, select);
  });
  document.querySelector("#ranks-title ~ .legend-line .choices").replaceChildren(...choices);
}
