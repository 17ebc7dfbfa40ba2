import type { Prefix } from "#model";
import { MINIMAL_HEADER } from "./byte-match.js";
import type { PortRange } from "./ports.js";
import { ANY_PORTS, CLASS_PING, CLASS_SCTP, CLASS_TCP, CLASS_UDP, CLASSES, NO_PORTS } from "./program.js";
import type { FlowRule } from "./rule.js";
import type { BitString } from "./trie.js";

/** What packets are told apart by, in the order in which the decision graph asks. */
export const DESTINATION = 0;
export const PROTOCOL = 1;
export const DPORT = 2;
export const SOURCE = 3;
export const SPORT = 4;
export const DIMENSIONS = 5;

export const ALL_CLASSES = (1 << CLASSES) - 1;
const PROTOCOL_NUMBERS = { tcp: 6, udp: 17, sctp: 132 } as const;
const PROTOCOL_CLASSES = { tcp: CLASS_TCP, udp: CLASS_UDP, sctp: CLASS_SCTP } as const;
/** The 96 bits before an IPv4 address. */
const MAPPED = [0, 0, 0xffff] as const;
const MAPPED_BITS = 96;

/** A rule as the compiler wants it; made once per rule object. */
export type RuleCode = {
  readonly rule: FlowRule;
  /** Bit d: the rule asks for something in dimension d. */
  readonly asks: number;
  /** Bit set of the protocol classes whose packets can match; pings always can. */
  readonly classes: number;
  /** What it asks for by dimension, to tell equal ones. */
  readonly texts: readonly string[];
  /** Prefixes per family; null = any address of that family, an empty list = none. */
  readonly destinations: AddressCode;
  readonly sources: AddressCode;
  /** For rules with one IPv4 prefix: the comparison of the address's last word that tells whether it is inside. */
  readonly check4: { readonly destination: WordCheck | null; readonly source: WordCheck | null };
  /** The ports as an entry has them, or null where they are several ranges. */
  readonly dports: number | null;
  readonly sports: number | null;
  /** Byte matches: n × (protocol, offset, size, mask, value, minimal header). */
  readonly matches: readonly number[];
  /** The rule takes every packet that gets there, so none behind it is asked. */
  readonly isLast: boolean;
};
/** A comparison that an entry makes: (key word & mask) = value. */
export type WordCheck = { readonly keyWord: number; readonly mask: number; readonly value: number };
export type AddressCode = { readonly 4: readonly BitString[] | null; readonly 6: readonly BitString[] | null };

const known = new WeakMap<FlowRule, RuleCode>();

/** The code of a rule; a rule object must not be changed. */
export function codeOf(rule: FlowRule): RuleCode {
  const before = known.get(rule);
  if (before !== undefined) return before;
  const code = encode(rule);
  known.set(rule, code);
  return code;
}

function encode(rule: FlowRule): RuleCode {
  const { protocols, destinations, sources, destinationPorts, sourcePorts, byteMatches } = rule;
  const bit = (asks: boolean, dimension: number) => (asks ? 1 << dimension : 0);
  const toCode = addressCode(destinations);
  const fromCode = addressCode(sources);
  return {
    rule,
    asks:
      bit(destinations.length > 0, DESTINATION) |
      bit(protocols.length > 0, PROTOCOL) |
      bit(destinationPorts !== null, DPORT) |
      bit(sources.length > 0, SOURCE) |
      bit(sourcePorts !== null, SPORT),
    classes:
      protocols.length === 0
        ? ALL_CLASSES
        : protocols.reduce((set, protocol) => set | (1 << PROTOCOL_CLASSES[protocol]), 1 << CLASS_PING),
    texts: [textOf(toCode), protocols.join(), portText(destinationPorts), textOf(fromCode), portText(sourcePorts)],
    destinations: toCode,
    sources: fromCode,
    check4: { destination: checkOf(toCode, 7), source: checkOf(fromCode, 3) },
    dports: portCode(destinationPorts),
    sports: portCode(sourcePorts),
    matches: byteMatches.flatMap(({ protocol, offset, size, mask, value }) => [
      PROTOCOL_NUMBERS[protocol],
      offset,
      size,
      mask | 0,
      value | 0,
      MINIMAL_HEADER[protocol],
    ]),
    isLast: rule.target !== "" && byteMatches.length === 0,
  };
}

