// @segment/analytics-node: nothing bounds its queue, nor the number of its requests under way.

import { answer, load } from "./_asked.mjs";

const { Analytics } = load("@segment/analytics-node");

await answer({
  package: "@segment/analytics-node",
  make: (url, settings) => new Analytics({ writeKey: "key", host: url, ...settings }),
  track: (client, event, userId, properties) => client.track({ event, userId, properties }),
  flush: (client) => client.flush(),
  best: { flushAt: 100 },
  breath: 20, // without, the whole load waits in promises
});
