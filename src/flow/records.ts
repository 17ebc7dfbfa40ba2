import type { PrefixList } from "./prefix-list.js";
import {
  CONTROL_ASKS_SHIFT,
  CONTROL_ENCAP_SHIFT,
  CONTROL_IS_HELPER,
  CONTROL_RANGES_SHIFT,
  LONG_DESTINATION4,
  LONG_DESTINATION6,
  LONG_DPORTS,
  LONG_MATCHES,
  LONG_SOURCE4,
  LONG_SOURCE6,
  LONG_SPORTS,
  LONG_WORDS,
  MAX_RANGES,
  NODE_RULE,
  OPEN_DESTINATION,
  OPEN_DPORT,
  OPEN_MATCHES,
  OPEN_SHIFT,
  OPEN_SOURCE,
  OPEN_SPORT,
  RECORD_CONTROL,
  RECORD_DESTINATION_MASK,
  RECORD_DPORTS,
  RECORD_LONG,
  RECORD_RANGES,
  RECORD_SHIFT,
  RECORD_SLOT,
  RECORD_SOURCE_MASK,
  RECORD_SPORTS,
  RECORD_STREAM,
  RULE_INDEX_SHIFT,
  recordAt,
} from "./program.js";
import { ADDRESSES, type AddressCode, hullOf, type RuleCode, type View } from "./rule-code.js";
import type { WordWriter } from "./word-writer.js";

const WORDS = 4;
const ALL_BITS = 128;
const MATCH_WORDS = 6;
/** The test of an IPv4 address that none passes: mask, value. */
const NO_ADDRESS = [0, 1] as const;

/** Writes the rules' records, and the lists that tests of them need as soon as a way to the rule leaves that open. */
export class RecordWriter {
  readonly #codes: readonly RuleCode[];
  readonly #words: WordWriter;
  /** By view and rule: for what the rule can be tested, OPEN_*. */
  readonly #prepared: { readonly 4: Uint8Array; readonly 6: Uint8Array };

  /** Writes all records; they come next in `words`, at FIRST_RECORD. */
  constructor(
    codes: readonly RuleCode[],
    slots: readonly number[],
    streams: ReadonlyMap<string, number>,
    words: WordWriter,
  ) {
    this.#codes = codes;
    this.#words = words;
    this.#prepared = { 4: new Uint8Array(codes.length), 6: new Uint8Array(codes.length) };
    words.reserve(codes.length << RECORD_SHIFT);
    for (const [rule, code] of codes.entries()) {
      const at = recordAt(rule);
      const { target, udpEncapPort } = code.rule;
      const ranges = code.dports ?? new Int32Array(0);
      const inRecord = ranges.length > 1 && ranges.length <= MAX_RANGES ? ranges.length : 0;
      // Of one range of destination ports its first and last tell all.
      const asks =
        (code.asks & (ADDRESSES | OPEN_SPORT)) |
        (ranges.length > 1 ? OPEN_DPORT : 0) |
        (code.matches.length > 0 ? OPEN_MATCHES : 0);
      words.set(
        at + RECORD_CONTROL,
        code.classes |
          (target === "" ? CONTROL_IS_HELPER : 0) |
          (asks << CONTROL_ASKS_SHIFT) |
          (inRecord << CONTROL_RANGES_SHIFT) |
          (udpEncapPort << CONTROL_ENCAP_SHIFT),
      );
      words.set(at + RECORD_STREAM, streams.get(target) ?? -1);
      words.set(at + RECORD_SLOT, slots[rule]!);
      words.set(at + RECORD_DPORTS, hullOf(code.dports));
      words.set(at + RECORD_SPORTS, hullOf(code.sports));
      words.put(at + RECORD_DESTINATION_MASK, commonTest(code.destinations[4]));
      words.put(at + RECORD_SOURCE_MASK, commonTest(code.sources[4]));
      for (let i = 0; i < inRecord; i++) words.set(at + RECORD_RANGES + i, ranges[i]!);
    }
  }

  /** The reference to a rule that is still to be tested for what is open (OPEN_*). */
  reference(rule: number, open: number, view: View): number {
    this.prepare(rule, open, view);
    return ((recordAt(rule) >> RECORD_SHIFT) << RULE_INDEX_SHIFT) | (open << OPEN_SHIFT) | NODE_RULE;
  }

