import type { PortRange } from "./ports.js";
import {
  ANY_PORTS,
  CONTROL_ENCAP_SHIFT,
  CONTROL_IS_HELPER,
  CONTROL_IS_LONG,
  CONTROL_KEY_SHIFT,
  ENTRY_CONTROL,
  ENTRY_DPORTS,
  ENTRY_LONG,
  ENTRY_MASK,
  ENTRY_RULE,
  ENTRY_SLOT,
  ENTRY_STREAM,
  ENTRY_VALUE,
  ENTRY_WORDS,
  NODE_LEAF,
  reference,
} from "./program.js";
import {
  type AddressCode,
  ALL_CLASSES,
  DESTINATION,
  DPORT,
  PROTOCOL,
  type RuleCode,
  SOURCE,
  SPORT,
  type WordCheck,
} from "./rule-code.js";
import type { BitString } from "./trie.js";
import type { WordWriter } from "./word-writer.js";

/** What leads to a leaf: a word that it has to compare; `isMatched`: all byte matches of its rules hold. */
type LeafOptions = { readonly check?: WordCheck; readonly isMatched?: boolean };
const NO_CHECK: WordCheck = { keyWord: 0, mask: 0, value: 0 };

const ADDRESSES = (1 << DESTINATION) | (1 << SOURCE);

/** Writes rules as lists and bit sets have them (ENTRY_*). */
export class EntryWriter {
  readonly #codes: readonly RuleCode[];
  readonly #slots: readonly number[];
  readonly #words: WordWriter;
  readonly #streams: ReadonlyMap<string, number>;
  /** Where a rule's byte matches and its whole test are; 0 = not written. */
  readonly #matchesAt: Int32Array;
  readonly #wholeAt: Int32Array;

  constructor(
    codes: readonly RuleCode[],
    slots: readonly number[],
    streams: ReadonlyMap<string, number>,
    words: WordWriter,
  ) {
    this.#codes = codes;
    this.#slots = slots;
    this.#words = words;
    this.#streams = streams;
    this.#matchesAt = new Int32Array(codes.length);
    this.#wholeAt = new Int32Array(codes.length);
  }

