import { printable } from "./printable.js";
import { isCurrent, SEE_HIDDEN, type Situation, type TargetSituation } from "./situation.js";
import type { StatusDocument } from "./status-document.js";

/** Things that do not work, listed singly at most; more are counted. */
const MOST_LISTED = 12;
/** A storm of repairs that has been over for so long is none any more. */
const STORM_MS = 60_000;

/** `OLD`: it was well when the control plane last told of it. */
type Verdict = "ok" | "WAIT" | "FAULT" | "OLD";
type Row = { readonly what: string; readonly verdict: Verdict; readonly text: string };

/** One screen: what works, what does not, and why. `isWell`: nothing is missing. Pure. */
export function formatStatus(
  situation: Situation,
  hostname: string,
  now: Date,
): { readonly text: string; readonly isWell: boolean } {
  const { document } = situation.controlPlane;
  const told = (rows: readonly Row[]) => (isCurrent(situation) ? rows : rows.map(asOld));
  const rows = [
    controlRow(situation, now),
    dataPlaneRow(situation),
    ...(document === null
      ? []
      : [
          ...told([nspRow(situation, now), ...fileRows(document), ...frontendRows(document, hostname)]),
          vipRow(situation),
          ...told([...streamRows(situation), availabilityRow(document), ...repairRows(document, now)]),
        ]),
  ];
  const isWell = rows.every(({ verdict }) => verdict === "ok");
  const known = listProblems(situation, hostname, now);
  const unsaid = rows.filter(({ verdict }) => verdict !== "ok").map(({ what, text }) => `${what}: ${text}`);
  const problems = known.length === 0 ? unsaid : known;
  const title = document === null ? "" : `, trench ${document.source.trench}, conduit ${document.source.conduit}`;
  const shown = problems.slice(0, MOST_LISTED).map((line) => `  - ${line}\n`);
  if (problems.length > MOST_LISTED) shown.push(`  … and ${problems.length - MOST_LISTED} more (--json lists them)\n`);
  const closing = problems.length === 0 ? "Everything works.\n" : `What does not work, and why:\n${shown.join("")}`;
  const lines = rows.map(({ what, verdict, text }) => `${what.padEnd(18)} ${verdict.padEnd(6)} ${text}\n`);
  const text = `stateless-lb on ${hostname}${title}, ${timeText(now)}\n\n${lines.join("")}\n${closing}`;
  return { text: printable(text), isWell: isWell && problems.length === 0 };
}

function asOld(row: Row): Row {
  return row.verdict === "ok" ? { ...row, verdict: "OLD" } : row;
}

function controlRow({ controlPlane }: Situation, now: Date): Row {
  const { state, since, document, unwritten } = controlPlane;
  const what = "control plane";
  if (state === "hidden") return { what, verdict: "WAIT", text: "this user may not see it" };
  if (state === "never seen") return { what, verdict: "FAULT", text: "none has ever worked on this folder" };
  if (state !== "running") {
    const failure = document?.failure ?? null;
    const inOrder = failure === null ? "ended in order" : `gave up (${failure})`;
    const dead = unwritten === "" ? "dead without a word" : "ended or died, its last word could not be written";
    const how = { ended: inOrder, dead, hanging: "hangs, last sign of life" }[state];
    return { what, verdict: "FAULT", text: `${how}, ${agoText(since!, now)}; what follows is what it said last` };
  }
  if (document === null) return { what, verdict: "FAULT", text: "runs, but its status cannot be read" };
  if (unwritten !== "") {
    const text = `pid ${document.pid} runs, and cannot write its status: what follows is what it said ${agoText(document.writtenAt, now)}`;
    return { what, verdict: "FAULT", text };
  }
  const turn = document.lastTurn;
  const told = turn === null ? "no turn yet" : `last turn ${agoText(turn.at, now)}, ${turn.durationMs} ms`;
  const text = `pid ${document.pid}, started ${agoText(document.startedAt, now)}; ${told}`;
  if (document.phase === "ending")
    return { what, verdict: "WAIT", text: `${text}; it ends, packets are served until then` };
  const verdict = turn !== null && turn.error === null ? "ok" : turn === null ? "WAIT" : "FAULT";
  return { what, verdict, text };
}

