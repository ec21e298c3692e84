// Talking to the server: answers, the stream of events, and the token where one is asked for.
//
// The stream is read with fetch rather than EventSource, which can send no Authorization header and
// does not say why it failed.

import { byId } from "./dom.js";

let token = null;
let asking = null;

/** Asks for a path; asks the person for a token if the server does. */
export async function call(path, options = {}) {
  for (let attempt = 0; ; attempt += 1) {
    const headers = { ...options.headers };
    if (token !== null) headers.Authorization = `Bearer ${token}`;
    const response = await fetch(path, { ...options, headers, cache: "no-cache" });
    const challenge = response.headers.get("WWW-Authenticate") ?? "";
    if (response.status !== 401 || !challenge.startsWith("Bearer") || attempt === 2) return response;
    if (!(await askForToken())) return response;
  }
}

/** JSON of a path, or an error in the words of the server. */
export async function json(path, options) {
  const response = await call(path, options);
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Error(body?.detail ?? `${path}: HTTP ${response.status}`);
  return body;
}

/** Causes something: a POST without content. */
export const post = (path) =>
  json(path, { method: "POST", headers: { "Content-Type": "application/json" } });

async function askForToken() {
  // Several requests may fail at once; one question is enough.
  asking ??= new Promise((answered) => {
    const dialog = byId("token");
    const input = byId("token-value");
    input.value = "";
    dialog.returnValue = "cancel";
    dialog.addEventListener(
      "close",
      () => {
        const given = dialog.returnValue === "ok" && input.value.trim() !== "";
        if (given) token = input.value.trim();
        input.value = "";
        asking = null;
        answered(given);
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}

const WAIT_FIRST = 1_000;
const WAIT_MAX = 15_000;
// Three missed keep-alives: the connection is dead even if nobody has said so.
const SILENCE_MAX = 50_000;

/** Reads the stream for ever. `on.event(name, data)`, `on.state("live" | "lost" | ..., detail)`. */
export async function follow(on) {
  let last = null;
  let wait = WAIT_FIRST;
  for (;;) {
    const stop = new AbortController();
    let watchdog = null;
    const heard = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => stop.abort(), SILENCE_MAX);
    };
    try {
      heard();
      const headers = last === null ? {} : { "Last-Event-ID": last };
      const response = await call("/api/events/stream", { headers, signal: stop.signal });
      if (!response.ok) {
        const problem = await response.json().catch(() => null);
        throw new Error(problem?.detail ?? `HTTP ${response.status}`);
      }
      for await (const message of messages(response.body, heard)) {
        wait = WAIT_FIRST;
        if (message.id !== null) last = message.id;
        if (message.event === "reload") break;
        on.state("live", "");
        on.event(message.event, JSON.parse(message.data));
      }
      on.state("lost", "the server closed the connection");
    } catch (error) {
      on.state("lost", error.message);
    }
    clearTimeout(watchdog);
    stop.abort();
    await new Promise((resume) => setTimeout(resume, wait * (0.75 + Math.random() / 2)));
    wait = Math.min(wait * 2, WAIT_MAX);
  }
}

/** Server-Sent Events out of a body. */
async function* messages(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let parts = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    // A snapshot comes in many pieces: look for the end of it in the new piece only.
    let rest = value;
    for (;;) {
      const joint = parts.length > 0 && parts.at(-1).endsWith("\n") && rest.startsWith("\n");
      const end = joint ? 0 : rest.indexOf("\n\n");
      if (end < 0) break;
      parts.push(rest.slice(0, end));
      const message = parse(parts.join(""));
      parts = [];
      rest = rest.slice(end + (joint ? 1 : 2));
      if (message !== null) yield message;
    }
    if (rest !== "") parts.push(rest);
  }
}

function parse(text) {
  const message = { event: "message", id: null, data: "" };
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue; // a comment, or nothing
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (line.startsWith("event:")) message.event = value;
    else if (line.startsWith("id:")) message.id = value;
    else if (line.startsWith("data:")) message.data += value;
  }
  return message.data === "" ? null : message;
}
