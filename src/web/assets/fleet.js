// The table of Nodes: only what is in view is drawn, and each row is kept by its Node's name, so
// that five thousand Nodes cost as much as twenty.

import { draw as drawSpark, sparkline } from "./charts.js";
import { byId, h, mark, put, replace } from "./dom.js";
import * as format from "./format.js";
import { now, state } from "./state.js";

/** Rows drawn beyond both ends of the view. */
const MARGIN = 6;

const COLUMNS = [
  { key: "node", title: "Node" },
  { key: "risk", title: "Risk" },
  { key: null, title: "Recent" },
  { key: "since", title: "State" },
  { key: null, title: "Why nothing more is done" },
  { key: null, title: "What drives it" },
];

const BANDS = ["at_risk", "caution", "unknown", "healthy"];
const PHASES = ["suspect", "tainted", "draining", "drained", "recovering", "healthy"];
const MARKS = { at_risk: "▲", caution: "◆", healthy: "●", unknown: "?" };

const filters = { text: "", band: "", phase: "" };
let sort = { key: "risk", down: true };
/** Nodes in the order of the table. */
let order = [];
/** Rows that are drawn, by Node. */
const rows = new Map();
let height = 56;
let selected = null;
let frame = null;

/** Makes what never changes, and listens. */
export function wire() {
  const head = byId("head");
  for (const column of COLUMNS) {
    head.append(h("div", { role: "columnheader" }, column.key === null
      ? column.title
      : h("button", { type: "button", "data-sort": column.key, click: () => sortBy(column.key) }, column.title)));
  }
  options(byId("band"), "every band", BANDS);
  options(byId("phase"), "every phase", PHASES);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("find").addEventListener("input", (event) => set("text", event.target.value.trim().toLowerCase()));
  byId("band").addEventListener("change", (event) => set("band", event.target.value));
  byId("phase").addEventListener("change", (event) => set("phase", event.target.value));
  byId("filters").addEventListener("reset", () => {
    Object.assign(filters, { text: "", band: "", phase: "" });
    refresh();
  });
  window.addEventListener("scroll", later, { passive: true });
  window.addEventListener("resize", later);
  byId("rows").addEventListener("keydown", walk);
  byId("rows").addEventListener("click", (event) => {
    // The whole row is a target; the link in it is what keyboards and readers use.
    if (event.target.closest("a") === null && getSelection().isCollapsed) {
      event.target.closest(".row")?.querySelector("a").click();
    }
  });
}

function options(select, every, words) {
  select.append(h("option", { value: "" }, every), ...words.map((word) => h("option", { value: word }, format.words(word))));
}

/** Filters by a band or a phase; the same one again takes it off. */
export function filter(kind, word) {
  filters[kind] = filters[kind] === word ? "" : word;
  byId(kind).value = filters[kind];
  refresh();
  byId("fleet").scrollIntoView({ block: "nearest" });
}

function set(kind, value) {
  filters[kind] = value;
  refresh();
}

function sortBy(key) {
  sort = { key, down: sort.key === key ? !sort.down : key !== "node" };
  refresh();
}

/** The Node whose detail is open. */
export function select(name) {
  selected = name;
  for (const row of rows.values()) mark(row.element, "aria-current", row.name === selected ? "true" : null);
}

/** Puts the Nodes in order and draws what is in view. */
export function refresh() {
  const wanted = [...state.nodes.values()].filter(matches);
  wanted.sort(compare);
  order = wanted;
  for (const button of byId("head").querySelectorAll("button")) {
    const mine = button.dataset.sort === sort.key;
    mark(button.parentElement, "aria-sort", mine ? (sort.down ? "descending" : "ascending") : null);
  }
  const filtered = filters.text !== "" || filters.band !== "" || filters.phase !== "";
  byId("clear").hidden = !filtered;
  put(byId("shown"), filtered ? `${wanted.length} of ${state.nodes.size} Nodes` : `${state.nodes.size} Nodes`);
  drawEmpty(filtered);
  mark(byId("table"), "aria-rowcount", String(order.length + 1));
  view();
}

function matches(node) {
  return (filters.band === "" || node.band === filters.band)
    && (filters.phase === "" || node.phase === filters.phase)
    && (filters.text === "" || text(node).includes(filters.text));
}

function text(node) {
  const parts = [node.node, node.zone ?? "", node.pool ?? "", node.phase, node.band, ...node.reasons];
  for (const hold of node.holds) parts.push(hold.reason, hold.detail);
  for (const alert of node.alerts) parts.push(alert.name);
  return parts.join("\n").toLowerCase();
}