function dataPlaneRow({ dataPlane, controlPlane }: Situation): Row {
  const what = "data plane";
  if (controlPlane.state === "hidden") return { what, verdict: "WAIT", text: "this user may not see it" };
  if (dataPlane === null) return { what, verdict: "FAULT", text: "none runs: packets to the VIPs are lost" };
  const { pid, isReady, isHanging, queues } = dataPlane;
  const sum = (pick: (queue: (typeof queues)[number]) => number) =>
    queues.reduce((total, queue) => total + pick(queue), 0);
  const lost = sum(({ queueFull, bufferFull }) => queueFull + bufferFull);
  const numbers = queues.map(({ queue }) => queue);
  const range = numbers.length < 2 ? `queue ${numbers[0] ?? "-"}` : `queues ${numbers[0]}-${numbers.at(-1)}`;
  const losses = Number.isNaN(lost) ? "losses before it not known" : `${lost} lost before it`;
  const restarts = sum(({ starts }) => Math.max(0, starts - 1));
  const restarted = restarts === 0 ? "" : `, threads started again: ${restarts}`;
  const text = `pid ${pid}, ${range}, ${sum(({ packets }) => packets)} packets, ${losses}${restarted}`;
  if (isHanging) return { what, verdict: "FAULT", text: `${text}; it hangs, ${waitingText(queues)}` };
  return { what, verdict: isReady ? "ok" : "WAIT", text: isReady ? text : `${text}; not all queues are served yet` };
}

/** Packets that wait in the kernel for a data plane that hangs. */
export function waitingText(queues: readonly { readonly waiting: number }[]): string {
  const waiting = queues.reduce((sum, queue) => sum + queue.waiting, 0);
  return Number.isNaN(waiting) ? "how many packets wait is not known" : `${waiting} packets wait`;
}

function nspRow({ controlPlane }: Situation, now: Date): Row {
  const { nsp, source, configurationFrom, waitingFor } = controlPlane.document!;
  const place = source.file === null ? source.address : `embedded, from ${source.file}`;
  const served = configurationFrom === "saved state" ? "; the saved configuration is served" : "";
  if (nsp.since === null) return { what: "NSP", verdict: "WAIT", text: `${place}: not heard yet${served}` };
  const since = agoText(nsp.since, now);
  if (nsp.isConnected && waitingFor.length > 0)
    return {
      what: "NSP",
      verdict: "WAIT",
      text: `${place}, connected ${since}; it has not told ${waitingFor.join(", ")}`,
    };
  if (nsp.isConnected) return { what: "NSP", verdict: "ok", text: `${place}, connected ${since}` };
  return { what: "NSP", verdict: "FAULT", text: `${place}, not connected; last change ${since}${served}` };
}

function fileRows({ source }: StatusDocument): readonly Row[] {
  if (source.fileFault === "") return [];
  return [{ what: "configuration file", verdict: "FAULT", text: "refused; the last good one is in force" }];
}

function frontendRows({ isFrontendAnnounced }: StatusDocument, hostname: string): readonly Row[] {
  if (isFrontendAnnounced === null) return [];
  const text = `${hostname} is ${isFrontendAnnounced ? "" : "not "}announced`;
  return [{ what: "frontend", verdict: isFrontendAnnounced ? "ok" : "FAULT", text }];
}

/** Whether packets to VIPs are queued is the kernel's to say; where it does not, the control plane's. */
function vipRow(situation: Situation): Row {
  const { vips, isServed, configurationFrom, isFrontendAnnounced } = situation.controlPlane.document!;
  const isQueued = situation.areVipsQueued ?? (isCurrent(situation) ? isServed : null);
  const names = `${vips.slice(0, 4).join(", ")}${vips.length > 4 ? ", …" : ""}`;
  if (configurationFrom === null) return { what: "VIPs", verdict: "WAIT", text: "no configuration yet" };
  if (vips.length === 0) return { what: "VIPs", verdict: "WAIT", text: "none configured" };
  const row = (verdict: Verdict, how: string): Row => ({
    what: "VIPs",
    verdict,
    text: `${vips.length}${how}: ${names}`,
  });
  if (isQueued === null) return row("OLD", ", whether they are queued is not seen");
  if (!isQueued) return isCurrent(situation) ? row("WAIT", ", not queued yet") : row("FAULT", ", not queued");
  return isFrontendAnnounced === false ? row("WAIT", ", queued and dropped, for want of a frontend") : row("ok", "");
}