  /** Sees to it that the rule can be tested for what is open. */
  prepare(rule: number, open: number, view: View): void {
    const prepared = this.#prepared[view];
    const missing = open & ~prepared[rule]!;
    if (missing === 0) return;
    prepared[rule]! |= missing;
    const { destinations, sources, dports, sports, matches } = this.#codes[rule]!;
    if ((missing & OPEN_DESTINATION) !== 0)
      this.#addresses(rule, destinations, view, LONG_DESTINATION4, LONG_DESTINATION6);
    if ((missing & OPEN_SOURCE) !== 0) this.#addresses(rule, sources, view, LONG_SOURCE4, LONG_SOURCE6);
    if ((missing & OPEN_DPORT) !== 0 && dports !== null && dports.length > MAX_RANGES) {
      this.#list(rule, LONG_DPORTS, [dports.length, ...dports]);
    }
    if ((missing & OPEN_SPORT) !== 0 && sports !== null && sports.length > 1) {
      this.#list(rule, LONG_SPORTS, [sports.length, ...sports]);
    }
    if ((missing & OPEN_MATCHES) !== 0 && matches.length > 0) {
      this.#list(rule, LONG_MATCHES, [matches.length / MATCH_WORDS, ...matches]);
    }
  }

  #addresses(rule: number, { 4: v4, 6: v6 }: AddressCode, view: View, which4: number, which6: number): void {
    if (view === 4 && v4 !== null && v4.count > 1) this.#list(rule, which4, marked(v4));
    if (view === 6 && v6 !== null) this.#list(rule, which6, prefixes(v6));
  }

  /** Writes a list unless that was done for the other view. */
  #list(rule: number, which: number, content: ArrayLike<number>): void {
    const words = this.#words;
    const record = recordAt(rule) + RECORD_LONG;
    if (words.get(record) === 0) words.set(record, words.reserve(LONG_WORDS));
    const at = words.get(record) + which;
    if (words.get(at) === 0) words.set(at, words.append(content));
  }
}

/** A comparison that holds for all IPv4 addresses in the list, and for these alone where it is one prefix: mask, value. */
function commonTest(list: PrefixList | null): readonly [number, number] {
  if (list === null) return [0, 0];
  if (list.count === 0) return NO_ADDRESS;
  const first = list.words[3]!;
  const last = list.words[WORDS * (list.count - 1) + 3]!;
  const shared = list.count === 1 ? list.bits[0]! - 96 : Math.clz32(first ^ last);
  const mask = shared === 0 ? 0 : -1 << (32 - shared);
  return [mask, first & mask];
}

/** What {@link marked} made; most rules are the same the next time. */
const knownMarked = new WeakMap<PrefixList, Int32Array>();

/** IPv4 prefixes as match.ts has them: how many shorter ones and whole addresses; those with a one behind their bits, then these. */
function marked(prefixes: PrefixList): Int32Array {
  const known = knownMarked.get(prefixes);
  if (known !== undefined) return known;
  const { count, words, bits } = prefixes;
  const list = new Int32Array(2 + count);
  for (const isWhole of [0, 1]) {
    let at = 2 + (isWhole === 1 ? list[0]! : 0);
    for (let i = 0; i < count; i++) {
      if (Number(bits[i] === ALL_BITS) !== isWhole) continue;
      list[at++] = words[WORDS * i + 3]! | (isWhole === 1 ? 0 : 2 ** (ALL_BITS - 1 - bits[i]!));
      list[isWhole]!++;
    }
  }
  knownMarked.set(prefixes, list);
  return list;
}

/** n × (4 words, bits) behind n. */
function prefixes({ count, words, bits }: PrefixList): Int32Array {
  const list = new Int32Array(1 + (WORDS + 1) * count);
  list[0] = count;
  for (let i = 0; i < count; i++) {
    for (let k = 0; k < WORDS; k++) list[1 + (WORDS + 1) * i + k] = words[WORDS * i + k]!;
    list[1 + (WORDS + 1) * i + WORDS] = bits[i]!;
  }
  return list;
}
