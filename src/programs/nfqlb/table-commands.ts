import { effectiveSize, MAX_SIZE, primeBelow } from "#maglev";
import { createStreamTable, deleteRegion, isNoStreamTable, readStreamTable, updateStreamTable } from "#tables";
import { type Command, CommandError, type Io, numberOption, regionName, shmFolder, wholeNumber } from "./command.js";
import type { OptionSpec, ParsedOptions } from "./options.js";

const DEFAULT_TABLE = "nfqlb";
const MAX_FWMARK = 2 ** 31 - 1;
const MAX_U32 = 2 ** 32 - 1;
/** Positions that `show` prints. */
const SHOWN_POSITIONS = 25;

const shmOption: OptionSpec = {
  name: "shm",
  kind: "value",
  default: DEFAULT_TABLE,
  help: "Name of the table (shared memory)",
};
const indexOption: OptionSpec = { name: "index", kind: "value", help: "Index of the target, 0..N-1" };

const init: Command = {
  name: "init",
  summary: "Create an empty lookup table, or replace the one of that name",
  options: [
    shmOption,
    { name: "M", kind: "value", default: "997", help: "Positions; lowered to the largest prime not above" },
    { name: "N", kind: "value", default: "32", help: "Most targets" },
    { name: "ownfw", kind: "value", default: "0", help: "Own fwmark, for a table of balancers" },
  ],
  run(options, io) {
    const asked = numberOption(options, "M", 997, 0, MAX_U32);
    const targets = numberOption(options, "N", 32, 0, MAX_U32);
    const ownFwmark = numberOption(options, "ownfw", 0, 0, MAX_FWMARK);
    const name = regionName(options, "shm", DEFAULT_TABLE);
    const size = effectiveSize(asked);
    if (size !== asked) io.out(`M adjusted; ${asked} -> ${size}\n`);
    if (targets > size) throw new CommandError("N can't be larger than M");
    requireTable(io, name);
    createStreamTable(shmFolder(io.env), name, { size: Math.min(asked, MAX_SIZE), targets, ownFwmark });
    return 0;
  },
};

const remove: Command = {
  name: "delete",
  summary: "Delete a lookup table",
  options: [{ ...shmOption, isRequired: true }],
  run(options, io) {
    const name = regionName(options, "shm", "");
    requireTable(io, name);
    deleteRegion(shmFolder(io.env), name);
    return 0;
  },
};

/** The rules, counters and rings of a data plane are not replaced or deleted by a slip of the name. @throws {CommandError} */
function requireTable(io: Io, name: string): void {
  if (isNoStreamTable(shmFolder(io.env), name))
    throw new CommandError(`${name} is no lookup table, but a data plane's`);
}

const show: Command = {
  name: "show",
  summary: "Show a lookup table",
  options: [shmOption, { name: "json", kind: "switch", isOwn: true, help: "Print the whole table as JSON" }],
  run(options, io) {
    const name = regionName(options, "shm", DEFAULT_TABLE);
    const table = openTable(io, name);
    if (options.values.has("json")) {
      const { size, targets, ownFwmark, generation } = table;
      const lookup = [...table.lookup];
      const active = [...table.active].flatMap((fwmark, index) => (fwmark < 0 ? [] : [{ index, fwmark }]));
      io.out(`${JSON.stringify({ shm: name, ownFwmark, M: size, N: targets, generation, active, lookup })}\n`);
      return 0;
    }
    const positions = table.lookup.subarray(0, SHOWN_POSITIONS).join(" ");
    const active = [...table.active].map((fwmark, index) => (fwmark < 0 ? "" : ` ${fwmark}(${index})`)).join("");
    io.out(
      `Shm: ${name}\n  Fw: own=${table.ownFwmark}\n  Maglev: M=${table.size}, N=${table.targets}\n` +
        `   Lookup: ${positions}...\n   Active:${active}\n`,
    );
    return 0;
  },
};

const activate: Command = {
  name: "activate",
  summary: "Make targets active",
  positionals: "fwmark...",
  options: [shmOption, indexOption],
  run(options, io) {
    const fwmarks = options.positionals.map((text) => wholeNumber("fwmark", text, 0, MAX_FWMARK));
    change(options, io, (active, index) => {
      if (index !== null) {
        if (fwmarks.length > 0) active[index] = fwmarks[0]!;
        return;
      }
      for (const fwmark of fwmarks) {
        if (active.includes(fwmark)) continue;
        const free = active.findIndex((present) => present < 0);
        if (free >= 0) active[free] = fwmark; // a full table ignores the rest, as upstream does
      }
    });
    return 0;
  },
};

const deactivate: Command = {
  name: "deactivate",
  summary: "Make targets inactive",
  positionals: "fwmark...",
  options: [shmOption, indexOption],
  run(options, io) {
    const fwmarks = options.positionals.map((text) => wholeNumber("fwmark", text, 0, MAX_FWMARK));
    change(options, io, (active, index) => {
      if (index !== null) {
        active[index] = -1;
        return;
      }
      for (const fwmark of fwmarks) {
        const at = active.indexOf(fwmark);
        if (at >= 0) active[at] = -1;
      }
    });
    return 0;
  },
};

const primebelow: Command = {
  name: "primebelow",
  summary: "Print the largest prime not above a number",
  positionals: "n",
  options: [],
  run({ positionals }, io) {
    if (positionals.length === 0) return 0;
    const n = wholeNumber("number", positionals[0]!, 0, MAX_U32);
    if (n < 2) throw new CommandError("There is no prime below 1");
    io.out(`${primeBelow(n)}\n`);
    return 0;
  },
};

/** Changes a table's targets in one step; `index` comes from --index, checked against N. */
function change(options: ParsedOptions, io: Io, apply: (active: Int32Array, index: number | null) => void): void {
  const name = regionName(options, "shm", DEFAULT_TABLE);
  const { targets } = openTable(io, name);
  const text = options.values.get("index");
  const index = text === undefined ? null : wholeNumber("--index", text, -MAX_U32, MAX_U32);
  if (index !== null && (index < 0 || index >= targets)) throw new CommandError("Lookup index too large");
  updateStreamTable(shmFolder(io.env), name, (active) => apply(active, index));
}

/** The table in force. @throws {CommandError} in upstream's words when there is none */
export function openTable(io: Io, name: string): ReturnType<typeof readStreamTable> {
  try {
    return readStreamTable(shmFolder(io.env), name);
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") throw new CommandError(`FAILED mapSharedData: ${name}`);
    throw error;
  }
}

export const TABLE_COMMANDS: readonly Command[] = [init, remove, show, activate, deactivate, primebelow];
