// The page's entry: connects the stream with what is drawn, and the address with what is open.

import * as detail from "./detail.js";
import { byId } from "./dom.js";
import * as fleet from "./fleet.js";
import * as header from "./header.js";
import * as model from "./model.js";
import * as rail from "./rail.js";
import { state, takeChanges, takeHistory, takeSnapshot } from "./state.js";
import { follow, json } from "./stream.js";

fleet.wire();
rail.wire();
header.wireSwitch();
fleet.refresh();
route();

window.addEventListener("hashchange", route);
window.addEventListener("keydown", keys);
for (const tab of byId("tabs").querySelectorAll("button")) {
  tab.addEventListener("click", () => showTab(tab.dataset.tab));
}

setInterval(() => {
  header.tick();
  fleet.tick();
  detail.tick();
}, 1_000);

follow({
  state(name, text) {
    if (state.connection.state !== name) state.connection.since = Date.now();
    state.connection.state = name;
    state.connection.detail = text;
    header.tick();
  },
  event(name, data) {
    if (name === "snapshot") begin(data);
    else if (name === "nodes") {
      takeChanges(data);
      drawAll();
    } else {
      rail.take(data);
      if (data.node !== null && location.hash === `#/nodes/${encodeURIComponent(data.node)}`) detail.refresh();
    }
  },
});

let started = null;

function begin(snapshot) {
  takeSnapshot(snapshot);
  drawAll();
  // Another start has other events and other histories; so has a gap too long to fill.
  if (!snapshot.resumed || started !== snapshot.start) {
    rail.load().catch(() => {});
    json("/api/risk-history").then((history) => {
      takeHistory(history);
      fleet.refresh();
    }).catch(() => {});
  }
  started = snapshot.start;
}

function drawAll() {
  header.draw(fleet.filter);
  fleet.refresh();
  rail.draw();
  detail.refresh();
}

/** What the address asks for. */
function route() {
  const [, kind, name] = location.hash.split("/");
  document.body.classList.toggle("opened", kind === "nodes" || kind === "model");
  if (kind === "nodes" && name) {
    let decoded = name;
    try {
      decoded = decodeURIComponent(name);
    } catch {
      // A hand-written address; the server will say that there is no such Node.
    }
    fleet.select(decoded);
    detail.show(decoded);
    return;
  }
  const before = document.querySelector('.row[aria-current="true"] a');
  fleet.select(null);
  detail.hide();
  if (kind === "model") model.show();
  else before?.focus({ preventScroll: true });
}

function showTab(name) {
  document.body.dataset.tab = name;
  for (const tab of byId("tabs").querySelectorAll("button")) {
    tab.setAttribute("aria-pressed", String(tab.dataset.tab === name));
  }
  if (name !== "fleet") rail.show(name);
}

function keys(event) {
  const typing = event.target.closest?.("input, select, textarea, dialog") ?? null;
  if (event.key === "Escape" && typing === null && location.hash.length > 2) {
    location.hash = "#/";
  } else if (event.key === "/" && typing === null && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    showTab("fleet");
    byId("find").focus();
  } else if (event.key === "Escape" && event.target === byId("find")) {
    event.target.blur();
  }
}
