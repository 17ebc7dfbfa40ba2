import { deleteFlow, FlowError, type FlowRule, formatFlowRule, parseFlowRule, setFlow } from "#flow";
import {
  COUNTER_RULE_SLOTS,
  type CounterFile,
  hasRegion,
  matchesOf,
  readFlows,
  type StoredRule,
  streamStamp,
  TRACE_RULE_SLOTS,
  type TraceFile,
  updateFlows,
} from "#tables";
import type { FlowRequest } from "./flow-protocol.js";
import { mendRemoved } from "./housekeeping.js";
import type { PlaneLog } from "./plane-log.js";

/** What the flow socket works on. */
export type FlowSocketState = {
  readonly folder: string;
  readonly flowsName: string;
  /** Region of the trace rules. */
  readonly traceFlowsName: string;
  readonly counters: CounterFile;
  readonly trace: TraceFile;
  readonly log: PlaneLog;
};

/** The rules that a request is about: those of flows, or those that select what is traced. */
type RuleSet = {
  readonly folder: string;
  readonly name: string;
  readonly isTrace: boolean;
  /** Counter slots there are, and what one has counted. */
  readonly slots: number;
  readonly countOf: (slot: number) => number;
};

/** A request that is refused; the message is the reply. */
class Refusal extends Error {}

/** The socket's thread also ends the program: it never waits longer for a writer elsewhere that hangs. */
const LOCK_DEADLINE_MS = 500;
const TRACE_PREFIX = "trace-";
/** A trace rule leads nowhere; the classifier asks for a name all the same. */
const NO_TABLE = "trace";

/**
 * Answers one request of the flow socket with upstream's texts: set, delete and refusals end with a NUL byte, lists do
 * not (nfqlb 1.2.0 cmdFlowLb.c, flowServer). Whatever goes wrong becomes a reply; the rules stay as they were.
 */
export function answerFlowRequest(request: FlowRequest, state: FlowSocketState): string {
  try {
    const action = request.get("action");
    if (action === undefined) throw new Refusal("FAIL: no action: set, delete, list or list-names");
    const isTrace = action.startsWith(TRACE_PREFIX);
    // Deleted by hand a moment ago: put back before anybody works on it.
    if (!hasRegion(state.folder, isTrace ? state.traceFlowsName : state.flowsName))
      mendRemoved(state.folder, state.log);
    const rules = isTrace ? traceRules(state) : flowRules(state);
    const reply = answer(isTrace ? action.slice(TRACE_PREFIX.length) : action, request, rules);
    if (reply === "OK") state.log.flowsChanged([...request].map(([name, value]) => `${name}=${value}`).join(" "));
    return reply === "OK" ? "OK\0" : reply;
  } catch (error) {
    return `${(error as Error).message}\0`; // of a refused flow upstream's reply, then what exactly is wrong
  }
}

function answer(action: string, request: FlowRequest, rules: RuleSet): string {
  switch (action) {
    case "set":
      return set(request, rules);
    case "delete":
      return remove(request, rules);
    case "list":
      return list(request, rules);
    case "list-names":
      return listNames(rules);
    default:
      throw new Refusal(
        `FAIL: action unknown: ${JSON.stringify(action)}; set, delete, list, list-names, or trace- before them`,
      );
  }
}

function flowRules({ folder, flowsName, counters }: FlowSocketState): RuleSet {
  const countOf = (slot: number) => counters.sumRule(slot);
  return { folder, name: flowsName, isTrace: false, slots: COUNTER_RULE_SLOTS, countOf };
}

function traceRules({ folder, traceFlowsName, trace }: FlowSocketState): RuleSet {
  const countOf = (slot: number) => trace.sumRule(slot);
  return { folder, name: traceFlowsName, isTrace: true, slots: TRACE_RULE_SLOTS, countOf };
}

function set(request: FlowRequest, rules: RuleSet): string {
  const rule = rules.isTrace ? parseTraceRule(request) : parseFlowRule(Object.fromEntries(request));
  if (!rules.isTrace && streamStamp(rules.folder, rule.target) === null) {
    const isKnown = readFlows(rules.folder, rules.name).rules.some((stored) => stored.rule.name === rule.name);
    const reply = `FAIL: Couldn't create ${isKnown ? "new " : ""}load-balancer`;
    throw new FlowError(reply, rule.name, "target", rule.target, "a table in shared memory; nfqlb init makes one");
  }
  change(rules, rule.name, (before) => setFlow(before, rule));
  return "OK";
}

/** A trace rule has neither table nor priority nor encapsulation; such parameters are ignored like unknown ones. */
function parseTraceRule(request: FlowRequest): FlowRule {
  const { priority: _priority, udpencap: _udpencap, ...params } = Object.fromEntries(request);
  return parseFlowRule({ ...params, target: NO_TABLE });
}

function remove(request: FlowRequest, rules: RuleSet): string {
  const name = request.get("name");
  if (name === undefined || name === "") throw new Refusal("FAIL: no name: the name of a flow is needed");
  // Alone it would leave its flow without the packets that it finds; upstream does so.
  if (name.startsWith("#"))
    throw new Refusal(
      `FAIL: name ${JSON.stringify(name)}: a helper flow (#...) goes with the flow ${JSON.stringify(name.slice(1))}`,
    );
  change(rules, name, (before) => deleteFlow(before, name));
  return "OK";
}

function change(rules: RuleSet, flow: string, apply: (before: readonly FlowRule[]) => readonly FlowRule[]): void {
  const { folder, name, countOf, slots } = rules;
  try {
    updateFlows(folder, name, apply, countOf, { slots, deadlineMs: LOCK_DEADLINE_MS });
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    throw code === "ERR_TOO_MANY_RULES" ? new Refusal(`FAIL: flow ${JSON.stringify(flow)}: ${message}`) : error;
  }
}

function list(request: FlowRequest, { folder, name: region, isTrace, countOf }: RuleSet): string {
  const { rules } = readFlows(folder, region);
  const name = request.get("name");
  const format = (stored: StoredRule) => formatFlowRule(stored.rule, matchesOf(stored, countOf) % 2 ** 32, isTrace); // upstream counts in 32 bits
  if (name !== undefined) {
    const found = rules.find(({ rule }) => rule.name === name);
    return found === undefined ? "" : format(found);
  }
  return `[${rules.map(format).join(",\n")}]\n`;
}

function listNames({ folder, name }: RuleSet): string {
  const { rules } = readFlows(folder, name);
  if (rules.length === 0) return "[]\n";
  return `[\n${rules.map(({ rule }) => `  ${JSON.stringify(rule.name)}`).join(",\n")}\n]\n`;
}
