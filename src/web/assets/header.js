// The top of the page: foreshock itself, what is wrong, and the summary of the fleet.

import { byId, h, mark, put, replace } from "./dom.js";
import * as format from "./format.js";
import { now, state } from "./state.js";
import { post } from "./stream.js";
import { ask, toast } from "./toast.js";

const LIMITS = {
  tainted_max: "tainted",
  draining_max: "draining",
  drains_per_hour: "drains this hour",
};

const REACH = {
  observe: "only says what it sees",
  label: "may write the risk label",
  taint: "may taint, evicts nothing",
  evict: "may taint and evict",
};

/** Draws everything here; `filter` is called with a band or phase that was clicked. */
export function draw(filter) {
  const { health, stats } = state;
  if (health === null) {
    drawConnection();
    return;
  }
  put(byId("version"), health.version);
  document.title = title(stats);
  drawFacts(health, stats);
  drawSwitch(health);
  drawBanners(health, stats);
  // Before the first decision zeros would look like an answer.
  if (health.synced) drawSummary(stats, filter);
  else byId("summary").hidden = true;
}

/** What passes with time alone. */
export function tick() {
  if (state.health !== null) drawFacts(state.health, state.stats);
  drawConnection();
}

function title(stats) {
  const count = stats.nodes.at_risk;
  return count === 0 ? "foreshock" : `(${count} at risk) foreshock`;
}

function fact(kind, label, text, hint, href = null) {
  const content = [h("span", { class: "label" }, label), " ", h("span", { class: "text" }, text)];
  return h("li", { class: `fact ${kind}`, title: hint }, href === null ? content : h("a", { href }, content));
}

function drawFacts(health, stats) {
  const live = state.connection.state === "live";
  const age = health.prometheus.age_seconds;
  const shown = age === null ? null : age + (now() - Date.parse(state.at)) / 1000;
  const stale = shown !== null && shown > 4 * stats.cycles.interval_seconds + 60;
  const ok = health.status === "ok";
  const model = health.model;
  const list = [
    fact(ok ? "good" : "bad", ok ? "●" : "▲", ok ? "healthy" : `degraded: ${count(health.problems.length, "problem")}`,
      ok ? "foreshock and what it depends on are well" : health.problems.join("\n")),
    fact("", "reach", health.reach, `The policy ${REACH[health.reach]}`),
    fact("", "role", health.leader ? "leader" : "follower", health.leader_name === null ? "No Lease is taken where nothing is ever written" : `The Lease is held by ${health.leader_name}`),
    model === null
      ? fact("bad", "model", "none", "No Node can be scored")
      : fact("", "model", `${model.source} – advises up to ${model.reach}`, `${model.name}: what it was trained on and how it did`, "#/model"),
    fact(stale || age === null ? "bad" : "", "features", shown === null ? "none yet" : `${format.duration(shown)} old`, "Age of the newest features from Prometheus"),
    fact(live ? "" : "bad", "view", live ? "live" : "not live", live ? "Everything here is pushed as it happens" : state.connection.detail),
  ];
  const facts = byId("facts");
  replace(facts, list.map((item) => item.textContent + item.title).join("|"), () => list);
}

const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

function drawSwitch(health) {
  const button = byId("switch");
  button.hidden = false;
  put(button, health.paused ? "Resume" : "Pause");
  mark(button, "data-paused", String(health.paused));
  mark(button, "title", health.paused
    ? "Nothing is written. Resume taints, drains and releases"
    : "Within a second nothing more is written: no taint, no eviction, no release");
}

/** Lets the switch be used. */
export function wireSwitch() {
  const button = byId("switch");
  button.addEventListener("click", async () => {
    const paused = button.dataset.paused === "true";
    if (paused && !(await ask("resume"))) return;
    button.disabled = true;
    try {
      const answer = await post(paused ? "/api/monitoring/start" : "/api/monitoring/stop");
      toast(answer.message);
      if (state.health !== null) {
        state.health.paused = answer.paused;
        drawSwitch(state.health);
        drawBanners(state.health, state.stats);
      }
    } catch (error) {
      toast(`Not ${paused ? "resumed" : "paused"}: ${error.message}`, "bad");
    } finally {
      button.disabled = false;
    }
  });
}

function banner(kind, head, ...text) {
  return h("div", { class: `banner ${kind}` }, h("strong", {}, head), " ", ...text);
}

function storm({ storm, phases }) {
  const over = storm.until === null
    ? "It ends once few enough Nodes are at risk for a whole storm_window."
    : `Calm since ${format.clock(storm.calm_since)}; over at ${format.clock(storm.until)} if it stays so.`;
  const draining = phases.draining > 0 ? " Running drains evict nothing further." : "";
  return banner("bad", `Storm since ${format.clock(storm.since)}: ${storm.about}.`,
    `So many at once are more likely a fault of the signal: check Prometheus, the exporters and the alert rules first. No new taint, no new drain.${draining} Nodes that are well are still given back. ${over}`);
}

function ramp({ since, width, nodes }) {
  const shown = nodes.slice(0, 5).join(", ") + (nodes.length > 5 ? ` and ${nodes.length - 5} more` : "");
  const waits = nodes.length === 0
    ? "No Node has been begun on yet."
    : nodes.length < width
      ? `Begun on so far: ${shown}.`
      : `The next wait until ${shown} ${nodes.length === 1 ? "has" : "have"} come to an end.`;
  return banner("note", `After the storm: ${width === 1 ? "one Node" : `${width} Nodes`} at a time since ${format.clock(since)}.`,
    `${waits} When all of them end well, twice as many follow.`);
}

