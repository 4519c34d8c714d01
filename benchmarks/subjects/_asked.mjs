// How a peer that is written for Node is asked each question: what `_peer.py` and `_load.py` are
// for those in Python. The sink compares every event with the load, so the two cannot differ.
//
// Run as: node --expose-gc PROGRAM FOLDER QUESTION OPTIONS, where the folder has the node_modules.

import { createRequire } from "node:module";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const VARIANTS = 1_000; // different calls, as in _load.py
const WARM_UP = 5_000; // more than in _subject.py: what runs often is compiled in the meantime
const BURST = 200; // as in _subject.py
const PAUSE = 5; // milliseconds

const EVENTS = { full: "Order Completed", small: "Added File" };

const [folder, question, told] = process.argv.slice(2);

export const load = createRequire(join(folder, "here.js"));

// ------------------------------------------------------------------------------------- the load

const digits = (number, count) => String(number).padStart(count, "0");

const product = (sku, name, price, quantity) => ({
  product_id: sku,
  sku,
  name,
  price,
  quantity,
  category: "Tea",
});

const order = (number) => ({
  order_id: `o-${digits(number, 6)}`,
  checkout_id: `c-${digits(number * 7919, 7)}`,
  affiliation: "Harbour",
  total: 61.4,
  revenue: 52.25,
  shipping: 4.95,
  tax: 4.2,
  discount: 3,
  coupon: "AUTUMN",
  currency: "EUR",
  first_order: number % 2 === 0,
  products: [
    product("tea-assam-250", "Assam, 250 g", 14.5, 2),
    product("pot-09", "Cast-iron teapot", 26.25, 1),
  ],
});

const file = (number) => ({ file_id: `f-${digits(number, 6)}`, kilobytes: number % 97 });

const call = (number, size) => ({
  userId: `user-${digits(number % VARIANTS, 6)}`,
  properties: (size === "full" ? order : file)(number % VARIANTS),
});

function calls(count, size = "full") {
  const different = Array.from({ length: Math.min(count, VARIANTS) }, (_, i) => call(i, size));
  return Array.from({ length: count }, (_, i) => different[i % VARIANTS]);
}

// ---------------------------------------------------------------------------------- the questions

// peer: package, make(url, settings), track(client, event, userId, properties), flush(client); and
// best, roomy, gzip(on), breath as in _peer.py. `breathe`, where it has one, is what its user
// awaits after `breath` calls.

const breather = (peer) => peer.breathe ?? (() => new Promise(setImmediate));

async function send(peer, client, made, event) {
  const { track, breath = Infinity } = peer;
  const breathe = breather(peer);
  for (let i = 0; i < made.length; i += 1) {
    track(client, event, made[i].userId, made[i].properties);
    if ((i + 1) % breath === 0) await breathe(client);
  }
}

function ready(peer, { url, gzip = false, settings = {} }) {
  const { roomy = {}, best = {} } = peer;
  return peer.make(url, { ...roomy, ...best, ...(peer.gzip?.(gzip) ?? {}), ...settings });
}

async function timed(peer, client, events, size) {
  const made = calls(events, size);
  const cpu = process.cpuUsage();
  const start = performance.now();
  await send(peer, client, made, EVENTS[size]);
  await peer.flush(client);
  const seconds = (performance.now() - start) / 1e3;
  const { user, system } = process.cpuUsage(cpu);
  return { seconds, cpu_seconds: (user + system) / 1e6, events };
}

async function throughput(given, { events, size = "full", breath = given.breath, ...options }) {
  const peer = { ...given, breath };
  const client = ready(peer, options);
  await send(peer, client, calls(WARM_UP, size), EVENTS[size]);
  await peer.flush(client);
  return { ...(await timed(peer, client, events, size)), sent: WARM_UP + events };
}

async function latency(peer, { url, events }) {
  const client = peer.make(url, { ...(peer.roomy ?? {}), ...(peer.gzip?.(false) ?? {}) });
  await send(peer, client, calls(1), EVENTS.full);
  await peer.flush(client);
  return { ...(await timed(peer, client, events, "full")), sent: 1 + events };
}

async function callTime(peer, { calls: count, in_a_row: inARow, ...options }) {
  const client = ready(peer, options);
  await send(peer, client, calls(WARM_UP), EVENTS.full);
  await peer.flush(client);
  const times = new Float64Array(count).fill(0);
  const made = calls(count);
  const { breath = Infinity } = peer;
  const breathe = breather(peer);
  for (let i = 0; i < count; i += 1) {
    if (i % breath === 0) await breathe(client); // its user's own wait, and no call's
    if (!inARow && i % BURST === 0) await sleep(PAUSE);
    const { userId, properties } = made[i];
    const start = performance.now();
    peer.track(client, EVENTS.full, userId, properties);
    times[i] = (performance.now() - start) / 1e3;
  }
  await peer.flush(client);
  const first = times.filter((_, i) => (inARow ? i === 0 : i % BURST === 0)).sort((a, b) => a - b);
  return { ...quantiles(times), first: first[first.length >> 1], sent: WARM_UP + count };
}

function quantiles(seconds) {
  const ordered = [...seconds].sort((a, b) => a - b);
  const at = (rank) => ordered[Math.floor(rank * (ordered.length - 1))];
  return { median: at(0.5), p99: at(0.99), p99_9: at(0.999), max: at(1) };
}

function resident() {
  globalThis.gc();
  return process.memoryUsage.rss();
}

async function memory(peer, { url, events, ...options }) {
  const client = ready(peer, { url, ...options });
  await send(peer, client, calls(1), EVENTS.full);
  await peer.flush(client);
  await fetch(`${url}/hold`);
  const idle = resident();
  for (let i = 0; i < events; i += 1) {
    const { userId, properties } = call(i, "full");
    peer.track(client, EVENTS.full, userId, properties);
    if (i % BURST === 0) await new Promise(setImmediate);
  }
  const waiting = resident();
  await fetch(`${url}/release`);
  await peer.flush(client);
  return { idle, waiting, events, sent: 1 + events };
}

const QUESTIONS = { throughput, latency, call_time: callTime, memory };

function version(name) {
  const path = join(folder, "node_modules", name, "package.json");
  return JSON.parse(readFileSync(path, "utf8")).version;
}

export async function answer(peer) {
  const found = await QUESTIONS[question](peer, JSON.parse(told));
  const versions = { Node: process.versions.node, [peer.package]: version(peer.package) };
  console.log(JSON.stringify({ ...found, versions }));
  process.exit(0);
}
