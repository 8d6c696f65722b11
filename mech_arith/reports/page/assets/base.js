"use strict";
/* What the other scripts share: unpacking data, elements made of text, numbers for people. */

const NONCE = document.currentScript.nonce;

/** What is packed in the page under that name. */
async function unpack(name) {
  const packed = atob(document.getElementById(`packed-${name}`).textContent);
  const bytes = new Uint8Array(packed.length);
  for (let place = 0; place < packed.length; place++) bytes[place] = packed.charCodeAt(place);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** A place within a layer, in words: 'last', 'last, head 3'. */
const placeOf = ({ position, head }) => (head ? `${position}, head ${head}` : position);

/** A layer, and its head where heads are sites of their own: 'layer 2, head 3'. */
const layerOf = ({ layer, head }) => (head ? `layer ${layer}, head ${head}` : `layer ${layer}`);

/** Each asked for is made once. */
function once(make) {
  const made = new Map();
  return (key) => {
    if (!made.has(key)) made.set(key, make(key));
    return made.get(key);
  };
}

/** Cells by twenties, as they are packed. */
const cellChunk = once(async (index) => JSON.parse(await unpack(`cells-${index}`)));

/** DataTables is a module: the browser imports it from memory. */
const loadTables = once(async () => {
  const source = new Blob([await unpack("datatables")], { type: "text/javascript" });
  return (await import(URL.createObjectURL(source))).default;
});

const loadPlotly = once(async () => {
  const script = document.createElement("script");
  script.nonce = NONCE;
  script.textContent = await unpack("plotly");
  document.head.append(script);
  return window.Plotly;
});

/** An element; `text` and children are text or nodes and never HTML. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** Text of unknown direction, kept apart from what stands around it. */
const isolated = (text) => el("bdi", {}, String(text));

/** A name in little room, whole when the mouse rests on it. */
const named = (text, length = 24) =>
  el("bdi", text.length > length ? { title: text } : {}, clipped(text, length));

const pause = () => new Promise((resolve) => setTimeout(resolve));

const DASH = "\u2013";
const fixed = (number, digits) =>
  number == null ? DASH : number.toFixed(digits).replace(/^-(?=.*[1-9])/, "\u2212").replace("-", "");
/** |R| as the tables print it. */
const two = (number) => fixed(number, 2);
const three = (number) => fixed(number, 3);
const shortly = (number) => short(number) || DASH;
/** |R| inside a cell of a map: '.07', '.98', '1.00'. */
const short = (number) => (number == null ? "" : two(number).replace(/^(\u2212?)0\./, "$1."));

/** ' [.35, .49]'; nothing for a run of a version that had no intervals. */
const interval = (low, high) =>
  low == null || high == null ? "" : ` [${short(low)}, ${short(high)}]`;
const shownP = (p) => (p == null ? DASH : p < 0.001 ? "< .001" : p.toFixed(3).replace(/^0/, ""));

/** '1 cell', '2 cells'. */
const counted = (count, thing) => `${count} ${thing}${count === 1 ? "" : "s"}`;

const clipped = (text, length) =>
  String(text).length > length ? `${String(text).slice(0, length - 1)}\u2026` : String(text);

const distinct = (list) => [...new Set(list)];

/** Plain before composed: a, b, c, b-c, a-(b-c). */
const byLength = (a, b) => a.length - b.length || a.localeCompare(b);
