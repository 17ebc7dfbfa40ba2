import { constants, setPriority } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { SELECTION, type Traced, TraceWatcher } from "#tables";
import { type Command, CommandError, type Io, shmFolder, wholeNumber } from "./command.js";
import { describeDecision } from "./decision.js";
import { TRACE, TRACE_FLOWS } from "./names.js";
import type { OptionSpec, ParsedOptions } from "./options.js";
import { RuleNames } from "./rule-names.js";
import { type RunningOptions, runningOptions } from "./running.js";
import { captureOutput, jsonOutput, type TraceOutput, textOutput } from "./trace-output.js";
import { selectionNames, type TracedPacket } from "./trace-text.js";

const DEFAULT_ADDRESS = "unix:nfqlb-trace";
const ALL_SELECTIONS = 127;
const MESSAGES = SELECTION.log | SELECTION["flow-conf"];
const POLL_MS = 20;
/** Longest --duration: node's timers have 2³¹ − 1 ms. */
const MAX_SECONDS = 2_147_483;
/** How often losses are told. */
const LOSSES_MS = 1_000;
/** A data plane that is gone for so long has ended; one that was killed is replaced sooner, and the trace goes on. */
const GONE_MS = 2_000;

const options: readonly OptionSpec[] = [
  { name: "selection", kind: "value", help: `What to trace, of ${Object.keys(SELECTION).join(",")}` },
  { name: "mask", kind: "value", help: "The same as a number: log 1, packet 2, frag 4, flow-conf 8, sctp 16, …" },
  { name: "json", kind: "switch", isOwn: true, help: "One JSON object per packet and line" },
  {
    name: "write",
    kind: "value",
    isOwn: true,
    help: "Write a pcapng file with the decision as each packet's comment; - is stdout",
  },
  { name: "count", kind: "value", isOwn: true, help: "End after so many packets" },
  { name: "duration", kind: "value", isOwn: true, help: "End after so many seconds" },
  { name: "trace_address", kind: "value", help: "Accepted; trace reads shared memory and needs no socket" },
];

/** `nfqlb trace`: the decisions on selected packets, live, until the data plane ends, or a signal, or as options say. */
export const TRACE_COMMAND: Command = {
  name: "trace",
  summary: "Print the decisions on selected packets, live",
  options,
  async run(parsed, io) {
    const mask = readMask(parsed);
    const count = parsed.values.has("count")
      ? wholeNumber("--count", parsed.values.get("count")!, 1, Number.MAX_SAFE_INTEGER)
      : Number.POSITIVE_INFINITY;
    const durationMs = readDurationMs(parsed);
    const folder = shmFolder(io.env);
    const running = runningOptions(folder);
    const names = { flows: new RuleNames(folder, running.flowsName), trace: new RuleNames(folder, TRACE_FLOWS) };
    const outputs = openOutputs(parsed, io);
    // Standard output may be no place for words; scripts wait for them to know that the trace has begun.
    const say = outputs.isTextOnOut ? io.out : io.error;
    setPriority(constants.priority.PRIORITY_BELOW_NORMAL); // where processors are short, a watcher misses records, not packets
    const stop = new AbortController();
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());
    say(`Mask=${formatMask(mask)}\n`);
    using watcher = openWatcher(folder, mask, parsed);
    say(`Trace active, mask=${formatMask(mask)}\n`);
    if (durationMs !== null) setTimeout(() => stop.abort(), durationMs).unref();
    const packets = await follow({
      watcher,
      mask,
      names,
      running,
      outputs: outputs.all,
      count,
      io,
      signal: stop.signal,
    });
    for (const output of outputs.all) output.close();
    if (parsed.values.has("write")) io.error(`${packets} packets written\n`);
    return 0;
  },
};

/** Copies what is recorded to the outputs until the end. @returns packets copied */
async function follow(parts: {
  readonly watcher: TraceWatcher;
  readonly mask: number;
  readonly names: { readonly flows: RuleNames; readonly trace: RuleNames };
  readonly running: RunningOptions;
  readonly outputs: readonly TraceOutput[];
  readonly count: number;
  readonly io: Io;
  readonly signal: AbortSignal;
}): Promise<number> {
  const { watcher, mask, names, running, outputs, count, io, signal } = parts;
  const tellLosses = lossTeller(watcher, io);
  const isGone = goneTester(watcher);
  let packets = 0;
  for (;;) {
    const isLast = signal.aborted || io.isOutClosed() || isGone(); // looked at first: what came before is still read
    const traced = watcher.poll();
    names.flows.refresh();
    names.trace.refresh();
    for (const one of traced) {
      if ((one.record.selection & MESSAGES) !== 0) {
        const text = new TextDecoder().decode(one.record.bytes);
        for (const output of outputs) output.message(one.record, text);
        continue;
      }
      packets++;
      const packet = describe(packets, one, mask, names, running);
      for (const output of outputs) output.packet(packet);
      if (packets >= count) break;
    }
    for (const output of outputs) output.flush();
    const isEnd = isLast || packets >= count;
    if (!io.isOutClosed()) tellLosses(isEnd);
    if (isEnd) return packets;
    await delay(POLL_MS, undefined, { signal }).catch(() => {});
  }
}

