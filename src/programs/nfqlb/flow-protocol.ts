/** One request: its parameters. */
export type FlowRequest = ReadonlyMap<string, string>;

/**
 * What came of the bytes so far: more are needed; a request; a refusal to send before closing; or a line that is none,
 * after which upstream closes without a word.
 */
export type FlowInput =
  | { readonly kind: "more" }
  | { readonly kind: "request"; readonly request: FlowRequest }
  | { readonly kind: "refused"; readonly reply: string }
  | { readonly kind: "closed" };

/** Longest line in bytes; 32 prefixes or a name of 1023 bytes are far below. Upstream's buffer: 1024. */
export const MAX_LINE_BYTES = 8_192;
/** Longest request. With the parameters that are kept it bounds what a client can make us hold. */
export const MAX_REQUEST_BYTES = 65_536;

const FIRST_LINE_BYTES = 128;
const LINE_FEED = 10;
const MORE: FlowInput = { kind: "more" };
/** Parameters that some request has; others are ignored, as upstream does, and take no memory. */
const PARAMETERS = [
  "action",
  "name",
  "target",
  "priority",
  "protocols",
  "dsts",
  "srcs",
  "dports",
  "sports",
  "match",
  "udpencap",
];
/** Of these the last occurrence in a request counts, of all others the first. */
const LAST_WINS = ["priority", "udpencap"];

/**
 * Reads one request of upstream's line protocol from bytes in pieces of any size: `param:value` lines, ended by a line that
 * begins with `eoc:`. What stands behind that is ignored. Each byte is looked at once or twice, however it comes; the memory
 * held is bounded by {@link MAX_REQUEST_BYTES}.
 */
export class FlowRequestReader {
  readonly #params = new Map<string, string>();
  /** The line that has begun; grows to MAX_LINE_BYTES. */
  #line = new Uint8Array(FIRST_LINE_BYTES);
  readonly #text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  /** Bytes of the line that has begun, and of the lines before it. */
  #lineBytes = 0;
  #bytes = 0;
  #result: FlowInput = MORE;

  /** Takes more bytes. Once the result is not `more` it stays as it is. */
  feed(chunk: Uint8Array): FlowInput {
    for (let at = 0; at < chunk.length && this.#result.kind === "more"; ) {
      const found = chunk.indexOf(LINE_FEED, at);
      const end = found < 0 ? chunk.length : found;
      this.#result = this.#append(chunk.subarray(at, end), found >= 0);
      at = end + 1;
    }
    return this.#result;
  }

  /** Which limit is passed first depends on the bytes alone, not on the pieces they come in. */
  #append(part: Uint8Array, isWhole: boolean): FlowInput {
    const lineBytes = this.#lineBytes + part.length;
    const kept = Math.min(lineBytes, MAX_LINE_BYTES);
    if (kept > this.#line.length) this.#growTo(kept);
    this.#line.set(part.subarray(0, kept - this.#lineBytes), this.#lineBytes);
    this.#lineBytes = kept;
    // The end needs no line feed: a client that stops behind `eoc:` waits for its answer.
    if (this.#isEnd()) {
      const isTooLong = this.#bytes + 4 > MAX_REQUEST_BYTES;
      return isTooLong ? tooLong("request", MAX_REQUEST_BYTES) : { kind: "request", request: this.#params };
    }
    const isLineFirst = this.#bytes + MAX_LINE_BYTES < MAX_REQUEST_BYTES;
    if (lineBytes > MAX_LINE_BYTES && isLineFirst) return tooLong("line", MAX_LINE_BYTES);
    const bytes = this.#bytes + lineBytes + (isWhole ? 1 : 0);
    if (bytes > MAX_REQUEST_BYTES) return tooLong("request", MAX_REQUEST_BYTES);
    if (!isWhole) return MORE;
    this.#bytes = bytes;
    this.#lineBytes = 0;
    return this.#take(this.#line.subarray(0, lineBytes));
  }

  #growTo(bytes: number): void {
    const line = new Uint8Array(Math.min(MAX_LINE_BYTES, bytes * 2));
    line.set(this.#line.subarray(0, this.#lineBytes));
    this.#line = line;
  }

  #isEnd(): boolean {
    const line = this.#line;
    return this.#lineBytes >= 4 && line[0] === 0x65 && line[1] === 0x6f && line[2] === 0x63 && line[3] === 0x3a; // eoc:
  }

  #take(line: Uint8Array): FlowInput {
    const colon = line.indexOf(0x3a);
    if (colon < 0) return { kind: "closed" };
    let name: string;
    let value: string;
    try {
      name = this.#text.decode(line.subarray(0, colon));
      value = this.#text.decode(line.subarray(colon + 1));
    } catch {
      return { kind: "refused", reply: "FAIL: line is not UTF-8" };
    }
    const isTaken = PARAMETERS.includes(name) && (!this.#params.has(name) || LAST_WINS.includes(name));
    if (isTaken) this.#params.set(name, value);
    return MORE;
  }
}

function tooLong(what: "line" | "request", bytes: number): FlowInput {
  return { kind: "refused", reply: `FAIL: ${what} too long; at most ${bytes} bytes` };
}
