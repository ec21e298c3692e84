// Short answers to what a person did, and questions before what cannot be taken back.

import { byId } from "./dom.js";

let timer = null;

/** Says something for a few seconds. */
export function toast(text, kind = "") {
  const element = byId("toast");
  element.className = `toast ${kind}`;
  element.textContent = text;
  element.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => (element.hidden = true), kind === "bad" ? 12_000 : 6_000);
}

/** Asks with the dialog of this id; true when the person agrees. */
export function ask(id) {
  const dialog = byId(id);
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => answer(dialog.returnValue === "ok"), { once: true });
  });
}
