// One Node in full: the verdict in words, what drives it, what is done, what a drain would meet.

import { trend } from "./charts.js";
import { byId, h, put, replace } from "./dom.js";
import { countdown, stateWords } from "./fleet.js";
import * as format from "./format.js";
import { item } from "./rail.js";
import { now, state } from "./state.js";
import { json } from "./stream.js";

/** The detail is read anew at most this often, the plan (which reads Pods) more rarely. */
const EVERY = 2_000;
const PLAN_EVERY = 10_000;

let open = null;
let asked = 0;
let planAsked = 0;
let busy = false;
let timer = null;
let plan = null;
let planProblem = null;

const SECTIONS = ["verdict", "trend", "drain", "basics", "drivers", "plan", "inputs", "events", "labels"];

/** Opens the detail of a Node. */
export function show(name) {
  if (open === name) return;
  open = name;
  plan = null;
  planProblem = null;
  planAsked = 0;
  const panel = byId("detail");
  panel.hidden = false;
  panel.setAttribute("aria-label", `Node ${name}`);
  panel.replaceChildren(
    h("div", { class: "title" }, h("h1", {}, name), h("a", { class: "close", href: "#/", "aria-label": "Close, back to all Nodes", title: "Close (Esc)" }, "✕")),
    ...SECTIONS.map((section) => h("section", { id: `d-${section}`, class: section })),
  );
  panel.scrollTop = 0;
  panel.focus({ preventScroll: true });
  load();
}

/** Closes it. */
export function hide() {
  open = null;
  byId("detail").hidden = true;
}

/** Reads the Node anew, soon. */
export function refresh() {
  if (open === null || timer !== null) return;
  timer = setTimeout(() => {
    timer = null;
    load();
  }, Math.max(0, asked + EVERY - Date.now()));
}

async function load() {
  // Before the first picture there are no thresholds to draw against; that picture comes here again.
  if (open === null || busy || state.stats === null) return;
  const name = open;
  busy = true;
  asked = Date.now();
  const withPlan = asked - planAsked > PLAN_EVERY;
  if (withPlan) planAsked = asked;
  try {
    const node = await json(`/api/nodes/${encodeURIComponent(name)}?plan=${withPlan}`);
    if (name !== open) return;
    if (withPlan) {
      plan = node.plan;
      planProblem = node.plan_problem;
    }
    draw(node);
  } catch (error) {
    if (name === open) {
      replace(byId("d-verdict"), error.message, () => h("p", { class: "banner bad" }, error.message));
    }
  } finally {
    busy = false;
    if (open !== null && name !== open) load();
  }
}

function section(name, key, make) {
  replace(byId(`d-${name}`), JSON.stringify(key), make);
}

function draw(node) {
  section("verdict", [node.risk, node.model_risk, node.model, node.rule_score, node.band, node.phase, node.since, node.reach, node.holds, node.alerts, node.reasons, node.taints, node.ready, node.cordoned, node.missing], () => verdict(node));
  section("trend", node.history.risk, () => [h("h2", {}, "Recent risk"), trend(node.history.risk, state.stats.policy)]);
  section("drain", [node.drain, node.phase, node.moved, node.differs, node.volumes], () => drain(node));
  section("basics", node.basics, () => basics(node));
  section("drivers", [node.contributions, node.model_risk], () => drivers(node));
  section("plan", [plan, planProblem], () => plans());
  section("inputs", node.inputs, () => inputs(node));
  section("events", node.history.events, () => [
    h("h2", {}, "What happened here"),
    node.history.events.length === 0
      ? h("p", { class: "quiet" }, "Nothing since foreshock started.")
      : h("ol", { class: "events" }, node.history.events.map((event) => item(event, false))),
  ]);
  section("labels", node.labels, () => labels(node));
  tick();
}