function streamRows({ controlPlane, targets }: Situation): readonly Row[] {
  const { streams, flows, refusedFlows, configurationFrom } = controlPlane.document!;
  if (streams.length === 0)
    return configurationFrom !== null ? [{ what: "streams", verdict: "WAIT", text: "none configured" }] : [];
  const all = streams.map(({ name, maxTargets, offset }): Row => {
    const own = targets.filter(({ stream }) => stream === name);
    const ready = own.filter(({ state }) => state === "ready").length;
    const flowCount = flows.filter(({ stream }) => stream === name).length;
    const refusedCount = refusedFlows.filter(({ stream }) => stream === name).length;
    const marks = offset === null ? "no marks" : `marks ${offset + 1}-${offset + maxTargets}`;
    const isWhole = ready > 0 && ready === own.length && flowCount > 0 && refusedCount === 0;
    const verdict = isWhole ? "ok" : own.length === 0 ? "WAIT" : "FAULT";
    const flowText = refusedCount === 0 ? `${flowCount} flows` : `${flowCount} of ${flowCount + refusedCount} flows`;
    const text = `${ready} of ${own.length} targets ready, ${flowText}, ${marks}`;
    return { what: `stream ${name}`, verdict, text };
  });
  // Those with a problem are of interest; one line must do for the rest of a long list.
  if (all.length <= MOST_LISTED) return all;
  const bad = all.filter(({ verdict }) => verdict !== "ok").slice(0, MOST_LISTED);
  return [{ what: "streams", verdict: bad.length === 0 ? "ok" : "FAULT", text: `${all.length}` }, ...bad];
}

/** What frontends are told of this instance. */
function availabilityRow({ isAvailable }: StatusDocument): Row {
  return isAvailable
    ? { what: "availability", verdict: "ok", text: "frontends are told to send packets" }
    : { what: "availability", verdict: "WAIT", text: "frontends are told to send none" };
}

/** Somebody undid what is ours: all is well again, but it may go on. */
function repairRows({ repairs }: StatusDocument, now: Date): readonly Row[] {
  const { count, last } = repairs;
  if (last === null) return [];
  const verdict = stormsOf(repairs, now).length > 0 ? "FAULT" : "ok";
  const [first = "", ...others] = last.commands;
  const more = others.length === 0 ? "" : ", …";
  return [{ what: "repairs", verdict, text: `${count}, the last ${agoText(last.at, now)}: ${first}${more}` }];
}

const STORM_CAUSES =
  "a second load balancer in this network namespace, a firewall or network service, a script, a link that flaps? nft monitor and ip monitor show its doing";

/** Those that rage still, or did a minute ago. */
function stormsOf({ storms }: StatusDocument["repairs"], now: Date): StatusDocument["repairs"]["storms"] {
  return storms.filter(({ lastAt }) => now.getTime() - Date.parse(lastAt) < STORM_MS);
}

