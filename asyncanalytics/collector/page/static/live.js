// The rows as they arrive.
//
// Not htmx's own extension for this: that cannot pause, and begins anew after an answer that is
// no stream, which would repeat events. Here a connection always says where the last one ended.

const MOST_ROWS = 200;
const RETRY = 2000; // milliseconds

const view = () => document.getElementById("view");
const rows = () => view().querySelector("tbody");
let source = null;
let last = null; // the position up to which everything was received
let held = []; // what came while paused, as far as it would be shown
let dropped = 0; // how many came while paused and would not be shown
let waiting = 0; // the sum of both
let skipped = 0; // how many were left out of what is shown
let paused = false;

/** Follow what the view shows from where it ends. */
export function begin() {
  forget();
  skipped = 0;
  last = view()?.dataset.after;
  connect();
  tellSearch();
}

function forget() {
  held = [];
  dropped = 0;
  waiting = 0;
}

export function togglePause() {
  if (!view()?.dataset.stream) return;
  paused = !paused;
  if (!paused) {
    showGap(dropped);
    held.forEach(show);
    forget();
  }
  tell();
}

/** Connect anew, or not at all where there is nothing to follow or nobody to see it. */
export function connect() {
  source?.close();
  source = null;
  const stream = view()?.dataset.stream;
  // A browser has few connections for one host: a page that nobody looks at gives its own back.
  if (!stream || document.hidden) return tell();
  const url = new URL(stream, location.href);
  url.searchParams.set("after", last);
  source = new EventSource(url);
  source.addEventListener("open", tell);
  source.addEventListener("rows", receive);
  source.addEventListener("reset", () => location.reload());
  source.addEventListener("error", lose);
  tell();
}

function receive(message) {
  last = message.lastEventId;
  const piece = JSON.parse(message.data);
  if (!paused) {
    show(piece);
    tell();
    return;
  }
  held.push(piece);
  waiting += piece.events + piece.skipped;
  let kept = held.reduce((sum, each) => sum + each.events, 0);
  while (kept > MOST_ROWS) {
    const oldest = held.shift();
    kept -= oldest.events;
    dropped += oldest.events + oldest.skipped;
  }
  tell();
}

function show(piece) {
  showGap(piece.skipped);
  const body = rows();
  htmx.swap(body, piece.html, { swapStyle: "afterbegin" });
  if (body.rows.length <= MOST_ROWS) return;
  while (body.rows.length > MOST_ROWS) body.deleteRow(-1);
  pointToOlder([...body.querySelectorAll("[data-position]")].at(-1).dataset.position);
}

/** Say between the rows that some are not there. */
function showGap(count) {
  if (!count) return;
  skipped += count;
  const row = rows().insertRow(0);
  const cell = row.insertCell();
  row.className = "skipped";
  cell.colSpan = 5;
  cell.textContent = `${count.toLocaleString("en")} skipped: more came than can be shown`;
}

/** Lead on from the last row. A search that would go on below it ends. */
function pointToOlder(position) {
  document.getElementById("further")?.remove();
  const older = document.getElementById("older");
  const url = new URL(location.href);
  url.searchParams.set("before", position);
  older.href = url.pathname + url.search;
  older.hidden = false;
  tellSearch();
}

/** Tell once who listens that a search goes on, and what came of it. */
export function tellSearch() {
  const said = document.getElementById("found");
  const goesOn = document.getElementById("further") !== null;
  if (!goesOn && !said.textContent) return; // it was answered at once
  const count = view().querySelectorAll(".event").length;
  const isFull = !document.getElementById("older").hidden;
  const found = count ? `${count} found${isFull ? " so far" : ""}` : "Nothing found";
  const words = goesOn ? "Looking further back…" : found;
  if (said.textContent !== words) said.textContent = words;
}

/** Go on with a search after a failure, as the stream does. */
export function searchAgain() {
  setTimeout(() => {
    const further = document.getElementById("further");
    if (further) htmx.trigger(further, "again");
  }, RETRY);
}

function lose(event) {
  tell();
  // The browser comes back by itself after a broken connection, but not after a bad answer.
  if (event.target.readyState === EventSource.CLOSED) setTimeout(connect, RETRY);
}

function tell() {
  const state = document.getElementById("state");
  const lost = source?.readyState !== EventSource.OPEN;
  const now = paused ? "paused" : lost ? "lost" : "live";
  const button = document.getElementById("pause");
  button.textContent = paused ? "Resume" : "Pause";
  button.setAttribute("aria-pressed", String(paused));
  const [count, what] = paused ? [waiting, "new"] : [skipped, "skipped"];
  document.getElementById("count").textContent = count ? `${count.toLocaleString("en")} ${what}` : "";
  if (state.dataset.state === now) return;
  state.dataset.state = now;
  const words = { paused: "paused", lost: "connecting…", live: "live" };
  document.getElementById("said").textContent = words[now];
}