/** Nodes about which something is being done come before those that are merely well. */
const urgency = (node) => (node.phase !== "healthy" ? 2 : node.band !== "healthy" ? 1 : 0);

function compare(a, b) {
  const way = sort.down ? -1 : 1;
  let by = 0;
  if (sort.key === "risk") {
    by = urgency(a) - urgency(b) || (a.risk ?? 0.5) - (b.risk ?? 0.5);
  } else if (sort.key === "since") {
    by = PHASES.indexOf(b.phase) - PHASES.indexOf(a.phase) || (a.since < b.since ? -1 : a.since > b.since ? 1 : 0);
  }
  if (by === 0) return a.node < b.node ? (sort.key === "node" ? way : -1) : a.node > b.node ? (sort.key === "node" ? -way : 1) : 0;
  return by * way;
}

/** Draws in the next frame, once. */
function later() {
  frame ??= requestAnimationFrame(() => {
    frame = null;
    view();
  });
}

/** Draws the rows that are in view, and drops the others. */
function view() {
  const list = byId("rows");
  height = parseFloat(getComputedStyle(list).getPropertyValue("--row")) || height;
  list.style.setProperty("height", `${order.length * height}px`);
  const top = list.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(-top / height) - MARGIN);
  const last = Math.min(order.length, Math.ceil((window.innerHeight - top) / height) + MARGIN);
  const keep = new Set();
  for (let at = first; at < last; at += 1) {
    const node = order[at];
    keep.add(node.node);
    let row = rows.get(node.node);
    if (row === undefined) {
      row = makeRow(node.node);
      rows.set(node.node, row);
    }
    fillRow(row, node, at);
    if (!row.element.isConnected) list.append(row.element);
  }
  for (const [name, row] of rows) {
    if (keep.has(name)) continue;
    // A row that somebody is on stays until they leave it.
    if (row.element.contains(document.activeElement) && state.nodes.has(name)) continue;
    row.element.remove();
    rows.delete(name);
  }
}

function makeRow(name) {
  const spark = sparkline();
  const row = {
    name,
    link: h("a", { href: `#/nodes/${encodeURIComponent(name)}` }, name),
    place: h("small", {}),
    risk: h("strong", { class: "risk" }),
    fill: h("span", { class: "fill" }),
    bar: null,
    spark,
    state: h("span", { class: "state" }),
    since: h("small", {}),
    hold: h("div", { class: "clamp" }),
    why: h("div", { class: "clamp" }),
    element: null,
  };
  row.bar = h("span", { class: "bar", "aria-hidden": "true" }, row.fill, h("i", { class: "tick caution" }), h("i", { class: "tick at_risk" }));
  const cell = (kind, ...content) => h("div", { role: "cell", class: kind }, ...content);
  row.element = h("div", { class: "row", role: "row" },
    cell("node", row.link, row.place),
    cell("score", row.risk, row.bar),
    cell("recent", spark.picture),
    cell("phase", row.state, row.since),
    cell("hold", row.hold),
    cell("why", row.why));
  return row;
}

function fillRow(row, node, at) {
  const { policy } = state.stats;
  const y = `translateY(${at * height}px)`;
  if (row.element.style.transform !== y) row.element.style.transform = y;
  mark(row.element, "aria-rowindex", String(at + 2));
  mark(row.element, "data-band", node.band);
  mark(row.element, "aria-current", node.node === selected ? "true" : null);
  put(row.place, [node.zone, node.pool === null ? null : `pool ${node.pool}`].filter((x) => x !== null).join(" · "));
  mark(row.place, "title", row.place.textContent);
  put(row.risk, format.risk(node.risk));
  mark(row.risk, "title", node.risk === null ? "The risk is unknown" : `Risk ${node.risk}; the model alone says ${node.model_risk ?? "nothing"}`);
  row.fill.style.setProperty("--risk", String(node.risk ?? 0));
  row.bar.style.setProperty("--caution-at", String(policy.caution));
  row.bar.style.setProperty("--at-risk-at", String(policy.at_risk));
  drawSpark(row.spark, state.recent.get(node.node) ?? [], policy.at_risk);
  put(row.state, `${MARKS[node.band]} ${format.words(node.phase === "healthy" ? node.band : node.phase)}`);
  mark(row.state, "title", `Risk: ${format.words(node.band)}; phase: ${node.phase}`);
  tickRow(row, node);
  replace(row.why, JSON.stringify([node.alerts, node.top, node.band]), () => why(node));
}