function drawBanners(health, stats) {
  const list = [];
  if (health.paused) {
    list.push(banner("paused", "Paused.", "Nothing is written: no taint, no eviction, no release. Scores and reasons go on."));
  }
  if (stats.storm !== null) list.push(storm(stats));
  else if (stats.ramp !== null) list.push(ramp(stats.ramp));
  for (const problem of health.problems) list.push(banner("bad", "Problem:", problem));
  if (stats.shortened.length > 0) {
    const times = stats.shortened.map((time) =>
      `${time.key.replace(/^policy\./, "")} ${format.duration(time.seconds)} (default ${format.duration(time.default_seconds)})`);
    list.push(banner("note", "Times shortened for demonstration:", times.join(" · ")));
  }
  replace(byId("banners"), list.map((item) => item.className + item.textContent).join("|"), () => list);
}

/** Says that what is shown is not up to date. */
function drawConnection() {
  const { connection } = state;
  const lost = connection.state === "lost" && Date.now() - connection.since > 3_000;
  document.body.classList.toggle("stale", lost);
  const id = "lost";
  const present = byId(id);
  if (!lost) {
    present?.remove();
    return;
  }
  const age = state.at === null ? "Nothing has been received yet" : `What is shown is ${format.duration((now() - Date.parse(state.at)) / 1000)} old`;
  const text = `${age}; trying again. (${connection.detail})`;
  if (present !== null) {
    put(present.lastChild, text);
    return;
  }
  const fresh = banner("bad", "Connection lost.", h("span", {}, text));
  fresh.id = id;
  byId("banners").before(fresh);
}

const BANDS = ["at_risk", "caution", "unknown", "healthy"];
const PHASES = ["suspect", "tainted", "draining", "drained", "recovering"];

function drawSummary(stats, filter) {
  const summary = byId("summary");
  summary.hidden = false;
  const total = Object.values(stats.nodes).reduce((sum, n) => sum + n, 0);
  const key = JSON.stringify([stats.nodes, stats.phases, stats.limits, stats.policy]);
  replace(summary, key, () => [
    h("div", { class: "card" },
      h("h2", {}, `${count(total, "Node")} by risk`),
      h("div", { class: "stack", "aria-hidden": "true" },
        BANDS.filter((band) => stats.nodes[band] > 0).map((band) =>
          h("span", { class: `part ${band}`, "--share": String(stats.nodes[band]) }))),
      h("ul", { class: "counts" }, BANDS.map((band) =>
        h("li", {}, h("button", { type: "button", class: stats.nodes[band] > 0 ? `count ${band}` : "count none", click: () => filter("band", band), title: bandHint(band, stats.policy) },
          h("span", { class: "number" }, String(stats.nodes[band])), " ", h("span", {}, format.words(band))))))),
    h("div", { class: "card" },
      h("h2", {}, "What is being done"),
      h("ol", { class: "counts flow" }, PHASES.map((phase) =>
        h("li", {}, h("button", { type: "button", class: `count phase ${stats.phases[phase] > 0 ? "some" : ""}`, click: () => filter("phase", phase), title: PHASE_HINTS[phase] },
          h("span", { class: "number" }, String(stats.phases[phase])), " ", h("span", {}, phase)))))),
    h("div", { class: "card" },
      h("h2", {}, "Limits in use"),
      stats.limits.length === 0
        ? h("p", { class: "quiet" }, "None counted yet.")
        : h("ul", { class: "limits" }, limits(stats.limits))),
  ]);
}

/** How many limits of zones and pools have room in the summary. */
const GROUPS_SHOWN = 4;

/** The cluster's limits, and of those of zones and pools the ones with the least room. */
function limits(all) {
  const cluster = all.filter((one) => one.scope === "cluster");
  const groups = all.filter((one) => one.scope !== "cluster");
  groups.sort((a, b) => (a.max - a.used) - (b.max - b.used));
  const more = groups.length - GROUPS_SHOWN;
  return [
    ...cluster.concat(groups.slice(0, GROUPS_SHOWN)).map(limit),
    more <= 0 ? null : h("li", { class: "quiet", title: "All of them are in /api/stats and in foreshock_budget_available" },
      `and ${more} of zones and pools with as much room or more`),
  ];
}

const PHASE_HINTS = {
  suspect: "At risk, without our taint",
  tainted: "Our taint is there: no new Pods",
  draining: "Pods are being moved within their budgets",
  drained: "Every Pod that would be evicted is gone",
  recovering: "Looks well; time is running until it is given back",
};

function bandHint(band, policy) {
  return {
    at_risk: `Risk above ${policy.at_risk}`,
    caution: `Risk from ${policy.caution} to ${policy.at_risk}`,
    unknown: "No risk can be told: neither healthy nor at risk, so nothing is done and nothing undone",
    healthy: `Risk below ${policy.caution}`,
  }[band];
}

function limit(one) {
  const [kind, place] = one.scope.split("/", 2);
  const scope = kind === "cluster" ? "" : place === "" ? "no zone: " : `${kind} ${place}: `;
  const name = scope + (LIMITS[one.name] ?? format.words(one.name));
  const full = one.used >= one.max;
  return h("li", { class: full ? "limit full" : "limit", title: kind === "pool" ? `policy.pools.limits.${one.name}` : `policy.limits.${kind === "zone" ? "zone_" : ""}${one.name}` },
    h("span", { class: "label" }, name),
    h("span", { class: "meter", "aria-hidden": "true", "--used": String(one.max === 0 ? 1 : Math.min(1, one.used / one.max)) }),
    h("span", { class: "number" }, `${one.used} of ${one.max}`));
}
