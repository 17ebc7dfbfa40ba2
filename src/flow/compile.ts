import type { Prefix } from "#model";
import { MINIMAL_HEADER } from "./byte-match.js";
import type { PortRange } from "./ports.js";
import {
  CLASS_PING,
  CLASS_SCTP,
  CLASS_TCP,
  CLASS_UDP,
  CLASSES,
  DESTINATION_PORT,
  HEADER_ROOT4,
  HEADER_ROOT6,
  HEADER_RULES,
  HEADER_WORDS,
  MAX_PROGRAM_WORDS,
  NODE_FULL,
  NODE_LEAF,
  NODE_PAGE,
  NODE_PORT_SEARCH,
  NODE_PORT_TABLE,
  NODE_PROTOCOL,
  reference,
  SOURCE_PORT,
} from "./program.js";
import type { FlowRule } from "./rule.js";
import { buildTrie } from "./trie.js";
import { WordWriter } from "./word-writer.js";

const PROTOCOL_NUMBERS = { tcp: 6, udp: 17, sctp: 132 } as const;
const PROTOCOL_CLASSES = { tcp: CLASS_TCP, udp: CLASS_UDP, sctp: CLASS_SCTP } as const;
const ALL_CLASSES = (1 << CLASSES) - 1;
/** Up to so many intervals a port node searches; above it looks up in two steps. */
const SEARCHED_INTERVALS = 3;
/** Words that the decision graph may take, 16 MiB; what would go beyond becomes a list of whole rules. */
const MAX_WORDS = 4 << 20;

/** Dimensions in the order in which the graph asks them. */
const DESTINATION = 0;
const PROTOCOL = 1;
const DPORT = 2;
const SOURCE = 3;
const SPORT = 4;
const DONE = 5;

/** Names of the tables that the rules refer to, in order of first use; leaves hold indices into it. */
export function streamsOf(rules: readonly FlowRule[]): readonly string[] {
  return [...new Set(rules.map(({ target }) => target).filter((target) => target !== ""))];
}

/**
 * Compiles rules into a decision graph whose answer is that of the plain scan in evaluation order.
 *
 * The graph asks destination, protocol, destination port, source, source port, each only where the rules that are still
 * possible differ in it. Equal sets of possible rules share a node; a set ends behind its first rule that leaves nothing
 * to ask. A leaf is the list of rules that fit, of which only byte matches and helper rules make it longer than one.
 * Rule sets whose graph would grow beyond 16 MiB get lists of whole rules where the room ran out: right, but slower.
 *
 * @param rules in evaluation order
 * @param slots counter slot of each rule
 * @throws {RangeError} rules and slots differ in length, or the rules alone exceed 32 MiB
 */
export function compile(rules: readonly FlowRule[], slots: readonly number[]): Int32Array {
  if (rules.length !== slots.length) throw new RangeError(`compile: ${rules.length} rules, ${slots.length} slots`);
  return new Compiler(rules, slots).compile();
}

class Compiler {
  readonly #rules: readonly FlowRule[];
  readonly #slots: readonly number[];
  readonly #words = new WordWriter();
  /** Each rule as leaves list it, see ENTRY_*. */
  #entries: readonly (readonly number[])[] = [];
  /** Per dimension and kind of packet: nodes by the set of rules they decide among. */
  readonly #memo = new Map<string, number>();

  constructor(rules: readonly FlowRule[], slots: readonly number[]) {
    this.#rules = rules;
    this.#slots = slots;
  }