/** What passes with time alone. */
export function tick() {
  if (open === null) return;
  for (const element of byId("detail").querySelectorAll("[data-until]")) put(element, countdown(element.dataset.until));
  for (const element of byId("detail").querySelectorAll("[data-since]")) {
    put(element, format.duration((now() - Date.parse(element.dataset.since)) / 1000));
  }
}

function verdict(node) {
  const facts = [
    node.zone === null ? null : `zone ${node.zone}`,
    node.pool === null ? null : `pool ${node.pool}`,
    node.ready === null ? null : node.ready ? "Ready" : "not Ready",
    node.cordoned ? "cordoned by somebody else" : null,
  ].filter((fact) => fact !== null);
  return [
    h("p", { class: "quiet" }, facts.join(" · ")),
    h("div", { class: "big", "data-band": node.band },
      h("span", { class: "risk" }, format.risk(node.risk)),
      h("div", {},
        h("p", {}, h("strong", {}, stateWords(node)), " for ", h("span", { "data-since": node.since }, "")),
        h("p", {}, explain(node)))),
    node.taints.length === 0 ? null : h("p", {}, "Taints: ", node.taints.flatMap((taint, at) => [at > 0 ? ", " : "", h("code", {}, taint)])),
    node.reasons.length === 0 ? null : h("ul", { class: "reasons" }, node.reasons.map((reason) => h("li", {}, reason))),
    h("h2", {}, node.holds.length === 0 ? "Nothing holds it back" : "Why nothing more is done"),
    node.holds.length === 0
      ? h("p", { class: "quiet" }, node.phase === "healthy" && node.band === "healthy" ? "Nothing is asked for either." : `Evidence and policy reach up to “${node.reach}”.`)
      : h("ol", { class: "holds" }, node.holds.map((hold, at) =>
        h("li", { class: at === 0 ? "primary" : "" },
          h("span", { class: "chip" }, format.words(hold.reason)), " ", hold.detail,
          hold.until === null ? null : h("b", { class: "until", "data-until": hold.until }),
          h("div", { class: "lift" }, h("span", { class: "quiet" }, "Lifted by: "), hold.lift)))),
  ];
}

/** The verdict in a sentence or two. */
function explain(node) {
  const parts = [];
  if (node.model_risk === null) parts.push(`The model has no score (${format.value(node.missing, "ratio")} of the required features are missing).`);
  else parts.push(`The model (${node.model}) says ${node.model_risk.toFixed(2)}.`);
  if (node.rule_score !== null) parts.push(`The rule score beside it, which never acts, is ${node.rule_score.toFixed(2)}.`);
  for (const alert of node.alerts) {
    parts.push(`Alert ${alert.name} keeps it at ${alert.floor.toFixed(2)} or more while it fires, and may cause up to “${alert.reach}”.`);
  }
  if (node.band !== "healthy") parts.push(`Evidence and policy together reach up to “${node.reach}”.`);
  return parts.join(" ");
}

