// @rudderstack/rudder-sdk-node. At each call it writes its whole queue as JSON to see how long it
// is, so it is fast only while the queue is short: its user flushes often, and waits for that.

import { answer, load } from "./_asked.mjs";

const Analytics = load("@rudderstack/rudder-sdk-node");

async function drain(client) {
  while (client.queue.length > 0) await client.flush();
  await client.pendingFlush;
}

await answer({
  package: "@rudderstack/rudder-sdk-node",
  make: (url, settings) => new Analytics("key", { dataPlaneUrl: url, ...settings }),
  track: (client, event, userId, properties) => client.track({ event, userId, properties }),
  flush: drain,
  best: { flushAt: 20, logLevel: "error" },
  roomy: { maxInternalQueueSize: 2_000_000 },
  gzip: (on) => ({ gzip: on }),
  breath: 20,
  breathe: (client) => client.flush(),
});