  compile(): Int32Array {
    const words = this.#words;
    words.reserve(HEADER_WORDS);
    words.set(HEADER_RULES, this.#rules.length);
    this.#writeTests();
    const all = this.#rules.map((_, rule) => rule);
    words.set(HEADER_ROOT4, this.#addressNode(all, DESTINATION, false, 4));
    words.set(HEADER_ROOT6, this.#addressNode(all, DESTINATION, false, 6));
    if (words.length > MAX_PROGRAM_WORDS)
      throw new RangeError(`compile: ${words.length} words for ${this.#rules.length} rules`);
    return words.finish();
  }

  #writeTests(): void {
    const streams = new Map(streamsOf(this.#rules).map((name, index) => [name, index]));
    this.#entries = this.#rules.map((rule, index) => [
      index,
      streams.get(rule.target) ?? -1,
      this.#slots[index]!,
      rule.udpEncapPort,
      this.#writeMatches(rule),
      this.#writeWhole(rule),
    ]);
  }

  #writeMatches({ byteMatches }: FlowRule): number {
    if (byteMatches.length === 0) return 0;
    const tests = byteMatches.flatMap(({ protocol, offset, size, mask, value }) => [
      PROTOCOL_NUMBERS[protocol],
      offset,
      size,
      mask | 0,
      value | 0,
      MINIMAL_HEADER[protocol],
    ]);
    return this.#words.append([byteMatches.length, ...tests]);
  }

  #writeWhole(rule: FlowRule): number {
    const prefixes = (list: readonly Prefix[]) => [list.length, ...list.flatMap(prefixWords)];
    const ports = (list: readonly PortRange[] | null) =>
      list === null ? [0] : [list.length === 0 ? -1 : list.length, ...list.flatMap(({ first, last }) => [first, last])];
    return this.#words.append([
      classesOf(rule),
      ...prefixes(rule.destinations),
      ...prefixes(rule.sources),
      ...ports(rule.destinationPorts),
      ...ports(rule.sourcePorts),
    ]);
  }

  /** Node that decides among `candidates` from `dimension` on. `isPing`: ports, protocol and bytes do not matter. */
  #node(candidates: readonly number[], dimension: number, isPing: boolean, family: 4 | 6): number {
    const possible = this.#cut(candidates, dimension, isPing);
    const next = this.#nextDimension(possible, dimension, isPing);
    const memoKey = `${next}${isPing ? "p" : ""}${family}:${possible.join()}`;
    const known = this.#memo.get(memoKey);
    if (known !== undefined) return known;
    const node = this.#build(possible, next, isPing, family);
    this.#memo.set(memoKey, node);
    return node;
  }

  #build(possible: readonly number[], dimension: number, isPing: boolean, family: 4 | 6): number {
    if (dimension === DONE) return this.#list(NODE_LEAF, possible);
    if (this.#words.length > MAX_WORDS) return this.#list(NODE_FULL, possible);
    if (dimension === PROTOCOL) return this.#protocolNode(possible, family);
    if (dimension === DPORT || dimension === SPORT) return this.#portNode(possible, dimension, isPing, family);
    return this.#addressNode(possible, dimension, isPing, family);
  }

  #list(type: number, rules: readonly number[]): number {
    return reference(type, 0, this.#words.append([rules.length, ...rules.flatMap((rule) => this.#entries[rule]!)]));
  }

  /** The rules up to the first one that leaves nothing to ask: those behind it can never be reached. */
  #cut(candidates: readonly number[], dimension: number, isPing: boolean): readonly number[] {
    const last = candidates.findIndex((index) => {
      const rule = this.#rules[index]!;
      if (rule.target === "" || (rule.byteMatches.length > 0 && !isPing)) return false;
      for (let d = dimension; d < DONE; d++)
        if (!isAny(rule, d) && !(isPing && d !== DESTINATION && d !== SOURCE)) return false;
      return true;
    });
    return last < 0 ? candidates : candidates.slice(0, last + 1);
  }

  /** The first dimension from `dimension` on in which a rule of the set asks for something. */
  #nextDimension(possible: readonly number[], dimension: number, isPing: boolean): number {
    for (let d = dimension; d < DONE; d++) {
      if (isPing && d !== DESTINATION && d !== SOURCE) continue;
      if (d === PROTOCOL && possible.some((index) => hasTransportTest(this.#rules[index]!))) return d;
      if (d !== PROTOCOL && possible.some((index) => !isAny(this.#rules[index]!, d))) return d;
    }
    return DONE;
  }

  #addressNode(possible: readonly number[], dimension: number, isPing: boolean, family: 4 | 6): number {
    const prefixesOf = (index: number) =>
      dimension === DESTINATION ? this.#rules[index]!.destinations : this.#rules[index]!.sources;
    return buildTrie({
      candidates: possible,
      prefixesOf,
      family,
      keyStart: dimension === DESTINATION ? 16 : 0,
      words: this.#words,
      isFull: () => this.#words.length > MAX_WORDS,
      list: (rules) => this.#list(NODE_FULL, rules),
      next: (candidates) => this.#node(candidates, dimension + 1, isPing, family),
    });
  }

  #protocolNode(possible: readonly number[], family: 4 | 6): number {
    const children: number[] = [];
    for (let protocolClass = 0; protocolClass < CLASSES; protocolClass++) {
      const fitting = possible.filter((index) => ((classesOf(this.#rules[index]!) >> protocolClass) & 1) === 1);
      children.push(this.#node(fitting, PROTOCOL + 1, protocolClass === CLASS_PING, family));
    }
    return reference(NODE_PROTOCOL, 0, this.#words.append(children));
  }

  #portNode(possible: readonly number[], dimension: number, isPing: boolean, family: 4 | 6): number {
    const rangesOf = (index: number) =>
      dimension === DPORT ? this.#rules[index]!.destinationPorts : this.#rules[index]!.sourcePorts;
    const which = dimension === DPORT ? DESTINATION_PORT : SOURCE_PORT;
    const intervals = portIntervals(possible, rangesOf).map(({ first, candidates }) => ({
      first,
      node: this.#node(candidates, dimension + 1, isPing, family),
    }));
    const distinct = intervals.filter(({ node }, i) => i === 0 || node !== intervals[i - 1]!.node);
    if (distinct.length <= SEARCHED_INTERVALS) {
      const rest = distinct.slice(1).flatMap(({ first, node }) => [first, node]);
      return reference(NODE_PORT_SEARCH, which, this.#words.append([distinct.length, distinct[0]!.node, ...rest]));
    }
    return this.#portTable(which, distinct);
  }

  #portTable(which: number, intervals: readonly { first: number; node: number }[]): number {
    const nodes = new Int32Array(65_536);
    for (const [i, { first, node }] of intervals.entries()) nodes.fill(node, first, intervals[i + 1]?.first ?? 65_536);
    const pages = new Map<string, number>();
    const top: number[] = [];
    for (let start = 0; start < 65_536; start += 256) {
      const content = nodes.subarray(start, start + 256);
      if (content.every((node) => node === content[0])) {
        top.push(content[0]!);
        continue;
      }
      const text = content.join();
      const page = pages.get(text) ?? reference(NODE_PAGE, 0, this.#words.append([...content]));
      pages.set(text, page);
      top.push(page);
    }
    return reference(NODE_PORT_TABLE, which, this.#words.append(top));
  }
}

/** The elementary intervals of ports 0…65535 with the rules possible in each, in order; a sweep over all bounds. */
function portIntervals(
  possible: readonly number[],
  rangesOf: (index: number) => readonly PortRange[] | null,
): { first: number; candidates: readonly number[] }[] {
  const changes = new Map<number, { enter: number[]; leave: number[] }>([[0, { enter: [], leave: [] }]]);
  const at = (port: number) => {
    const known = changes.get(port) ?? { enter: [], leave: [] };
    changes.set(port, known);
    return known;
  };
  for (const index of possible) {
    const ranges = rangesOf(index);
    if (ranges === null) at(0).enter.push(index);
    for (const { first, last } of ranges ?? []) {
      at(first).enter.push(index);
      if (last < 65_535) at(last + 1).leave.push(index);
    }
  }
  const present = new Set<number>();
  return [...changes]
    .sort(([a], [b]) => a - b)
    .map(([first, { enter, leave }]) => {
      for (const index of leave) present.delete(index);
      for (const index of enter) present.add(index);
      return { first, candidates: [...present].sort((a, b) => a - b) };
    });
}

function isAny(rule: FlowRule, dimension: number): boolean {
  if (dimension === DESTINATION) return rule.destinations.length === 0;
  if (dimension === PROTOCOL) return rule.protocols.length === 0;
  if (dimension === DPORT) return rule.destinationPorts === null;
  if (dimension === SOURCE) return rule.sources.length === 0;
  return rule.sourcePorts === null;
}

/** Whether the rule looks behind the addresses; only then pings are different from other packets. */
function hasTransportTest(rule: FlowRule): boolean {
  return !isAny(rule, PROTOCOL) || !isAny(rule, DPORT) || !isAny(rule, SPORT) || rule.byteMatches.length > 0;
}

/** Bit set of the protocol classes whose packets can match; pings always can. */
function classesOf({ protocols }: FlowRule): number {
  if (protocols.length === 0) return ALL_CLASSES;
  return protocols.reduce((set, protocol) => set | (1 << PROTOCOL_CLASSES[protocol]), 1 << CLASS_PING);
}

function prefixWords({ address, bits }: Prefix): number[] {
  const view = new DataView(address.buffer, address.byteOffset, 16);
  return [view.getInt32(0), view.getInt32(4), view.getInt32(8), view.getInt32(12), bits];
}
