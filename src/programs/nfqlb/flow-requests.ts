import { deleteFlow, type FlowRule, formatFlowRule, parseFlowRule, setFlow } from "#flow";
import { ConfigError } from "#model";
import { type CounterFile, hasRegion, readFlows, type StoredRule, updateFlows } from "#tables";
import type { FlowRequest } from "./flow-socket.js";

/** What the flow socket works on. */
export type FlowSocketState = {
  readonly folder: string;
  readonly flowsName: string;
  readonly counters: CounterFile;
};

/** A request that is refused; the message is the reply. */
class Refusal extends Error {}

/**
 * Answers one request of the flow socket with upstream's texts: set, delete and refusals end with a NUL byte, lists do
 * not (nfqlb 1.2.0 cmdFlowLb.c, flowServer). Whatever goes wrong becomes a reply; the rules stay as they were.
 */
export function answerFlowRequest(request: FlowRequest, state: FlowSocketState): string {
  try {
    switch (request.get("action")) {
      case undefined:
        throw new Refusal("FAIL: no action");
      case "set":
        return `${set(request, state)}\0`;
      case "delete":
        return `${remove(request, state)}\0`;
      case "list":
        return list(request, state);
      case "list-names":
        return listNames(state);
      default:
        throw new Refusal("FAIL: action unknown");
    }
  } catch (error) {
    // A configuration error's rule is upstream's whole reply; anything else says what it is.
    return `${error instanceof ConfigError ? error.rule : (error as Error).message}\0`;
  }
}

function set(request: FlowRequest, state: FlowSocketState): string {
  const rule = parseFlowRule(Object.fromEntries(request));
  const { rules } = readFlows(state.folder, state.flowsName);
  const isKnown = rules.some((stored) => stored.rule.name === rule.name);
  if (!hasRegion(state.folder, rule.target)) {
    throw new Refusal(`FAIL: Couldn't create ${isKnown ? "new " : ""}load-balancer`);
  }
  change(state, (before) => setFlow(before, rule));
  return "OK";
}

function remove(request: FlowRequest, state: FlowSocketState): string {
  const name = request.get("name");
  if (name === undefined || name === "") throw new Refusal("FAIL: no name");
  change(state, (before) => deleteFlow(before, name));
  return "OK";
}

function change(
  { folder, flowsName, counters }: FlowSocketState,
  apply: (rules: readonly FlowRule[]) => readonly FlowRule[],
): void {
  updateFlows(folder, flowsName, apply, (slot) => counters.sumRule(slot));
}

function matches({ slot, base }: StoredRule, { counters }: FlowSocketState): number {
  return (counters.sumRule(slot) - base) % 2 ** 32;
}

function list(request: FlowRequest, state: FlowSocketState): string {
  const { rules } = readFlows(state.folder, state.flowsName);
  const name = request.get("name");
  const format = (stored: StoredRule) => formatFlowRule(stored.rule, matches(stored, state));
  if (name !== undefined) {
    const found = rules.find(({ rule }) => rule.name === name);
    return found === undefined ? "" : format(found);
  }
  return `[${rules.map(format).join(",\n")}]\n`;
}

function listNames(state: FlowSocketState): string {
  const { rules } = readFlows(state.folder, state.flowsName);
  if (rules.length === 0) return "[]\n";
  return `[\n${rules.map(({ rule }) => `  ${JSON.stringify(rule.name)}`).join(",\n")}\n]\n`;
}
