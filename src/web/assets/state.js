// What the page knows: one picture of the fleet, kept up to date by the stream.

/** Points of the recent risk that are kept of each Node, as many as the server keeps. */
const POINTS_MAX = 60;

export const state = {
  /** Node objects of the API by name. */
  nodes: new Map(),
  health: null,
  stats: null,
  /** Time of the decision that is shown. */
  at: null,
  /** Server's clock minus ours, in milliseconds. */
  offset: 0,
  /** Recent risks by name, oldest first; null is unknown. */
  recent: new Map(),
  connection: { state: "connecting", detail: "", since: Date.now() },
};

let lastPoint = 0;

/** The server's time. */
export const now = () => Date.now() + state.offset;

/** Takes the whole picture. */
export function takeSnapshot(snapshot) {
  state.nodes = new Map(snapshot.nodes.map((node) => [node.node, node]));
  // Start and uptime together are the server's time at this moment.
  state.offset = Number(snapshot.start) + snapshot.stats.uptime_seconds * 1000 - Date.now();
  takeCommon(snapshot);
}

/** Takes what changed; returns the names. */
export function takeChanges(changes) {
  for (const node of changes.changed) state.nodes.set(node.node, node);
  for (const name of changes.removed) {
    state.nodes.delete(name);
    state.recent.delete(name);
  }
  takeCommon(changes);
}

function takeCommon(message) {
  state.at = message.at;
  state.health = message.health;
  state.stats = message.stats;
  note();
}

/** Takes the recent risks that the server has kept. */
export function takeHistory(history) {
  state.recent = new Map(Object.entries(history.nodes));
  lastPoint = Date.now();
}

/** A point for each Node, once in a cycle: an alert may wake several decisions within one. */
function note() {
  const interval = state.stats.cycles.interval_seconds * 1000;
  if (Date.now() - lastPoint < interval * 0.8) return;
  lastPoint = Date.now();
  for (const [name, node] of state.nodes) {
    let points = state.recent.get(name);
    if (points === undefined) state.recent.set(name, (points = []));
    points.push(node.risk);
    if (points.length > POINTS_MAX) points.shift();
  }
}
