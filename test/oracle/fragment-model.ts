// What becomes of fragments, written a second time from RFC 791, RFC 815 and RFC 8200 and the rules of decisions 0016 to
// 0018, slowly: maps, arrays and sets of units, nothing shared, nothing reused.

export type ModelOptions = {
  /** Records at most; 0 = no bound (then forgetful only, because it matters which complete record is reused first). */
  readonly records: number;
  readonly lifetimeMs: number;
  readonly isForgetful: boolean;
  /** Fragments held at most, 0 = none, and the longest. */
  readonly slots: number;
  readonly slotBytes: number;
  readonly share: number;
  /** How long a source is trusted after fragments of it were released. */
  readonly trustMs: number;
  /** Which sources count as one: a number per source address in hex. */
  readonly sourceOf: (source: string) => number;
  readonly fwmarkOf: (fragment: Uint8Array) => number;
};

type Record = {
  key: string;
  fwmark: number;
  deadline: number;
  units: Set<number>;
  total: number;
  state: "open" | "lost" | "done";
};
type Held = { key: string; source: number; isTrusted: boolean; bytes: string; deadline: number };
/** What one worker holds, the sources beyond their share in the order in which they went beyond it, whom it trusts when last. */
type Pool = { held: Held[]; greedy: number[]; trusted: Map<number, number> };
export type Answer = { readonly fwmark: number; readonly isHeld: boolean; readonly reinjected: readonly string[] };

/** The most runs of units that a record tells apart. */
const MOST_RUNS = 13;

type Parsed = {
  key: string;
  source: string;
  from: number;
  to: number;
  isFirst: boolean;
  isLast: boolean;
  bytes: number;
};

const hex = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");
const word = (bytes: Uint8Array, at: number) => bytes[at]! * 256 + bytes[at + 1]!;

/** A fragment, by the book; the generator makes no IPv6 extension headers but the Fragment header and options before it. */
function parseFragment(packet: Uint8Array, is4: boolean): Parsed {
  if (is4) {
    const offset = (word(packet, 6) % 8192) * 8;
    const isLast = Math.floor(packet[6]! / 32) % 2 === 0;
    const length = Math.max(0, word(packet, 2) - (packet[0]! % 16) * 4);
    return parsed(
      `4 ${hex(packet.slice(12, 20))} ${word(packet, 4)} ${packet[9]}`,
      hex(packet.slice(12, 16)),
      offset,
      length,
      isLast,
      word(packet, 2),
    );
  }
  let at = 40;
  let next = packet[6]!;
  while (next !== 44) {
    next = packet[at]!;
    at += (packet[at + 1]! + 1) * 8;
  }
  const total = word(packet, 4) + 40;
  const field = word(packet, at + 2);
  const id = hex(packet.slice(at + 4, at + 8));
  const length = Math.max(0, total - at - 8);
  return parsed(
    `6 ${hex(packet.slice(8, 40))} ${id}`,
    hex(packet.slice(8, 24)),
    Math.floor(field / 8) * 8,
    length,
    field % 2 === 0,
    total,
  );
}

function parsed(key: string, source: string, offset: number, length: number, isLast: boolean, bytes: number): Parsed {
  const units = isLast ? Math.ceil(length / 8) : Math.floor(length / 8);
  return { key, source, from: offset / 8, to: offset / 8 + units, isFirst: offset === 0, isLast, bytes };
}

export class FragmentModel {
  readonly counts = { inserts: 0, completed: 0, held: 0, discarded: 0, cut: 0, stray: 0, displaced: 0 };
  readonly #options: ModelOptions;
  readonly #records: (Record | null)[];
  readonly #pools: readonly Pool[];

  /** @param workers threads that share the records, each with fragments held of its own */
  constructor(options: ModelOptions, workers = 1) {
    this.#options = options;
    this.#pools = Array.from({ length: workers }, () => ({ held: [], greedy: [], trusted: new Map() }));
    this.#records = Array.from({ length: options.records }, () => null);
  }

  get heldNow(): number {
    return this.#pools.reduce((sum, { held }) => sum + held.length, 0);
  }

