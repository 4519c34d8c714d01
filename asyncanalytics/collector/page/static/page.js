// What every page does; the live page begins its parts from here.

import * as chart from "./chart.js";
import { close, mark } from "./keys.js";
import * as live from "./live.js";

const on = (name, handle) => document.addEventListener(name, handle);

function clicked(event) {
  const target = event.target;
  if (target.closest("#theme")) theme.toggle();
  else if (target.closest("#pause")) live.togglePause();
  else if (target.closest(".close")) close();
  else if (target.closest("[data-copy]")) copy(target.closest("[data-copy]"));
  else if (target.closest("[data-fold]")) fold(target.closest("[data-fold]"));
  else if (target.closest(".event")) clickedRow(event);
}

/** Let all of a row open it, but for its other links, and for text that is being selected. */
function clickedRow(event) {
  const row = event.target.closest(".event");
  mark(row);
  if (event.target.closest("a") || String(getSelection())) return;
  row.querySelector("a.open").click();
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    copyBySelecting(source);
  }
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = before), 1500);
}

/** Copy where a page may not write to the clipboard: over plain HTTP from another machine. */
function copyBySelecting(source) {
  const fold = source.closest("details");
  const wasOpen = fold?.open;
  if (fold) fold.open = true; // what is not shown cannot be selected
  getSelection().selectAllChildren(source);
  document.execCommand("copy");
  getSelection().removeAllRanges();
  if (fold) fold.open = wasOpen;
}

function fold(button) {
  const open = button.dataset.fold === "open";
  for (const each of button.closest("section").querySelectorAll(".tree details")) each.open = open;
}

/** Keep the address short: an empty field is no filter. */
function withoutEmpty({ detail }) {
  if (detail.elt.id !== "filters") return;
  for (const [name, value] of [...detail.formData]) if (!value) detail.formData.delete(name);
}

/** Leave out what was found by a search that has been given up. */
function beforeSwap({ detail }) {
  const { elt } = detail.requestConfig;
  if (elt.id === "further" && !elt.isConnected) detail.shouldSwap = false;
}

function swapped({ target }) {
  if (target.id === "view") live.begin();
  if (target.id === "end") live.tellSearch();
  if (target.id === "detail") target.querySelector("h1")?.focus({ preventScroll: true });
}

on("click", clicked);
on("htmx:configRequest", withoutEmpty);
on("htmx:beforeSwap", beforeSwap);
on("htmx:afterSettle", swapped);
if (document.getElementById("state")) {
  on("visibilitychange", live.connect);
  for (const failure of ["htmx:sendError", "htmx:responseError"]) on(failure, live.searchAgain);
  chart.begin();
  live.begin();
}
