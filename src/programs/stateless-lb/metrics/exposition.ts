import type { Definition, Exposition } from "./family.js";

/** How names reach the scraper: with dots turned into underscores, or as they are (Prometheus 3). */
export type Escaping = "underscores" | "allow-utf-8";

/** What an Accept header asks for; like the reference, `escaping=allow-utf-8` at any of its media types decides. */
export function chooseEscaping(accept: string | undefined): Escaping {
  const schemes = [...(accept ?? "").matchAll(/;\s*escaping\s*=\s*"?([a-z0-9-]+)"?/gi)].map(([, scheme]) => scheme);
  return schemes[0]?.toLowerCase() === "allow-utf-8" ? "allow-utf-8" : "underscores";
}

/** Media type of the text; names with other characters came with version 1.0.0. */
export function contentType(escaping: Escaping): string {
  const version = escaping === "allow-utf-8" ? "1.0.0" : "0.0.4";
  return `text/plain; version=${version}; charset=utf-8; escaping=${escaping}`;
}

/** Lines that are gathered before they become bytes. */
const MOST_LINES = 100;
/** A line: name, labels, what closes them, number, line feed. */
const LINE_PIECES = 5;
const CHUNK_BYTES = 1 << 16;
/** Of one code unit in UTF-8. */
const MOST_UNIT_BYTES = 3;

/**
 * Writes Prometheus's text format (Prometheus documentation, "Text-based format") as bytes, piece by piece: with thousands
 * of series, an object for each number costs more than the numbers. Memory is kept from text to text, since the engine
 * counts it and collects the whole heap for it. See decision 0082.
 */
export class TextExposition implements Exposition {
  #isUtf8 = false;
  /** Memory of former texts too, and how much of each the text has. */
  readonly #chunks: { readonly bytes: Buffer; used: number }[] = [];
  /** The chunk that is written to. */
  #current = -1;
  readonly #pieces: string[] = Array.from({ length: MOST_LINES * LINE_PIECES }, () => "");
  #count = 0;
  /** Of the family: its plain name, what stands before and behind labels, and in place of both. */
  #name = "";
  #open = "";
  #bare = "";
  #renamed: readonly (readonly [string, string])[] = [];

  /** A new text begins, in the memory of the last one: that is nobody's any more. */
  begin(escaping: Escaping): void {
    this.#isUtf8 = escaping === "allow-utf-8";
    this.#count = 0;
    this.#current = -1;
  }

  family({ name, type, help, utf8 = {} }: Definition): void {
    const other = this.#isUtf8 ? utf8 : {};
    const quoted = other.name === undefined ? name : `"${other.name}"`;
    this.#name = name;
    this.#open = other.name === undefined ? `${name}{` : `{${quoted},`;
    this.#bare = other.name === undefined ? `${name} ` : `{${quoted}} `;
    this.#renamed = Object.entries(other.labels ?? {});
    const comment = help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
    this.#encodeLines();
    this.#encode(`# HELP ${quoted} ${comment}\n# TYPE ${quoted} ${type}\n`);
  }

  sample(labels: string, value: number, suffix = ""): void {
    const pieces = this.#pieces;
    const hasLabels = labels !== "";
    if (suffix === "") pieces[this.#count] = hasLabels ? this.#open : this.#bare;
    else pieces[this.#count] = hasLabels ? `${this.#name}${suffix}{` : `${this.#name}${suffix} `;
    pieces[this.#count + 1] = this.#renamed.length === 0 ? labels : this.#rename(labels);
    pieces[this.#count + 2] = hasLabels ? "} " : "";
    pieces[this.#count + 3] = Number.isFinite(value) ? String(value) : formatSpecial(value);
    pieces[this.#count + 4] = "\n";
    this.#count += LINE_PIECES;
    if (this.#count === pieces.length) this.#encodeLines();
  }

  /** Lets `write` write; when it throws, nothing of it is left. @throws what it throws */
  attempt(write: () => void): void {
    this.#encodeLines();
    const current = this.#current;
    const used = this.#chunks[current]?.used ?? 0;
    try {
      write();
    } catch (error) {
      this.#count = 0;
      this.#current = current;
      if (current >= 0) this.#chunks[current]!.used = used;
      throw error;
    }
  }

  /** All that was written since it began, in parts; valid until another text begins. */
  get parts(): readonly Uint8Array[] {
    this.#encodeLines();
    return this.#chunks.slice(0, this.#current + 1).map(({ bytes, used }) => bytes.subarray(0, used));
  }

  #encodeLines(): void {
    const pieces = this.#count === this.#pieces.length ? this.#pieces : this.#pieces.slice(0, this.#count);
    this.#count = 0;
    this.#encode(pieces.join(""));
  }

  #encode(text: string): void {
    const chunk = this.#roomFor(text.length * MOST_UNIT_BYTES);
    chunk.used += chunk.bytes.write(text, chunk.used, "utf8");
  }

  #roomFor(most: number): { readonly bytes: Buffer; used: number } {
    const current = this.#chunks[this.#current];
    if (current !== undefined && current.used + most <= current.bytes.length) return current;
    this.#current++;
    const known = this.#chunks[this.#current];
    const isLarge = known !== undefined && known.bytes.length >= most;
    const bytes = isLarge ? known.bytes : Buffer.allocUnsafeSlow(Math.max(CHUNK_BYTES, most));
    const next = { bytes, used: 0 };
    this.#chunks[this.#current] = next;
    return next;
  }

  #rename(labels: string): string {
    return this.#renamed.reduce((text, [plain, label]) => text.replaceAll(`${plain}="`, `"${label}"="`), labels);
  }
}

/** Go's words, which the format has. */
function formatSpecial(value: number): string {
  return Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
}