  /** A first or later fragment comes to a worker; `isReinjected`: it was held before. */
  take(packet: Uint8Array, is4: boolean, nowMs: number, isReinjected: boolean, worker = 0): Answer {
    const pool = this.#pools[worker]!;
    const fragment = parseFragment(packet, is4);
    this.expire(nowMs);
    if (fragment.isFirst) {
      const fwmark = this.#options.fwmarkOf(packet);
      this.#record(fragment, fwmark, nowMs);
      this.#note(fragment, nowMs);
      return { fwmark, isHeld: false, reinjected: this.#release(pool, nowMs, ({ key }) => key === fragment.key) };
    }
    const record = this.#find(fragment.key, nowMs);
    if (record !== null) {
      this.#note(fragment, nowMs);
      return { fwmark: record.fwmark, isHeld: false, reinjected: [] };
    }
    return { fwmark: -1, isHeld: this.#hold(pool, fragment, packet, nowMs, isReinjected), reinjected: [] };
  }

  /** A worker's turn of its loop: what it holds of packets whose first fragment came to another worker goes back. */
  turn(worker: number, nowMs: number): readonly string[] {
    this.expire(nowMs);
    return this.#release(this.#pools[worker]!, nowMs, ({ key }) => this.#find(key, nowMs) !== null);
  }

  expire(nowMs: number): void {
    for (const pool of this.#pools)
      for (const held of pool.held.filter(({ deadline }) => deadline < nowMs)) this.#discard(pool, held);
  }

  #find(key: string, nowMs: number): Record | null {
    return this.#records.find((record) => record?.key === key && record.deadline >= nowMs) ?? null;
  }

  #record({ key }: Parsed, fwmark: number, nowMs: number): void {
    const fresh: Record = {
      key,
      fwmark,
      deadline: nowMs + this.#options.lifetimeMs,
      units: new Set(),
      total: 0,
      state: "open",
    };
    const old = this.#find(key, nowMs);
    if (old !== null) {
      this.#records[this.#records.indexOf(old)] = fresh;
      return;
    }
    this.counts.inserts++;
    let place = this.#records.findIndex(
      (record) => record === null || record.deadline < nowMs || record.state === "done",
    );
    if (place < 0 && this.#options.records === 0) place = this.#records.length;
    if (place < 0) {
      const oldest = Math.min(...this.#records.map((record) => record!.deadline));
      place = this.#records.findIndex((record) => record!.deadline === oldest);
      this.counts.displaced++;
    }
    this.#records[place] = fresh;
  }

  /** RFC 815: the packet is complete when its end is known and no unit before it is missing. */
  #note({ key, from, to, isLast }: Parsed, nowMs: number): void {
    const record = this.#find(key, nowMs);
    if (record === null || record.state !== "open") return;
    if (record.total !== 0 && (isLast ? to !== record.total : to > record.total)) record.state = "lost";
    for (let unit = from; unit < to; unit++) record.units.add(unit);
    if (isLast) record.total = to;
    const units = [...record.units].sort((a, b) => a - b);
    if (isLast && units.length > 0 && units.at(-1)! >= to) record.state = "lost";
    if (units.filter((unit, i) => i === 0 || units[i - 1] !== unit - 1).length > MOST_RUNS) record.state = "lost";
    if (record.state === "lost" || record.total === 0 || record.units.size !== record.total) return;
    this.counts.completed++;
    if (this.#options.isForgetful) this.#records[this.#records.indexOf(record)] = null;
    else record.state = "done";
  }

  #hold(pool: Pool, fragment: Parsed, packet: Uint8Array, nowMs: number, isReinjected: boolean): boolean {
    const { key, source, bytes } = fragment;
    const { slots, slotBytes, lifetimeMs } = this.#options;
    if (slots === 0) return false;
    if (isReinjected) {
      this.counts.stray++;
      return false;
    }
    if (bytes > packet.length || bytes > slotBytes) {
      this.counts.cut++;
      return false;
    }
    if (pool.held.length === slots) {
      const greedy = pool.greedy[0];
      const isTrustedTurn = pool.held.filter(({ isTrusted }) => isTrusted).length > slots / 2;
      const isNext = (held: Held) => (greedy === undefined ? held.isTrusted === isTrustedTurn : held.source === greedy);
      this.#discard(pool, pool.held.find(isNext)!);
    }
    const number = this.#options.sourceOf(source);
    const isTrusted = (pool.trusted.get(number) ?? Number.NEGATIVE_INFINITY) >= nowMs;
    const copy = hex(packet.slice(0, bytes));
    pool.held.push({ key, source: number, isTrusted, bytes: copy, deadline: nowMs + lifetimeMs });
    this.counts.held++;
    this.#updateGreedy(pool, number);
    return true;
  }

  #release(pool: Pool, nowMs: number, isWanted: (held: Held) => boolean): string[] {
    const released = pool.held.filter(isWanted);
    for (const held of released) {
      this.#remove(pool, held);
      pool.trusted.set(held.source, nowMs + this.#options.trustMs);
    }
    return released.map(({ bytes }) => bytes);
  }

  #discard(pool: Pool, held: Held): void {
    this.counts.discarded++;
    this.#remove(pool, held);
  }

  #remove(pool: Pool, held: Held): void {
    pool.held = pool.held.filter((other) => other !== held);
    this.#updateGreedy(pool, held.source);
  }

  #updateGreedy(pool: Pool, source: number): void {
    const isGreedy = pool.held.filter((held) => held.source === source).length > this.#options.share;
    if (!isGreedy) pool.greedy = pool.greedy.filter((other) => other !== source);
    else if (!pool.greedy.includes(source)) pool.greedy.push(source);
  }
}
