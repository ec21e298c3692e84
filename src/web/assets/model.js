// The model's card: what it is, what it was trained on, how it did.

import { calibration } from "./charts.js";
import { byId, h } from "./dom.js";
import * as format from "./format.js";
import { json } from "./stream.js";

/** Shows the card. */
export async function show() {
  const panel = byId("detail");
  panel.hidden = false;
  panel.setAttribute("aria-label", "The model");
  const title = h("div", { class: "title" }, h("h1", {}, "The model"), h("a", { class: "close", href: "#/", "aria-label": "Close, back to all Nodes", title: "Close (Esc)" }, "✕"));
  panel.replaceChildren(title, h("p", { class: "quiet" }, "Reading…"));
  panel.scrollTop = 0;
  panel.focus({ preventScroll: true });
  try {
    panel.replaceChildren(title, ...card(await json("/api/ml-insights")));
  } catch (error) {
    panel.replaceChildren(title, h("p", { class: "banner bad" }, error.message));
  }
}

const FIGURES = {
  pr_auc: "area under precision and recall",
  brier_skill: "Brier skill against the base rate",
  ece: "expected calibration error",
};

const BASELINES = {
  never_act: "never acting",
  static_thresholds: "static thresholds",
  largest_deviation: "the largest deviation",
  pending_alerts: "pending alerts",
};

/** Whether it may act, and what it has not earned. */
function authority({ acts, act_untrained: untrained, refusals, judged }) {
  return h("section", {},
    h("h2", {}, acts ? "It may act" : "It may not act: no more than a label"),
    judged === null ? null : h("p", {}, `Judged on this cluster's history from ${format.day(judged.from)} to ${format.day(judged.to)}: ${judged.events.toLocaleString()} degradations of ${judged.nodes.toLocaleString()} Nodes.`),
    refusals.length === 0 ? h("p", { class: "quiet" }, "Nothing speaks against it.") : h("ul", { class: "reasons" }, refusals.map((one) => h("li", {}, one.detail))),
    acts && untrained && refusals.length > 0 ? h("p", { class: "quiet" }, "It acts all the same: model.act_untrained is set.") : null);
}

