import type { TargetMaker } from "./target.js";
import { capturesTarget } from "./targets/captures.js";
import { flowSocketTarget } from "./targets/flow-socket.js";
import { fragmentsTarget } from "./targets/fragments.js";
import { netlinkTarget } from "./targets/netlink.js";
import { packetsTarget } from "./targets/packets.js";
import { queueMessagesTarget } from "./targets/queue-messages.js";
import { regionsTarget } from "./targets/regions.js";

/** All targets by name; a folder of that name in the corpus goes with each. */
export const targets = {
  packets: packetsTarget,
  fragments: fragmentsTarget,
  "flow-socket": flowSocketTarget,
  captures: capturesTarget,
  "queue-messages": queueMessagesTarget,
  netlink: netlinkTarget,
  regions: regionsTarget,
} satisfies Record<string, TargetMaker>;
