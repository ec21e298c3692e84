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

function card(model) {
  const { training } = model;
  const rows = [
    ["Name", h("code", {}, model.name)],
    ["Learned from", model.source],
    ["May cause", `up to “${model.reach}”`],
    ["Looks ahead", format.duration(model.horizon_seconds)],
    ["Training", `${training.rows.toLocaleString()} rows, ${training.positives.toLocaleString()} of them before a degradation`],
    ["History", training.from === null ? "none: simulated rows" : `${format.day(training.from)} to ${format.day(training.to)}`],
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
    model.calibration.length === 0 ? null : h("section", {}, h("h2", {}, "Does what it says come true?"), calibration(model.calibration)),
    h("section", {},
      h("h2", {}, "What it looks at most"),
      h("ul", { class: "drivers" }, model.features.slice(0, 20).map((one) =>
        h("li", { class: "plain" },
          h("span", { class: "words" }, h("code", {}, one.feature), h("small", {}, ` ${format.words(one.unit)}`)),
          h("span", { class: "force", "aria-hidden": "true", "--force": String(one.importance / largest) }),
          h("span", { class: "number" }, format.value(one.importance, "ratio")))))),
    h("section", {},
      h("h2", {}, "Drift"),
      model.drift === null
        ? h("p", { class: "quiet" }, "Not measured.")
        : h("p", {}, `Population stability index of the score: ${model.drift.score.toFixed(3)}.`)),
  ].filter((part) => part !== null);
}
