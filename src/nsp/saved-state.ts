import { createHash } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readFileSync, renameSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";

const NAME = "stateless-lb-nsp.json";
const FORMAT = "stateless-lb/nsp-state";
/** Raised when older programs could not read what newer ones write. */
const VERSION = 1;
const MAX_BYTES = 64 << 20;

/** The last answers of an NSP by what was asked, for example `vips` or `targets/STREAM`, for one conduit of one trench. */
export type SavedState = {
  readonly trench: string;
  readonly conduit: string;
  /** When it was saved, ms since 1970. */
  readonly savedAtMs: number;
  readonly answers: ReadonlyMap<string, Uint8Array>;
};

/** A file that is there but not to be used; the message says why. */
class SavedStateError extends Error {}

/**
 * Reads what `saveState` wrote.
 * @returns null when there is no file, or one of another conduit
 * @throws {SavedStateError} damaged, foreign or of another version
 */
export function loadState(folder: string, trench: string, conduit: string): SavedState | null {
  const path = join(folder, NAME);
  const text = readOwnFile(path);
  if (text === null) return null;
  const refuse = (why: string) => new SavedStateError(`${path}: ${why}`);
  const end = text.indexOf("\n");
  const body = text.slice(end + 1);
  const { format, version, sha256 } = parse(text.slice(0, Math.max(end, 0)), refuse);
  if (format !== FORMAT) throw refuse("not a saved NSP state");
  if (version !== VERSION) throw refuse(`version ${String(version)}, ${VERSION} is needed`);
  if (sha256 !== checksum(body)) throw refuse("damaged: the checksum does not fit");
  const state = parse(body, refuse);
  if (state["trench"] !== trench || state["conduit"] !== conduit) return null;
  const answers = Object.entries(state["answers"] ?? {});
  const toBytes = ([key, base64]: [string, unknown]) => [key, Buffer.from(String(base64), "base64")] as const;
  return { trench, conduit, savedAtMs: Number(state["savedAtMs"]), answers: new Map(answers.map(toBytes)) };
}

/**
 * Writes a state; a crash leaves the old file or the new one. Readable by the same user only.
 * @throws {Error} no place, no right
 */
export function saveState(folder: string, { trench, conduit, savedAtMs, answers }: SavedState): void {
  const path = join(folder, NAME);
  const encoded = [...answers].map(([key, bytes]) => [key, Buffer.from(bytes).toString("base64")] as const);
  const body = JSON.stringify({ trench, conduit, savedAtMs, answers: Object.fromEntries(encoded) });
  const head = JSON.stringify({ format: FORMAT, version: VERSION, sha256: checksum(body) });
  const temporary = `${path}.new`;
  rmSync(temporary, { force: true });
  const fd = openSync(temporary, "wx", 0o600); // exclusive: the folder may belong to everybody
  try {
    const bytes = Buffer.from(`${head}\n${body}`);
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, path);
}

/** The text of a file that nobody else can have put there, or null when there is none. @throws {SavedStateError} */
function readOwnFile(path: string): string | null {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return null;
    throw new SavedStateError((error as Error).message);
  }
  try {
    const { uid, size } = fstatSync(fd);
    if (uid !== process.geteuid?.()) throw new SavedStateError(`${path}: belongs to user ${uid}`);
    if (size > MAX_BYTES) throw new SavedStateError(`${path}: ${size} bytes, at most ${MAX_BYTES} are read`);
    return readFileSync(fd, "utf8");
  } catch (error) {
    throw error instanceof SavedStateError ? error : new SavedStateError((error as Error).message);
  } finally {
    closeSync(fd);
  }
}

function parse(text: string, refuse: (why: string) => SavedStateError): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw refuse("damaged: not JSON");
  }
  if (typeof value !== "object" || value === null) throw refuse("damaged: not what is written there");
  return value as Record<string, unknown>;
}

function checksum(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
