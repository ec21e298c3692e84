// What happens: events as they come, and every alert that fires.

import { byId, h, put, replace } from "./dom.js";
import * as format from "./format.js";
import { state } from "./state.js";
import { json } from "./stream.js";

/** Events that are kept on the page; the API has more. */
const EVENTS_MAX = 200;

const seen = new Set();
let alertsAsked = 0;
let alertsTimer = null;

/** Lets the tabs be used. */
export function wire() {
  for (const tab of byId("railtabs").querySelectorAll("button")) {
    tab.addEventListener("click", () => show(tab.dataset.rail));
  }
}

/** Shows events or alerts. */
export function show(which) {
  for (const tab of byId("railtabs").querySelectorAll("button")) {
    const mine = tab.dataset.rail === which;
    tab.setAttribute("aria-selected", String(mine));
    byId(tab.dataset.rail).hidden = !mine;
  }
}

/** One event as a list item. */
export function item(event, withNode = true) {
  const node = event.node;
  return h("li", { class: `event ${event.kind}` },
    h("time", { datetime: event.at, title: event.at }, format.clock(event.at)),
    h("span", { class: "chip" }, format.words(event.kind)),
    h("p", {},
      withNode && node !== null ? [h("a", { href: `#/nodes/${encodeURIComponent(node)}` }, node), " "] : null,
      // Most messages about a Pod begin with its name.
      event.pod === null || event.message.startsWith(event.pod)
        ? null
        : [h("code", {}, event.pod), " "],
      event.message));
}

/** Takes an event; one that is there already is not shown twice. */
export function take(event) {
  if (seen.has(event.id)) return;
  seen.add(event.id);
  const list = byId("events");
  list.querySelector(".quiet")?.remove();
  list.prepend(item(event));
  while (list.children.length > EVENTS_MAX) list.lastChild.remove();
  if (event.kind === "alert") askForAlerts();
}

/** Reads the list of events anew. */
export async function load() {
  const answer = await json(`/api/events?order=newest&limit=${EVENTS_MAX}`);
  const list = byId("events");
  seen.clear();
  list.replaceChildren(...answer.events.map((event) => {
    seen.add(event.id);
    return item(event);
  }));
  if (answer.events.length === 0) {
    list.append(h("li", { class: "quiet" }, "Nothing has happened since foreshock started."));
  }
}

/** Draws what the statistics say about alerts; asks for them when their number has changed. */
export function draw() {
  const { active } = state.stats.alerts;
  put(byId("tab-alerts"), active === 0 ? "Alerts" : `Alerts ${active}`);
  put(document.querySelector("#tabs [data-tab=alerts]"), active === 0 ? "Alerts" : `Alerts ${active}`);
  const key = JSON.stringify(state.stats.alerts);
  if (byId("alerts").dataset.stats !== key) {
    byId("alerts").dataset.stats = key;
    askForAlerts();
  }
}

/** At most every two seconds: a delivery may hold a thousand. */
function askForAlerts() {
  if (alertsTimer !== null) return;
  const wait = Math.max(0, alertsAsked + 2_000 - Date.now());
  alertsTimer = setTimeout(async () => {
    alertsTimer = null;
    alertsAsked = Date.now();
    try {
      drawAlerts((await json("/api/alerts")).alerts);
    } catch {
      // The connection's state is shown at the top; the next change asks again.
    }
  }, wait);
}

const STANDS = {
  acting: "acts",
  shown: "shown only: no rule in alerts.rules is about it",
  own: "foreshock's own: never evidence",
  unknown_node: "names no Node",
  no_node_label: "has no label that names a Node",
  ambiguous_node: "names several Nodes",
  nodes_not_synced: "waits until the Nodes are known",
  older_than_node: "older than the Node of that name",
};

function drawAlerts(alerts) {
  const list = byId("alerts");
  replace(list, JSON.stringify(alerts), () => alerts.length === 0
    ? h("li", { class: "quiet" }, "No alert fires. Alertmanager sends them to POST /webhook/alertmanager.")
    : alerts.map((alert) => h("li", { class: `event ${alert.outcome === "acting" ? "acting" : "idle"}` },
      h("time", { datetime: alert.starts_at, title: `firing since ${alert.starts_at}` }, format.clock(alert.starts_at)),
      h("span", { class: "chip" }, alert.severity === "" ? "alert" : alert.severity),
      h("p", {},
        h("strong", {}, alert.name), " ",
        alert.node === null
          ? h("code", {}, alert.clue ?? "")
          : h("a", { href: `#/nodes/${encodeURIComponent(alert.node)}` }, alert.node),
        " – ", STANDS[alert.outcome] ?? format.words(alert.outcome),
        alert.outcome !== "acting" || alert.floor === null ? "" : `: risk at least ${alert.floor.toFixed(2)}, up to ${alert.reach}`,
        alert.summary === "" ? null : h("small", {}, alert.summary)))));
}