function drain(node) {
  const one = node.drain;
  // It may be known only when the drain is over, and the Node given back.
  const moved = node.moved === null ? null : h("p", {}, `${format.clock(node.moved.at)}: ${node.moved.message}`);
  const differs = node.differs === null || node.differs.message === "" ? null : h("p", { class: "quiet" }, node.differs.message);
  const volumes = node.volumes === null ? null : h("p", {}, `${format.clock(node.volumes.at)}: ${node.volumes.message}`);
  const after = [moved, volumes, differs].filter((part) => part !== null);
  if (one === null) return after.length === 0 ? [] : [h("h2", {}, "Its last drain"), ...after];
  const all = one.gone + one.remaining;
  const running = one.ended_at === null;
  const words = running
    ? ["running for ", h("span", { "data-since": one.started_at }, "")]
    : [`ended ${format.clock(one.ended_at)}: ${format.words(one.outcome)}, after ${format.duration((Date.parse(one.ended_at) - Date.parse(one.started_at)) / 1000)}`];
  return [
    h("h2", {}, running ? "Drain" : "Last drain"),
    h("div", { class: running ? "progress running" : one.outcome === "drained" ? "progress done" : "progress failed", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": String(all), "aria-valuenow": String(one.gone), "aria-label": "Pods gone", "--done": String(all === 0 ? 1 : one.gone / all) }),
    h("p", {}, `${one.gone} of ${all} Pods gone, ${one.remaining} to go · `, words),
    one.detail === "" ? null : h("p", { class: "quiet" }, one.detail),
    ...after,
  ];
}

const NAMES = {
  cpu_use: "CPU use",
  memory_use: "Memory use",
  temperature: "Temperature",
  network_latency: "Network latency",
  disk_io: "Disk I/O",
  pod_count: "Pods",
};

function basics(node) {
  if (node.basics.length === 0) return [h("p", { class: "quiet" }, "No features of this Node have come yet.")];
  return [
    h("h2", {}, "At a glance"),
    h("ul", { class: "tiles" }, node.basics.map((one) => {
      const usual = format.basicUsual(one);
      return h("li", { class: one.value === null ? "tile missing" : "tile" },
        h("span", { class: "label" }, NAMES[one.name] ?? format.words(one.name)),
        h("strong", {}, format.basic(one)),
        h("small", {}, usual === null ? " " : `usually ${usual}`),
        h("small", { class: "source" }, one.feature === null ? "nothing tells it here" : `${one.feature} · ${one.source ?? "no source"}`));
    })),
  ];
}

function drivers(node) {
  const list = node.contributions.filter((one) => Math.abs(one.contribution) >= 0.01);
  if (list.length === 0) return [];
  const largest = Math.max(...list.map((one) => Math.abs(one.contribution)));
  return [
    h("h2", {}, "What drives the model's score"),
    h("p", { class: "quiet" }, "Each bar is what the metric adds to the log-odds, compared with what it usually reads: to the right it raises the risk."),
    h("ul", { class: "drivers" }, list.slice(0, 12).map((one) =>
      h("li", { class: one.contribution > 0 ? "up" : "down" },
        h("span", { class: "words" }, h("code", {}, one.feature), ` ${format.value(one.value, one.unit)}`,
          one.usual === null ? null : h("small", {}, ` usually ${format.value(one.usual, one.unit)}`)),
        h("span", { class: "force", "aria-hidden": "true", "--force": String(Math.abs(one.contribution) / largest) }),
        h("span", { class: "number" }, `${one.contribution > 0 ? "+" : "−"}${Math.abs(one.contribution).toFixed(2)}`)))),
  ];
}

const DISPOSITIONS = { impossible: "cannot go", evict: "goes", leave: "is left", skip: "stays" };
const COUNTED = { impossible: "cannot go", evict: "would be evicted", leave: "would be left", skip: "need not go" };

function plans() {
  const head = h("h2", {}, "What a drain would do now");
  if (plan === null) return planProblem === null ? [] : [head, h("p", { class: "quiet" }, `${planProblem}`)];
  const counts = Object.keys(DISPOSITIONS)
    .map((word) => [plan.pods.filter((pod) => pod.disposition === word).length, COUNTED[word]])
    .filter(([n]) => n > 0)
    .map(([n, words]) => `${n} ${words}`);
  const time = plan.estimated_seconds === null ? `Duration unknown: ${plan.estimate}.` : `At most ${format.duration(plan.estimated_seconds)}: ${plan.estimate.replace(/^at most, /, "")}.`;
  const slow = new Map(plan.slow.map((one) => [`${one.namespace}/${one.name}`, one.reason]));
  const warnings = new Map(plan.warnings.map((one) => [`${one.namespace}/${one.name}`, one.reason]));
  return [
    head,
    h("p", {}, plan.pods.length === 0 ? "There are no Pods." : `${counts.join(", ")}. ${time}`),
    plan.daemon_sets.length === 0 ? null : h("p", { class: "banner note" }, `Without a toleration for our taint: ${plan.daemon_sets.map((set) => `${set.namespace}/${set.name}`).join(", ")}. A Pod of theirs that dies here does not come back while the Node is tainted.`),
    plan.pods.length === 0 ? null : h("div", { class: "wide" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Pod", "Outcome", "Budget", "Dry run", "Grace"].map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, plan.pods.map((pod) => h("tr", { class: pod.disposition },
        h("th", { scope: "row" }, h("code", {}, `${pod.namespace}/${pod.name}`), h("small", {}, [pod.owner ?? "no controller", ...pod.volumes].join(" · "))),
        h("td", {}, h("span", { class: `chip ${pod.disposition}` }, DISPOSITIONS[pod.disposition]), pod.terminating_until === null ? null : " terminating", pod.reason === null ? null : h("small", {}, pod.reason), slowly(slow.get(`${pod.namespace}/${pod.name}`)), second(pod), fits(pod), warned(warnings.get(`${pod.namespace}/${pod.name}`))),
        h("td", {}, pod.pdb === null ? "–" : [pod.pdb, h("small", {}, pod.headroom === null ? "status out of date" : `lets ${pod.headroom} go now`)]),
        h("td", {}, pod.dry_run ?? "–", pod.disposition !== "evict" || pod.dry_run_detail === null ? null : h("small", {}, pod.dry_run_detail)),
        h("td", { class: "number" }, format.duration(pod.grace_seconds))))))),
  ];
}

