// The two pictures: a sparkline of a Node's recent risk, and the same in large with its thresholds.

import { h, s } from "./dom.js";
import * as format from "./format.js";

/** Line segments of a series with gaps, in a box of this size. */
function segments(points, width, height, count) {
  const step = width / Math.max(1, count - 1);
  const offset = count - points.length;
  let path = "";
  let pen = false;
  points.forEach((point, at) => {
    if (point === null) {
      pen = false;
      return;
    }
    const x = ((offset + at) * step).toFixed(1);
    const y = (height - point * height).toFixed(1);
    // A point without neighbours would not show: a line of no length, with round ends, does.
    path += pen ? `L${x} ${y}` : `M${x} ${y}l0 0`;
    pen = true;
  });
  return path;
}

/** An empty sparkline. */
export function sparkline() {
  const line = s("path", { class: "line" });
  const limit = s("line", { class: "limit", x1: 0, x2: 90 });
  const picture = s("svg", { class: "spark", viewBox: "-2 -2 94 26", "aria-hidden": "true" }, limit, line);
  return { picture, line, limit, key: "" };
}

/** Draws the newest points into a sparkline. */
export function draw(spark, points, threshold) {
  const key = `${points.length}:${points.join()}`;
  if (spark.key === key) return;
  spark.key = key;
  const y = (22 - threshold * 22).toFixed(1);
  spark.limit.setAttribute("y1", y);
  spark.limit.setAttribute("y2", y);
  spark.line.setAttribute("d", segments(points, 90, 22, 60));
}

/** The recent risk of one Node, large. */
export function trend(history, policy) {
  if (history.length < 2) {
    return h("p", { class: "quiet" }, "The recent risk is drawn here after a few cycles.");
  }
  const [width, height] = [480, 96];
  const lines = [
    [policy.at_risk, "at risk"],
    [policy.caution, "caution"],
  ].flatMap(([threshold, name]) => {
    const y = height - threshold * height;
    return [
      s("line", { class: "limit", x1: 0, x2: width, y1: y, y2: y }),
      s("text", { x: width + 6, y: y + 4 }, `${name} ${threshold.toFixed(2)}`),
    ];
  });
  const risks = history.map((point) => point.risk);
  const known = risks.filter((risk) => risk !== null);
  const title = known.length === 0
    ? "The risk was unknown throughout"
    : `Risk from ${format.clock(history[0].at)} to ${format.clock(history.at(-1).at)}: lowest ${Math.min(...known).toFixed(2)}, highest ${Math.max(...known).toFixed(2)}, last ${format.risk(risks.at(-1))}`;
  return s(
    "svg",
    { class: "trend", viewBox: `-4 -8 ${width + 104} ${height + 30}`, role: "img", "aria-label": title },
    s("title", {}, title),
    s("line", { class: "axis", x1: 0, x2: width, y1: height, y2: height }),
    s("line", { class: "axis", x1: 0, x2: width, y1: 0, y2: 0 }),
    s("text", { x: width + 6, y: 4 }, "1"),
    s("text", { x: width + 6, y: height + 4 }, "0"),
    ...lines,
    s("path", { class: "line", d: segments(risks, width, height, risks.length) }),
    s("text", { x: 0, y: height + 18 }, format.clock(history[0].at)),
    s("text", { x: width, y: height + 18, "text-anchor": "end" }, format.clock(history.at(-1).at)),
  );
}

/** How often what a model said came true. */
export function calibration(bins) {
  const size = 200;
  const place = (share) => share * size;
  return s(
    "svg",
    { class: "calibration", viewBox: `-34 -10 ${size + 54} ${size + 46}`, role: "img", "aria-label": "Share that came true by what the model said" },
    s("rect", { class: "frame", x: 0, y: 0, width: size, height: size }),
    s("line", { class: "limit", x1: 0, y1: size, x2: size, y2: 0 }),
    ...bins.filter((bin) => bin.rows > 0).map((bin) =>
      s("circle", { class: "dot", cx: place(bin.predicted), cy: size - place(bin.observed), r: 4 },
        s("title", {}, `said ${bin.predicted.toFixed(2)}, came true ${bin.observed.toFixed(2)} (${bin.rows} rows)`))),
    s("text", { x: 0, y: size + 16 }, "0"),
    s("text", { x: size, y: size + 16, "text-anchor": "end" }, "1"),
    s("text", { x: size / 2, y: size + 30, "text-anchor": "middle" }, "what it said"),
    s("text", { x: -size / 2, y: -14, transform: "rotate(-90)", "text-anchor": "middle" }, "what came true"),
  );
}
