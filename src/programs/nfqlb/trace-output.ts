import { closeSync, openSync, writeSync } from "node:fs";
import type { TraceRecord } from "#tables";
import { captureBlock, captureHead } from "./capture-writer.js";
import { CommandError } from "./command.js";
import { summarizeExplanation } from "./decision.js";
import { formatTime, formatTracedPacket, selectionNames, type TracedPacket, tracedPacketJson } from "./trace-text.js";

/** Most bytes of a packet that a record holds. */
const SNAP_BYTES = 256;

/** Where a trace goes. What is given is written by `flush`. */
export type TraceOutput = {
  readonly packet: (packet: TracedPacket) => void;
  /** A line of the data plane's log, or a change of its flow rules. */
  readonly message: (record: TraceRecord, text: string) => void;
  readonly flush: () => void;
  readonly close: () => void;
};

/** Text as nfqlb prints it. */
export function textOutput(out: (text: string) => void): TraceOutput {
  return linesOutput(out, formatTracedPacket, (_record, text) => `\n${text}\n`);
}

/** One JSON object per packet, or message, and line. */
export function jsonOutput(out: (text: string) => void): TraceOutput {
  return linesOutput(
    out,
    (packet) => `${tracedPacketJson(packet)}\n`,
    (record, message) =>
      `${JSON.stringify({
        time: formatTime(record),
        selection: selectionNames(record.selection),
        level: record.outcome,
        message,
      })}\n`,
  );
}

function linesOutput(
  out: (text: string) => void,
  formatPacket: (packet: TracedPacket) => string,
  formatMessage: (record: TraceRecord, text: string) => string,
): TraceOutput {
  let text = "";
  return {
    packet: (packet) => {
      text += formatPacket(packet);
    },
    message: (record, line) => {
      text += formatMessage(record, line);
    },
    flush: () => {
      if (text !== "") out(text);
      text = "";
    },
    close: () => {},
  };
}

/**
 * A pcapng file, `-` for standard output, with the decision as each packet's comment. Only whole blocks are written, so it
 * can be read while it grows. Messages have no place in it.
 * @throws {CommandError} the file cannot be made; `flush` when it cannot be written
 */
export function captureOutput(path: string, out: (bytes: Uint8Array) => void): TraceOutput {
  const file = path === "-" ? { write: out, close: () => {} } : openFile(path);
  let blocks: Uint8Array[] = [captureHead("nfqlb trace", "nfqlb", SNAP_BYTES)];
  const flush = () => {
    if (blocks.length > 0) file.write(Buffer.concat(blocks));
    blocks = [];
  };
  flush();
  return {
    packet: ({ record, queue, explanation, trace }) => {
      const { seconds, nanoseconds, bytes, length } = record;
      const rule = trace === null ? "" : ` [trace rule ${trace}]`;
      const comment = `${summarizeExplanation(explanation)}${rule}`;
      blocks.push(captureBlock({ queue, seconds, nanoseconds, bytes, length, comment }));
    },
    message: () => {},
    flush,
    close: file.close,
  };
}

function openFile(path: string): { readonly write: (bytes: Uint8Array) => void; readonly close: () => void } {
  const attempt = <T>(work: () => T): T => {
    try {
      return work();
    } catch (error) {
      throw new CommandError(`--write: ${(error as Error).message}`);
    }
  };
  const fd = attempt(() => openSync(path, "w"));
  const write = (bytes: Uint8Array) => {
    for (let written = 0; written < bytes.length; ) {
      const from = written;
      written += attempt(() => writeSync(fd, bytes, from));
    }
  };
  return { write, close: () => closeSync(fd) };
}