/** Every reason for which something does not work, the most general first. */
function listProblems({ controlPlane, dataPlane, targets }: Situation, hostname: string, now: Date): readonly string[] {
  const { document, state, problem, unwritten } = controlPlane;
  if (state === "hidden") return [`${problem}; ${SEE_HIDDEN}`];
  const problems: string[] = [];
  if (state === "hanging")
    problems.push(
      `the control plane hangs (${pidText(document)}): nothing follows changes; is it stopped? End it, and start another`,
    );
  else if (state !== "running") problems.push("no control plane runs: nothing follows changes; start stateless-lb");
  if (problem !== "") problems.push(problem);
  if (unwritten !== "") problems.push(`the control plane's status is old, it cannot be written: ${unwritten}`);
  if (dataPlane === null) problems.push("no data plane runs; the control plane starts one: see its log");
  else if (dataPlane.isHanging)
    problems.push(
      `the data plane hangs (pid ${dataPlane.pid}); the control plane kills one that hangs, unless a debugger holds it`,
    );
  if (document === null) return problems;
  const { nsp, lastTurn, faults, refusals, isFrontendAnnounced } = document;
  if (!nsp.isConnected && nsp.since !== null) problems.push(`NSP ${document.source.address}: ${nsp.reason || "lost"}`);
  if (lastTurn !== null && lastTurn.error !== null) problems.push(`the last turn broke off: ${lastTurn.error}`);
  if (document.source.fileFault !== "")
    for (const fault of document.source.fileFault.split("\n"))
      problems.push(`the configuration file is not in force: ${fault}`);
  for (const { what, count } of stormsOf(document.repairs, now))
    problems.push(
      `put right ${count} times within a minute, another program keeps undoing it: ${what}; ${STORM_CAUSES}`,
    );
  if (nsp.isConnected && document.waitingFor.length > 0) problems.push(formatWaiting(document));
  if (isFrontendAnnounced === false) {
    // Of everything below it is the cause.
    problems.push(
      `no frontend ${hostname} is registered at the NSP (a target of type FRONTEND with this identifier): nothing is served until it is; see docs/nsp.md`,
    );
    return [...problems, ...refusals.map((reason) => `refused: ${reason}`)];
  }
  const ofStreams = streamProblems(document);
  const reasons = [...new Set(document.refusedFlows.map(({ reason }) => reason))];
  const others = faults.filter((fault) => !reasons.some((reason) => fault.endsWith(`: ${reason}`)));
  problems.push(...others, ...ofStreams);
  for (const target of targets) if (target.state !== "ready") problems.push(formatTarget(target));
  problems.push(...refusals.map((reason) => `refused: ${reason}`));
  return problems.map(withMend);
}

/** An NSP answers also for names that it does not know: with nothing. */
function formatWaiting({ source: { address, trench, conduit }, waitingFor }: StatusDocument): string {
  const told = `NSP ${address} has not told ${waitingFor.join(", ")}; waited for is conduit ${conduit} of trench ${trench}`;
  if (!waitingFor.includes("conduit")) return told;
  return `${told}. Are these names right (NSM_CONDUIT_NAME, NSM_TRENCH_NAME)? stateless-lb nsp get conduits tells what it has`;
}

/** Streams without marks or flows, and flows that are not in force, by their reason. */
function streamProblems({ streams, flows, refusedFlows }: StatusDocument): readonly string[] {
  return streams.flatMap(({ name, offset }) => {
    if (offset === null) return [`stream ${name}: no fwmarks are left; lower its max-targets or another's`];
    const refused = refusedFlows.filter(({ stream }) => stream === name);
    const inForce = flows.filter(({ stream }) => stream === name).length;
    if (refused.length + inForce === 0) return [`stream ${name}: no flow leads to it`];
    const reasons = [...new Set(refused.map(({ reason }) => reason))];
    return reasons.map((reason) => {
      const count = refused.filter((one) => one.reason === reason).length;
      return `stream ${name}: ${count} of ${refused.length + inForce} flows not in force: ${reason}`;
    });
  });
}

/** With what helps, where that is no secret of the kernel's. */
function withMend(problem: string): string {
  if (!problem.includes("ENOSPC")) return problem;
  return `${problem}; more shared memory is needed (of a pod: sizeLimit of its /dev/shm), or smaller max-targets`;
}

const pidText = (document: StatusDocument | null) => (document === null ? "pid unknown" : `pid ${document.pid}`);

function formatTarget({ stream, identifier, fwmark, addresses, state, reason }: TargetSituation): string {
  const mark = fwmark === null ? "" : ` (mark ${fwmark}, ${addresses.join(", ")})`;
  return `target ${identifier} of ${stream}${mark} is ${state}: ${reason}`;
}

function timeText(time: Date): string {
  return `${time.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** A moment of the past: `12 s ago`; beyond two days its date. */
function agoText(iso: string, now: Date): string {
  const seconds = Math.max(0, Math.round((now.getTime() - Date.parse(iso)) / 1_000));
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)} min ago`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3_600)} h ago` : timeText(new Date(iso));
}