function portCode(ranges: readonly PortRange[] | null): number | null {
  if (ranges === null) return ANY_PORTS;
  if (ranges.length > 1) return null;
  return ranges.length === 0 ? NO_PORTS : (ranges[0]!.first << 16) | ranges[0]!.last;
}

function addressCode(prefixes: readonly Prefix[]): AddressCode {
  if (prefixes.length === 0) return { 4: null, 6: null };
  const strings = prefixes.map(bitString);
  const mapped = strings.filter(meetsIpv4);
  return {
    4: mapped.some(({ bits }) => bits <= MAPPED_BITS) ? null : mapped,
    6: strings.some(({ bits }) => bits === 0) ? null : strings,
  };
}

/** One text for equal lists of prefixes. */
function textOf({ 6: prefixes }: AddressCode): string {
  return prefixes === null ? "any" : prefixes.map(({ words, bits }) => `${words.join()}/${bits}`).join(" ");
}

function portText(ranges: readonly PortRange[] | null): string {
  return ranges === null ? "any" : ranges.map(({ first, last }) => `${first}-${last}`).join();
}

function checkOf({ 4: prefixes }: AddressCode, keyWord: number): WordCheck | null {
  if (prefixes === null || prefixes.length !== 1) return null;
  const { words, bits } = prefixes[0]!;
  return { keyWord, mask: -1 << (128 - bits), value: words[3]! | 0 };
}

function bitString({ address, bits }: Prefix): BitString {
  const view = new DataView(address.buffer, address.byteOffset, 16);
  return { words: [view.getUint32(0), view.getUint32(4), view.getUint32(8), view.getUint32(12)], bits };
}

/** Whether a prefix contains IPv4 addresses at all: it does not differ from ::ffff:0:0 within its length. */
function meetsIpv4({ words, bits }: BitString): boolean {
  return MAPPED.every((word, i) => {
    const kept = Math.min(32, Math.max(0, bits - i * 32));
    return kept === 0 || ((words[i]! ^ word) & (-1 << (32 - kept))) === 0;
  });
}

/** Ranges of a port dimension; null = any. */
export function portsOf({ rule }: RuleCode, dimension: number): readonly PortRange[] | null {
  return dimension === DPORT ? rule.destinationPorts : rule.sourcePorts;
}

/** First depth of an address trie, in bits: IPv4 packets need not be asked for the mapped prefix. */
export function firstBit(family: 4 | 6): number {
  return family === 4 ? MAPPED_BITS : 0;
}

/** Whether `earlier` asks, in each dimension of the set, for nothing that `later` does not ask for. May say no in vain. */
export function covers(earlier: RuleCode, later: RuleCode, dimensions: number): boolean {
  if (((dimensions >> PROTOCOL) & 1) === 1 && (later.classes & ~earlier.classes) !== 0) return false;
  for (const dimension of [DESTINATION, SOURCE, DPORT, SPORT]) {
    if (((dimensions & earlier.asks) >> dimension) & 1) {
      if (earlier.texts[dimension] !== later.texts[dimension] && !containsPorts(earlier, later, dimension))
        return false;
    }
  }
  return true;
}

/** Whether the ports of `later` are within the one range of `earlier`. */
function containsPorts(earlier: RuleCode, later: RuleCode, dimension: number): boolean {
  if (dimension !== DPORT && dimension !== SPORT) return false;
  const [range, ...more] = portsOf(earlier, dimension) ?? [];
  const ranges = portsOf(later, dimension);
  if (range === undefined || more.length > 0 || ranges === null) return false;
  return ranges.every(({ first, last }) => range.first <= first && last <= range.last);
}
