// What clients send to the flow socket, in any pieces, against the plain reader; and in some cases the answers too, with
// the rules they leave in shared memory, against the plain list of rules.
import type { FlowRule } from "#flow";
import {
  CounterFile,
  createStreamTable,
  ensureFlows,
  FlowTableReader,
  readFlows,
  TraceFile,
  updateFlows,
} from "#tables";
import { type FlowInput, FlowRequestReader } from "../../../src/programs/nfqlb/flow-protocol.js";
import { answerFlowRequest } from "../../../src/programs/nfqlb/flow-requests.js";
import { PlaneLog } from "../../../src/programs/nfqlb/plane-log.js";
import type { Random } from "../../harness/random.js";
import { FlowSocketModel, type PlainRule, readRequestPlainly } from "../../oracle/flow-socket.js";
import { flowInput, inPieces, soundInput } from "../flow-input.js";
import { differ, type FuzzCase, type TargetMaker } from "../target.js";

const TABLES = ["t1", "t2"];
const FLOWS = "flows";
const TRACE_FLOWS = "trace-flows";
/** Every so many cases the requests are answered, by this many clients. An answer costs as much as 50 readings. */
const ANSWERED_ONE_OF = 6_000;
const ANSWERED_CLIENTS = 60;

/** Parts of a case are the pieces that arrive; an empty one is the end of a client. */
function generate(random: Random): FuzzCase {
  const isAnswered = random(ANSWERED_ONE_OF) === 0;
  const parts: Uint8Array[] = [];
  for (let client = isAnswered ? ANSWERED_CLIENTS : 1; client > 0; client--) {
    const isSound = isAnswered && random(4) > 0;
    parts.push(...inPieces(random, isSound ? soundInput(random) : flowInput(random)), new Uint8Array(0));
  }
  return { settings: [isAnswered ? 1 : 0], parts };
}

/** The pieces of each client. */
function clientsOf(parts: readonly Uint8Array[]): readonly (readonly Uint8Array[])[] {
  const clients: Uint8Array[][] = [[]];
  for (const part of parts) {
    if (part.length > 0) clients.at(-1)!.push(part);
    else clients.push([]);
  }
  return clients.filter((client) => client.length > 0);
}

export const flowSocketTarget: TargetMaker = (folder) => {
  const seen = { more: 0, request: 0, refused: 0, closed: 0, granted: 0, "not granted": 0, "rules at most": 0 };
  for (const name of TABLES) createStreamTable(folder, name, { size: 97, targets: 4, ownFwmark: 0 });
  for (const name of [FLOWS, TRACE_FLOWS]) ensureFlows(folder, name);
  const trace = TraceFile.own(folder, "trace", 2, 1_024);
  const state = {
    folder,
    flowsName: FLOWS,
    traceFlowsName: TRACE_FLOWS,
    counters: CounterFile.create(folder, "counters", 1, "{}"),
    trace,
    log: new PlaneLog(trace, () => {}),
  };
  const countNothing = () => 0;

  function answer(requests: readonly FlowInput[]): string | null {
    for (const name of [FLOWS, TRACE_FLOWS]) updateFlows(folder, name, () => [], countNothing);
    const model = new FlowSocketModel(TABLES);
    for (const input of requests) {
      if (input.kind !== "request") continue;
      const before = readFlows(folder, FLOWS).generation;
      const reply = answerFlowRequest(input.request, state);
      const isGranted = model.take(Object.fromEntries(input.request));
      seen[isGranted ? "granted" : "not granted"]++;
      const problem = differReply(input.request.get("action") ?? "", reply, isGranted);
      if (problem !== null) return problem;
      const flows = readFlows(folder, FLOWS);
      if (!isGranted && flows.generation !== before) return "refused, and the rules changed";
      seen["rules at most"] = Math.max(seen["rules at most"], flows.rules.length);
      const found = differ("rules", flows.rules.map(plain), model.flows);
      if (found !== null) return found;
      const traced = differ("trace rules", readFlows(folder, TRACE_FLOWS).rules.map(plain), model.trace);
      if (traced !== null) return traced;
      if (new Set(flows.rules.map(({ slot }) => slot)).size !== flows.rules.length) return "two rules with one counter";
    }
    using reader = new FlowTableReader(folder, FLOWS); // and the packet path takes it
    return reader.program.length > 0 ? null : "no program";
  }

  return {
    seen,
    generate,
    allowance: ({ settings: [isAnswered], parts }) => (isAnswered === 1 ? clientsOf(parts).length : 1),
    weigh: ({ parts }) => parts.reduce((sum, { length }) => sum + (length === 0 ? 1 : 0), 0) || 1,
    check({ settings: [isAnswered = 0], parts }) {
      const inputs: FlowInput[] = [];
      for (const pieces of clientsOf(parts)) {
        const reader = new FlowRequestReader();
        let got: FlowInput = { kind: "more" };
        for (const piece of pieces) got = reader.feed(piece);
        seen[got.kind]++;
        inputs.push(got);
        const problem = differ("input", summary(got), readRequestPlainly(Buffer.concat(pieces)));
        if (problem !== null) return problem;
      }
      return isAnswered === 1 ? answer(inputs) : null;
    },
  };
};

function summary(input: FlowInput): unknown {
  if (input.kind === "request") return Object.fromEntries(input.request);
  if (input.kind !== "refused") return input.kind;
  return /(line|request) too long|not UTF-8/.exec(input.reply)?.[0] ?? input.reply;
}

/** Replies but lists end with a NUL byte; a list is JSON, or empty. */
function differReply(action: string, reply: string, isGranted: boolean): string | null {
  if (/^(trace-)?list(-names)?$/.test(action)) {
    if (reply !== "") JSON.parse(reply);
    return null;
  }
  if (!/^[^\0]+\0$/.test(reply)) return `reply: ${JSON.stringify(reply)}`;
  return (reply === "OK\0") === isGranted ? null : `reply ${JSON.stringify(reply)}, granted: ${isGranted}`;
}

function plain({ rule }: { readonly rule: FlowRule }): PlainRule {
  const { name, target, priority, protocols, destinations, sources, byteMatches, udpEncapPort } = rule;
  const ranges = (ports: FlowRule["sourcePorts"]) => ports?.map(({ first, last }) => `${first}-${last}`) ?? null;
  return {
    name,
    target,
    priority,
    protocols: protocols.toSorted(),
    destinations: destinations.length,
    sources: sources.length,
    destinationPorts: ranges(rule.destinationPorts),
    sourcePorts: ranges(rule.sourcePorts),
    byteMatches: byteMatches.length,
    udpEncapPort,
  };
}
