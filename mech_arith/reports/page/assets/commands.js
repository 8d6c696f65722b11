"use strict";
/* For every number the command that reproduces it. */

const NO_COMMAND = "not recorded: this run is of a version that did not write it down";

/** One layer's numbers do not depend on which other layers, strengths or edits are asked for. */
const oneLayer = (layer) => `layers.start=${layer} layers.stop=${layer + 1} layers.step=1`;

const commandOf = (cell) => cell.command ?? NO_COMMAND;

const narrowed = (cell, ...overrides) =>
  cell.command == null ? NO_COMMAND : [cell.command, ...overrides].join(" ");

/** The command for one edit. */
const editCommand = (cell, { layer, strength }) =>
  narrowed(
    cell,
    oneLayer(layer),
    "tracing.position_map=false",
    `'intervention.strengths=[${strength}]'`,
  );

/** The command for a correlation at the positions that the cell asks for. */
const traceCommand = (cell, { layer }) =>
  narrowed(cell, oneLayer(layer), "tracing.position_map=false", "intervention.edit=none");

/** The command for a correlation at a single position. */
const mapCommand = (cell, { layer }) =>
  narrowed(cell, oneLayer(layer), "intervention.edit=none");

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Where a page from a file may not use the clipboard's newer interface.
    const area = el("textarea", { class: "away" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function copyButton(text, label = "Copy", about = null) {
  const named = about ? { "aria-label": about } : {};
  const button = el("button", { type: "button", class: "copy", title: text, ...named }, label);
  button.addEventListener("click", async () => {
    await copyText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}

/** A command with its button. */
const commandBlock = (command) =>
  el("div", { class: "command" }, el("code", { dir: "ltr" }, command), copyButton(command));

/** Show at the foot of the window how a number is had again. */
function showCommand({ what, command, cell, linked }) {
  const bar = document.getElementById("reproduce");
  const close = el("button", { type: "button", "aria-label": "Close" }, "\u00d7");
  close.addEventListener("click", hideCommand);
  bar.replaceChildren(
    el(
      "p",
      {},
      isolated(what),
      linked ? el("a", { href: cellAddress(cell), onclick: hideCommand }, "open the cell") : null,
      close,
    ),
    commandBlock(command),
  );
  bar.hidden = false;
}

function hideCommand() {
  document.getElementById("reproduce").hidden = true;
}

const cellAddress = (cell) => `#cell=${encodeURIComponent(cell.id)}`;
