import type { Route } from "#netlink/route";
import { formatGateway } from "./nft-format.js";
import { OUR_PROTOCOL, type Plan, type Step } from "./state.js";

/** A step as the `ip` and `nft` commands that would do the same, one per line. */
export function formatStep(step: Step): readonly string[] {
  switch (step.kind) {
    case "addRule":
    case "deleteRule": {
      const { family, priority, fwmark, fwmask, action, table, goto: target } = step.rule;
      const mask = fwmask === 0xffffffff ? "" : `/0x${fwmask.toString(16)}`;
      const match = fwmark === null ? "" : ` fwmark ${fwmark}${mask}`;
      const what =
        action === "table"
          ? `lookup ${table}`
          : action === "goto"
            ? `goto ${target}`
            : action === "nop"
              ? "nop"
              : `type ${action}`;
      return [
        `ip -${family} rule ${step.kind === "addRule" ? "add" : "del"} priority ${priority}${match} ${what} protocol ${OUR_PROTOCOL}`,
      ];
    }
    case "replaceRoute":
      return [`ip -${step.family} route replace default via ${step.gateway} table ${step.table} proto ${OUR_PROTOCOL}`];
    case "deleteRoute":
      return [`ip -${step.route.family} route del ${formatRoute(step.route)} proto ${OUR_PROTOCOL}`];
    case "nft":
      return step.text.map((line) => `nft ${line}`);
  }
}

/** A route as `ip route` names it. */
export function formatRoute({ family, type, destination, destinationLength, nextHops, table, metric }: Route): string {
  const to = destinationLength === 0 ? "default" : `${formatGateway(destination)}/${destinationLength}`;
  const prefix = nextHops.length > 1 ? " nexthop" : "";
  const hops = nextHops
    .map(({ gateway }) => (gateway === null ? "" : `${prefix} via ${formatGateway(gateway)}`))
    .join("");
  const isKernelsMetric = metric === (family === 4 ? 0 : 1024);
  return `${type === "unicast" ? "" : `${type} `}${to}${hops} table ${table}${isKernelsMetric ? "" : ` metric ${metric}`}`;
}

/** A whole plan, in the order in which it is applied. */
export function formatPlan({ additions, vips, removals }: Plan): readonly string[] {
  return [...additions, ...vips, ...removals].flatMap(formatStep);
}
