// posthog-node.

import { answer, load } from "./_asked.mjs";

const { PostHog } = load("posthog-node");

await answer({
  package: "posthog-node",
  make: (url, settings) => new PostHog("key", { host: url, ...settings }),
  track: (client, event, distinctId, properties) =>
    client.capture({ event, distinctId, properties }),
  flush: (client) => client.flush(),
  best: { flushAt: 1_000, maxBatchSize: 1_000 },
  breath: 200,
  roomy: { maxQueueSize: 2_000_000 },
  gzip: (on) => ({ disableCompression: !on }),
});