/** What passes with time alone. */
function tickRow(row, node) {
  const age = format.duration((now() - Date.parse(node.since)) / 1000, 1);
  put(row.since, node.phase === "healthy" ? `for ${age}` : `${format.words(node.band)} · for ${age}`);
  const hold = node.hold;
  if (hold === null) {
    mark(row.hold, "title", null);
    replace(row.hold, JSON.stringify([node.drain, node.phase, node.band]), () => goingOn(node));
    return;
  }
  mark(row.hold, "title", `Lifted by: ${hold.lift}`);
  replace(row.hold, JSON.stringify(hold) + node.holds.length, () => [
    h("span", { class: "chip" }, format.words(hold.reason)), " ", hold.detail,
    hold.until === null ? null : h("b", { class: "until", "data-until": hold.until }),
    node.holds.length > 1 ? h("span", { class: "quiet" }, ` +${node.holds.length - 1} more`) : null,
  ]);
  for (const until of row.hold.querySelectorAll(".until")) put(until, countdown(until.dataset.until));
}

/** What is being done to a Node that nothing holds. */
function goingOn(node) {
  const drain = node.drain;
  if (node.phase === "draining" && drain !== null) {
    const all = drain.gone + drain.remaining;
    return [
      `${drain.gone} of ${all} Pods gone`,
      h("span", { class: "progress", "aria-hidden": "true", "--done": String(all === 0 ? 1 : drain.gone / all) }),
    ];
  }
  return node.band === "healthy" && node.phase === "healthy" ? [] : [h("span", { class: "quiet" }, "nothing is held back")];
}

/** How long until then. */
export function countdown(until) {
  const left = (Date.parse(until) - now()) / 1000;
  return left > 0 ? ` ${format.duration(left)} left` : " due now";
}

/** Band and phase in one expression: the phase says more once something is being done. */
export function stateWords(node) {
  const band = `${MARKS[node.band]} ${format.words(node.band)}`;
  return node.phase === "healthy" ? band : `${band} · ${node.phase}`;
}

function why(node) {
  const alerts = node.alerts.slice(0, 2).map((alert) =>
    h("span", { class: "chip alert", title: `Risk at least ${alert.floor} while it fires; may cause up to ${alert.reach}` }, alert.name));
  if (node.band === "healthy" && alerts.length === 0) return [];
  const drivers = node.top.filter((top) => top.contribution > 0.1).slice(0, 3).map(format.driver);
  return [alerts.flatMap((alert) => [alert, " "]), drivers.join(" · ")];
}

/** What passes with time alone, in the rows that are drawn. */
export function tick() {
  for (const row of rows.values()) {
    const node = state.nodes.get(row.name);
    if (node !== undefined) tickRow(row, node);
  }
}

/** Up and down walk the rows; the row that gets the focus comes into view. */
function walk(event) {
  const way = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
  const row = event.target.closest(".row");
  if (way === undefined || row === null || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = order[Number(row.getAttribute("aria-rowindex")) - 2 + way];
  const link = at && rows.get(at.node)?.link;
  if (!link) return;
  event.preventDefault();
  link.focus({ preventScroll: true });
  link.closest(".row").scrollIntoView({ block: "nearest" });
}

function drawEmpty(filtered) {
  const empty = byId("empty");
  const nothing = order.length === 0;
  empty.hidden = !nothing;
  byId("table").hidden = nothing;
  byId("filters").hidden = state.nodes.size === 0;
  if (!nothing) return;
  const { health } = state;
  let words;
  if (health === null) {
    words = ["Connecting…", "The first picture is on its way."];
  } else if (state.nodes.size > 0 && filtered) {
    words = ["No Node matches", "Clear the filters to see all of them."];
  } else if (!health.synced) {
    words = ["Waiting for the first decision", "foreshock has to read every Node and one set of features before it says anything. If this lasts longer than a minute, the problems above and `foreshock check --config FILE` say why."];
  } else {
    words = ["No Nodes", health.kubernetes.enabled
      ? "Kubernetes lists no Node that matches kubernetes.node_selector. Check the selector, and the kubeconfig's cluster."
      : "Prometheus has no node_exporter series that match prometheus.selector. `foreshock check --config FILE` shows what it finds."];
  }
  // Between back-ticks: what can be typed as it is.
  const parts = words[1].split("`").map((part, at) => (at % 2 === 1 ? h("code", {}, part) : part));
  replace(empty, words.join("|"), () => [h("h2", {}, words[0]), h("p", {}, parts)]);
}
