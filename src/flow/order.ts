import { FlowError, type FlowRule } from "./rule.js";

/**
 * The rules with `rule` set, in evaluation order: descending priority, stable. A new rule comes last among equals; one
 * of a known name takes the old one's place and is sorted from there. A rule with `udpEncapPort` brings its helper
 * `#name`, which stands before it.
 * @throws {FlowError} the rule exists with another udpEncapPort
 * @see nfqueue-loadbalancer 1.2.0 src/lib/flow.c:277-305
 */
export function setFlow(rules: readonly FlowRule[], rule: FlowRule): readonly FlowRule[] {
  const known = rules.find(({ name }) => name === rule.name);
  if (known !== undefined && known.udpEncapPort !== rule.udpEncapPort) {
    const allowed = `it is ${known.udpEncapPort}; delete the flow first`;
    const value = String(rule.udpEncapPort);
    throw new FlowError("FAIL: Alter udpencap not allowed", rule.name, "udpencap", value, allowed);
  }
  const withHelper = rule.udpEncapPort === 0 ? rules : place(rules, helperOf(rule));
  return place(withHelper, rule);
}

/** The rules without the one of that name and its helper. */
export function deleteFlow(rules: readonly FlowRule[], name: string): readonly FlowRule[] {
  return rules.filter((rule) => rule.name !== name && rule.name !== `#${name}`);
}

function place(rules: readonly FlowRule[], rule: FlowRule): readonly FlowRule[] {
  const index = rules.findIndex(({ name }) => name === rule.name);
  const placed = index < 0 ? [...rules, rule] : rules.with(index, rule);
  return placed.toSorted((a, b) => b.priority - a.priority);
}

/** The helper rule that finds UDP packets whose payload is SCTP (nfqlb 1.2.0 cmdFlowLb.c). */
function helperOf(rule: FlowRule): FlowRule {
  return {
    ...rule,
    name: `#${rule.name}`,
    target: "",
    protocols: ["udp"],
    destinationPorts: [{ first: rule.udpEncapPort, last: rule.udpEncapPort }],
    sourcePorts: null,
    byteMatches: [],
  };
}