function goneTester(watcher: TraceWatcher): () => boolean {
  let liveMs = performance.now();
  return () => {
    const nowMs = performance.now();
    if (watcher.isLive) liveMs = nowMs;
    return watcher.isReplaced || nowMs - liveMs > GONE_MS;
  };
}

/** @param mask what this watcher selects: why others got the packet is not its business */
function describe(
  n: number,
  { ring, record }: Traced,
  mask: number,
  names: { readonly flows: RuleNames; readonly trace: RuleNames },
  running: RunningOptions,
): TracedPacket {
  const rule = names.flows.find(record.ruleGeneration, record.rule);
  const target = record.stream < 0 ? null : (running.streamName ?? rule?.target ?? null);
  const traceRule = (mask & SELECTION.flows) === 0 ? null : names.trace.find(record.traceGeneration, record.traceRule);
  return {
    explanation: describeDecision(n, record, rule?.name ?? null, target),
    record: { ...record, selection: record.selection & mask },
    queue: running.queues.first + ring <= running.queues.last ? running.queues.first + ring : -1,
    trace: traceRule?.name ?? null,
  };
}

/** Tells on standard error, once a second at most and at the end, what this watcher does not see. */
function lossTeller(watcher: TraceWatcher, io: Io): (isEnd: boolean) => void {
  let toldMs = performance.now();
  let told = "";
  return (isEnd) => {
    const nowMs = performance.now();
    if (!isEnd && nowMs - toldMs < LOSSES_MS) return;
    toldMs = nowMs;
    const { lost } = watcher;
    const suppressed = watcher
      .suppressed()
      .flatMap((packets, bit) => (packets === 0 ? [] : [`${selectionNames(1 << bit).join()} ${packets}`]));
    const lines = [
      ...(lost === 0 ? [] : [`lost, because this watcher is too slow: ${lost}\n`]),
      ...(suppressed.length === 0 ? [] : [`not recorded, because of --trace_rate: ${suppressed.join(", ")}\n`]),
    ].join("");
    if (lines !== told) io.error(lines);
    told = lines;
  };
}

function openOutputs(
  { values }: ParsedOptions,
  io: Io,
): { readonly all: readonly TraceOutput[]; readonly isTextOnOut: boolean } {
  const path = values.get("write");
  const isJson = values.has("json");
  if (path === "-" && isJson) throw new CommandError("--json and --write=- both want standard output");
  return {
    all: [
      ...(path === undefined ? [] : [captureOutput(path, io.out)]),
      ...(isJson ? [jsonOutput(io.out)] : path === undefined ? [textOutput(io.out)] : []),
    ],
    isTextOnOut: !isJson && path !== "-",
  };
}

function openWatcher(folder: string, mask: number, { values }: ParsedOptions): TraceWatcher {
  const refused = new CommandError(
    `Trace client connect to ${values.get("trace_address") ?? DEFAULT_ADDRESS}: Connection refused`,
  );
  try {
    const watcher = new TraceWatcher(folder, TRACE, mask);
    if (watcher.isLive) return watcher;
    watcher[Symbol.dispose]();
  } catch (error) {
    if ((error as { code?: string }).code !== "ENOENT") throw error;
  }
  throw refused;
}

/** @throws {CommandError} none of the two options, both, or a value that is none */
function readMask({ values }: ParsedOptions): number {
  const text = values.get("mask");
  const selection = values.get("selection");
  if ((text === undefined) === (selection === undefined)) {
    throw new CommandError("Specify any of --mask or --selection");
  }
  if (text !== undefined) return readCNumber(text);
  const known: Readonly<Record<string, number>> = SELECTION;
  const names = selection!.split(",").filter((name) => name !== "");
  const unknown = names.find((name) => !Object.hasOwn(known, name));
  if (unknown !== undefined || names.length === 0) {
    throw new CommandError(`Invalid --selection [${unknown ?? ""}]; of ${Object.keys(known).join(",")}`);
  }
  return names.reduce((mask, name) => mask | known[name]!, 0);
}

/** A mask as C writes numbers: decimal, 0x hexadecimal, 0 octal. @throws {CommandError} */
function readCNumber(text: string): number {
  const value = /^0x[0-9a-f]{1,8}$/i.test(text)
    ? Number(text)
    : /^0[0-7]{0,11}$/.test(text)
      ? Number.parseInt(text, 8)
      : /^[1-9][0-9]{0,9}$/.test(text)
        ? Number(text)
        : Number.NaN;
  if (value >= 1 && value <= ALL_SELECTIONS) return value;
  throw new CommandError(`Invalid --mask [${text}]; a number 1..${ALL_SELECTIONS}, also as 0x40 or 0100`);
}

/** In ms; null: until the end. @throws {CommandError} */
function readDurationMs({ values }: ParsedOptions): number | null {
  const text = values.get("duration");
  if (text === undefined) return null;
  const seconds = /^[0-9]{1,7}(\.[0-9]{1,3})?$/.test(text) ? Number(text) : Number.NaN;
  if (seconds > 0 && seconds <= MAX_SECONDS) return seconds * 1000;
  throw new CommandError(`Invalid --duration [${text}]; seconds, for example 10 or 0.5, ${MAX_SECONDS} at most`);
}

function formatMask(mask: number): string {
  return `0x${mask.toString(16).padStart(8, "0")}`;
}
