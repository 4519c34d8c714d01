// Keys: moving among rows, opening, searching, pausing, help.

import { togglePause } from "./live.js";

let current = null; // the row that j and k start from

const rows = () => [...document.querySelectorAll("#view .event")];
const panel = () => document.querySelector(".panel #detail"); // another page is one event alone

/** Make a row the one that j and k start from. */
export function mark(row) {
  current?.removeAttribute("aria-current");
  current = row;
  row?.setAttribute("aria-current", "true");
}

function move(step) {
  const all = rows();
  const at = all.indexOf(current);
  const next = all[at < 0 ? 0 : Math.min(Math.max(at + step, 0), all.length - 1)];
  if (!next) return;
  mark(next);
  const link = next.querySelector("a.open");
  link.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
  if (panel().hasChildNodes()) link.click();
}

/** Close what was opened, and go back to its row. */
export function close() {
  panel()?.replaceChildren();
  current?.querySelector("a.open").focus({ preventScroll: true });
}

function help() {
  document.getElementById("help").showModal();
}

function escape() {
  const field = document.activeElement;
  if (field.matches("input, select")) field.blur();
  else close();
}

const actions = {
  j: () => move(1),
  k: () => move(-1),
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
  p: togglePause,
  "?": help,
  "/": () => document.getElementById("text")?.focus(),
  Escape: escape,
};

document.addEventListener("keydown", (event) => {
  const action = actions[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) return; // which closes itself
  if (event.target.matches("input, select, textarea") && event.key !== "Escape") return;
  // The arrows scroll, as everywhere, until a row has been chosen.
  if (event.key.startsWith("Arrow") && !event.target.closest(".event")) return;
  event.preventDefault();
  action();
});
document.getElementById("help-button").addEventListener("click", help);
