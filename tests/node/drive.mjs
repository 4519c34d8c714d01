// Makes the calls of a plan with one SDK, as its users do, and ends when all is sent.
//
// Run as: node drive.mjs FOLDER PACKAGE < PLAN, where the folder has the node_modules. What a plan
// is, `Plan` in test_real_clients.py says.

import { createRequire } from "node:module";
import { join } from "node:path";
import { text } from "node:stream/consumers";

const [folder, name] = process.argv.slice(2);
const load = createRequire(join(folder, "here.js"));

const revive = (_, value) => (value?.$date ? new Date(value.$date) : value);
const plan = JSON.parse(await text(process.stdin), revive);
const { url, key, size, gzip } = plan;

// The older SDKs flush one batch at a time.
async function drain(client) {
  while (client.queue.length > 0) {
    await new Promise((resolve, reject) =>
      client.flush((error) => (error ? reject(error) : resolve())),
    );
  }
}

// Each makes its client, and says how that is closed. Requests under way keep the process alive.
const SDKS = {
  "@customerio/cdp-analytics-node": ({ Analytics }) => {
    const client = new Analytics({ writeKey: key, host: url, maxEventsInBatch: size });
    return [client, () => client.closeAndFlush()];
  },
  "@dittofeed/sdk-node": ({ DittofeedSdk }) => {
    DittofeedSdk.init({ writeKey: key, host: url });
    return [DittofeedSdk, () => DittofeedSdk.flush()];
  },
  "@rudderstack/rudder-sdk-node": (Analytics) => {
    const settings = { dataPlaneUrl: url, flushAt: size, gzip, logLevel: "silent" };
    const client = new Analytics(key, settings);
    return [client, () => drain(client)];
  },
  "@segment/analytics-node": ({ Analytics }) => {
    const client = new Analytics({ writeKey: key, host: url, flushAt: size });
    return [client, () => client.closeAndFlush()];
  },
  "analytics-node": (Analytics) => {
    const client = new Analytics(key, { host: url, flushAt: size });
    return [client, () => drain(client)];
  },
  astronomer: (Analytics) => {
    const client = new Analytics(key, { host: url, flushAt: size });
    return [client, () => drain(client)];
  },
};

const [client, close] = SDKS[name](load(name));
for (const { type, ...fields } of plan.calls) client[type](fields);
await close();