  /** A leaf with these rules; `open`: dimensions in which they still have to be tested, as {@link canTest} allows. */
  leaf(rules: readonly number[], open: number, family: 4 | 6, known: LeafOptions = {}): number {
    const at = this.#words.reserve(1 + rules.length * ENTRY_WORDS);
    this.#words.set(at, rules.length);
    for (let i = 0; i < rules.length; i++) {
      const own = (open & ADDRESSES) === 0 ? null : checkToMake(this.#codes[rules[i]!]!, open, family);
      this.write(at + 1 + i * ENTRY_WORDS, rules[i]!, open, { ...known, check: own ?? known.check ?? NO_CHECK });
    }
    return reference(NODE_LEAF, at);
  }

  /** Forgets what was written behind `length`. */
  truncate(length: number): void {
    this.#words.truncate(length);
    for (const at of [this.#matchesAt, this.#wholeAt]) {
      for (let i = 0; i < at.length; i++) if (at[i]! >= length) at[i] = 0;
    }
  }

  /** Writes an entry; `isWhole`: addresses, ports and protocol have to be tested, whatever led there. */
  write(at: number, index: number, open: number, options: LeafOptions & { readonly isWhole?: boolean }): void {
    const { check = NO_CHECK, isMatched = false, isWhole = false } = options;
    const words = this.#words;
    const code = this.#codes[index]!;
    const { rule } = code;
    const sports = (open >> SPORT) & 1 ? (code.sports ?? ANY_PORTS) : ANY_PORTS;
    const hasMatches = code.matches.length > 0 && !isMatched;
    const isLong = isWhole || hasMatches || sports !== ANY_PORTS;
    const control =
      ((open >> PROTOCOL) & 1 ? code.classes : ALL_CLASSES) |
      (rule.target === "" ? CONTROL_IS_HELPER : 0) |
      (isLong ? CONTROL_IS_LONG : 0) |
      (check.keyWord << CONTROL_KEY_SHIFT) |
      (rule.udpEncapPort << CONTROL_ENCAP_SHIFT);
    words.set(at + ENTRY_CONTROL, control);
    words.set(at + ENTRY_RULE, index);
    words.set(at + ENTRY_STREAM, this.#streams.get(rule.target) ?? -1);
    words.set(at + ENTRY_SLOT, this.#slots[index]!);
    words.set(at + ENTRY_DPORTS, (open >> DPORT) & 1 ? (code.dports ?? ANY_PORTS) : ANY_PORTS);
    words.set(at + ENTRY_MASK, check.mask);
    words.set(at + ENTRY_VALUE, check.value);
    words.set(
      at + ENTRY_LONG,
      isLong
        ? this.#long(sports, hasMatches ? this.#matches(index, code) : 0, isWhole ? this.#whole(index, code) : 0)
        : 0,
    );
  }

  #long(sports: number, matches: number, whole: number): number {
    return this.#words.append([sports, matches, whole]);
  }

  #matches(index: number, { matches }: RuleCode): number {
    if (matches.length > 0 && this.#matchesAt[index] === 0) {
      this.#matchesAt[index] = this.#words.append([matches.length / 6, ...matches]);
    }
    return this.#matchesAt[index]!;
  }

  /**
   * Addresses and ports as a test: per family of packets a word index of destinations and sources (0 = any), then the
   * destination and source ports, each list behind its length; a length of 0 is any, -1 none.
   */
  #whole(index: number, code: RuleCode): number {
    if (this.#wholeAt[index] !== 0) return this.#wholeAt[index]!;
    const { destinations, sources, rule } = code;
    const [to, from] = [destinations, sources].map((lists) => {
      const v4 = this.#prefixes(lists[4]);
      return [v4, isSame(lists) ? v4 : this.#prefixes(lists[6])] as const;
    });
    const lists = [to![0], from![0], to![1], from![1]];
    const at = this.#words.append([...lists, ...ports(rule.destinationPorts), ...ports(rule.sourcePorts)]);
    this.#wholeAt[index] = at;
    return at;
  }

  /** n × (4 words, bits) behind n, or 0 for any address. */
  #prefixes(list: readonly BitString[] | null): number {
    if (list === null) return 0;
    return this.#words.append([list.length, ...list.flatMap(({ words, bits }) => [...words, bits])]);
  }
}

/** Whether both families have the same prefixes. */
function isSame({ 4: v4, 6: v6 }: AddressCode): boolean {
  return v4 !== null && v6 !== null && v4.length === v6.length;
}

function ports(ranges: readonly PortRange[] | null): number[] {
  if (ranges === null) return [0];
  return [ranges.length === 0 ? -1 : ranges.length, ...ranges.flatMap(({ first, last }) => [first, last])];
}

/** Whether an entry can hold what the rule asks in the dimensions of the set: a prefix of IPv4, one range of ports. */
export function canTest(code: RuleCode, open: number, family: 4 | 6): boolean {
  const asks = open & code.asks;
  if ((asks >> DPORT) & 1 && code.dports === null) return false;
  if ((asks >> SPORT) & 1 && code.sports === null) return false;
  if ((asks & ADDRESSES) === 0) return true;
  return (asks & ADDRESSES) !== ADDRESSES && checkToMake(code, open, family) !== null;
}

/** The comparison an entry makes for the rule's address, or null when there is none or it takes more than one. */
function checkToMake(code: RuleCode, open: number, family: 4 | 6): WordCheck | null {
  if (family === 6) return null;
  if ((open >> DESTINATION) & 1 && code.check4.destination !== null) return code.check4.destination;
  return (open >> SOURCE) & 1 ? code.check4.source : null;
}