/** Why a Pod does not go at once. */
const slowly = (reason) => (reason === undefined ? null : h("small", {}, `slowly: it ${reason}`));

/** Whether its Deployment gets a second Pod before it goes. */
function second(pod) {
  if (pod.surge === true) return h("small", {}, "first its Deployment is scaled up to 2, and back when it has gone");
  return pod.surge_detail === null ? null : h("small", {}, `no second Pod first: ${pod.surge_detail}`);
}

/** Where there is room for it. */
const fits = (pod) => (pod.fits_on === null || pod.fits_on.length === 0 ? null : h("small", {}, `fits on ${pod.fits_on.slice(0, 3).join(", ")}`));

/** What to know before it goes. */
const warned = (reason) => (reason === undefined ? null : h("small", {}, `note: it ${reason}`));

function inputs(node) {
  if (node.inputs.length === 0) return [];
  const missing = node.inputs.filter((one) => one.value === null).length;
  const age = node.features_at === null ? "" : `, asked for at ${format.clock(node.features_at)}`;
  const scraped = node.scraped_at === null ? "" : `, last scraped at ${format.clock(node.scraped_at)}`;
  return [h("details", { open: openDetails("inputs") },
    h("summary", {}, h("h2", {}, `All ${node.inputs.length} features`), h("span", { class: "quiet" }, ` ${missing === 0 ? "none" : missing} missing${age}${scraped}`)),
    h("div", { class: "wide" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Feature", "Now", "Usually", "Source"].map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, node.inputs.map((one) => h("tr", { class: one.value === null ? "missing" : "" },
        h("th", { scope: "row" }, h("code", {}, one.feature)),
        h("td", { class: "number" }, format.value(one.value, one.unit)),
        h("td", { class: "number" }, one.usual === null ? "–" : format.value(one.usual, one.unit)),
        h("td", {}, one.source ?? (one.optional ? "optional" : "–"))))))))];
}

function labels(node) {
  const list = Object.entries(node.labels);
  if (list.length === 0) return [];
  return [h("details", { open: openDetails("labels") },
    h("summary", {}, h("h2", {}, `${list.length} labels`)),
    h("ul", { class: "labels" }, list.map(([name, value]) => h("li", {}, h("code", {}, `${name}=${value}`)))))];
}

/** Whether a part was open before it is drawn anew. */
const openDetails = (name) => byId(`d-${name}`).querySelector("details")?.open === true;
