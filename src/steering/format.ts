import { formatGateway } from "./diff.js";
import { OUR_PROTOCOL, type Plan, type Step } from "./state.js";

/** A step as the `ip` and `nft` commands that would do the same, one per line. */
export function formatStep(step: Step): readonly string[] {
  switch (step.kind) {
    case "addRule":
    case "deleteRule": {
      const { family, priority, fwmark, fwmask, action, table, goto: target } = step.rule;
      const mask = fwmask === 0xffffffff ? "" : `/0x${fwmask.toString(16)}`;
      const match = fwmark === null ? "" : ` fwmark ${fwmark}${mask}`;
      const what = action === "table" ? `lookup ${table}` : action === "goto" ? `goto ${target}` : "nop";
      return [
        `ip -${family} rule ${step.kind === "addRule" ? "add" : "del"} priority ${priority}${match} ${what} protocol ${OUR_PROTOCOL}`,
      ];
    }
    case "replaceRoute":
      return [`ip -${step.family} route replace default via ${step.gateway} table ${step.table} proto ${OUR_PROTOCOL}`];
    case "deleteRoute": {
      const { family, gateway, table } = step.route;
      const via = gateway === null ? "" : ` via ${formatGateway(gateway)}`;
      return [`ip -${family} route del default${via} table ${table} proto ${OUR_PROTOCOL}`];
    }
    case "nft":
      return step.text.map((line) => `nft ${line}`);
  }
}

/** A whole plan, in the order in which it is applied. */
export function formatPlan({ additions, vips, removals }: Plan): readonly string[] {
  return [...additions, ...vips, ...removals].flatMap(formatStep);
}