/** What acting on it would have cost, and which threshold that implies. */
function costs({ costs: all, threshold }) {
  const worth = (one) => `${one.toLocaleString()} ${one === 1 ? "drain" : "drains"}`;
  return h("section", {},
    h("h2", {}, "Score for a threshold"),
    h("p", {}, `Where an incident is worth ${worth(threshold.incident_cost)} (model.incident_cost) and a drain in time averts ${format.value(threshold.efficacy, "ratio")} of it, acting pays above `, h("b", {}, threshold.implied.toFixed(2)), `; policy.at_risk is ${threshold.at_risk.toFixed(2)}.`),
    all.length === 0 ? h("p", { class: "quiet" }, "What acting on it costs was not judged on this cluster's history.") : h("div", { class: "wide" }, h("table", {},
      h("thead", {}, h("tr", {}, ["An incident is worth", "acting pays above", "model", ...Object.values(BASELINES)].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, all.map((at) => h("tr", {},
        h("th", { scope: "row" }, worth(at.incident_cost)), h("td", {}, at.threshold.toFixed(2)), h("td", {}, at.model.toPrecision(3)),
        Object.keys(BASELINES).map((name) => {
          const one = at.baselines[name];
          return h("td", { title: one === undefined ? "" : `the model's cost less this one: ${one.low.toPrecision(2)} to ${one.high.toPrecision(2)} (95 %)` }, one === undefined ? "–" : one.cost.toPrecision(3));
        })))))),
    all.length === 0 ? null : h("p", { class: "quiet" }, "In drains for each Node and day: drains, and incidents at their worth."));
}

const LEVELS = {
  ok: "The inputs are those that it learned from.",
  warn: "Some inputs have drifted.",
  alarm: "The inputs have drifted so far that it may cause no more than a label.",
  unknown: "Not known yet: it takes six hours and some hundred values.",
};

/** How far the inputs of the last day are from those of the training. */
function drift(one) {
  if (one === null) return h("section", {}, h("h2", {}, "Drift"), h("p", { class: "quiet" }, "Not measured yet."));
  const share = (value) => format.value(value, "ratio");
  const names = Object.keys(one.features).sort((a, b) => (one.features[b] ?? -1) - (one.features[a] ?? -1));
  const odd = names.filter((name) => (one.features[name] ?? 0) >= one.warn || one.missing[name] >= 0.05 || one.out_of_range[name] >= 0.01).slice(0, 20);
  const events = one.events;
  return h("section", {},
    h("h2", {}, "Drift"),
    h("p", {}, one.reference ? LEVELS[one.level] : "No reference: the model file does not say what its inputs were, so only what is missing or far out is told."),
    one.score === null ? null : h("p", {}, `Population stability index of the score: ${one.score.toFixed(2)} (said from ${one.warn} on, an alarm from ${one.alarm} on).`),
    odd.length === 0 ? null : h("table", { class: "drift" },
      h("thead", {}, h("tr", {}, ["Feature", "index", "missing", "far out"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, odd.map((name) => h("tr", {},
        h("th", { scope: "row" }, h("code", {}, name)),
        h("td", {}, one.features[name] === null ? "–" : one.features[name].toFixed(2)),
        h("td", {}, share(one.missing[name])), h("td", {}, share(one.out_of_range[name])))))),
    events === null ? null : h("p", {}, `In ${format.duration(events.seconds)} it expected ${events.expected.toFixed(1)} Nodes to turn not Ready, and ${events.observed} did (95 % interval ${events.low.toFixed(1)} to ${events.high.toFixed(1)}): ${events.agrees ? "that agrees" : "that is not what chance explains"}. What was averted counts as not come.`));
}

function card(model) {
  const { training } = model;
  const rows = [
    ["Name", h("code", {}, model.name)],
    ["Learned from", model.source],
    ["May cause", `up to “${model.reach}”`],
    ["Looks ahead", format.duration(model.horizon_seconds)],
    ["Training", `${training.rows.toLocaleString()} rows, ${training.positives.toLocaleString()} of them before a degradation`],
    ["History", training.from === null ? "none: simulated rows" : `${format.day(training.from)} to ${format.day(training.to)}`],
    ...(model.history_seconds === null ? [] : [["Remembers", `${format.duration(model.history_seconds)} of the Nodes' last 7 d`]]),
    ["Made by", model.command === "" ? "not recorded" : h("code", {}, model.command)],
    ["Features", h("code", { title: model.schema }, model.schema.slice(0, 12))],
  ];
  const largest = Math.max(...model.features.map((one) => one.importance), 1e-9);
  const figures = Object.entries(model.validation);
  return [
    ...model.notes.map((note) => h("p", { class: "banner note" }, note)),
    h("section", {}, h("dl", { class: "card-facts" }, rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))),
    h("section", {},
      h("h2", {}, "How it did on rows it had not seen"),
      figures.length === 0
        ? h("p", { class: "quiet" }, "Not measured.")
        : h("ul", { class: "tiles" }, figures.map(([name, value]) =>
          h("li", { class: "tile" }, h("span", { class: "label" }, FIGURES[name] ?? format.words(name)), h("strong", {}, value.toPrecision(3)), h("small", {}, name))))),
    authority(model.authority),
    costs(model),
    model.calibration.length === 0 ? null : h("section", {}, h("h2", {}, "Does what it says come true?"), calibration(model.calibration)),
    h("section", {},
      h("h2", {}, "What it looks at most"),
      h("ul", { class: "drivers" }, model.features.slice(0, 20).map((one) =>
        h("li", { class: "plain" },
          h("span", { class: "words" }, h("code", {}, one.feature), h("small", {}, ` ${format.words(one.unit)}`)),
          h("span", { class: "force", "aria-hidden": "true", "--force": String(one.importance / largest) }),
          h("span", { class: "number" }, format.value(one.importance, "ratio")))))),
    drift(model.drift),
  ].filter((part) => part !== null);
}
