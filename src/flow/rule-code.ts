import { MINIMAL_HEADER } from "./byte-match.js";
import type { PortRange } from "./ports.js";
import { mappedPart, type PrefixList, prefixList, textOf, withoutPart } from "./prefix-list.js";
import { ANY_PORTS, CLASS_PING, CLASS_SCTP, CLASS_TCP, CLASS_UDP, CLASSES, NO_PORTS } from "./program.js";
import type { FlowRule } from "./rule.js";

/** What packets are told apart by; 1 << dimension is what OPEN_* in program.ts says. */
export const DESTINATION = 0;
export const SOURCE = 1;
export const DPORT = 2;
export const SPORT = 3;
export const PROTOCOL = 4;
export const DIMENSIONS = 5;
export const ADDRESSES = (1 << DESTINATION) | (1 << SOURCE);

const ALL_CLASSES = (1 << CLASSES) - 1;
const PROTOCOL_NUMBERS = { tcp: 6, udp: 17, sctp: 132 } as const;
const PROTOCOL_CLASSES = { tcp: CLASS_TCP, udp: CLASS_UDP, sctp: CLASS_SCTP } as const;

/** Words of a byte match that say which field it is about. */
const FIELD_WORDS = 4;

/**
 * Which packets are looked at: 4 those with IPv4 addresses, be they IPv6 packets with mapped ones; 6 all others. Where no rule
 * asks for sources the destination alone decides.
 */
export type View = 4 | 6;

/** A rule as the compiler wants it; made once per rule object. */
export type RuleCode = {
  readonly rule: FlowRule;
  /** Bit d: the rule asks for something in dimension d. */
  readonly asks: number;
  /** Bit set of the protocol classes whose packets can match; pings always can. */
  readonly classes: number;
  /** Whether a packet of that view can match at all. */
  readonly views: { readonly 4: boolean; readonly 6: boolean };
  /** What it asks for by dimension, to tell equal ones. */
  readonly texts: readonly string[];
  readonly destinations: AddressCode;
  readonly sources: AddressCode;
  /** Ranges of ports, first << 16 | last, ascending and disjoint; null = any. */
  readonly dports: Int32Array | null;
  readonly sports: Int32Array | null;
  /** Byte matches: n × (protocol, offset, size, mask, value, minimal header). */
  readonly matches: readonly number[];
  /** The fields that the byte matches are about. */
  readonly fields: readonly FieldTest[];
  /** The rule takes every packet that gets there, so none behind it is asked. */
  readonly isLast: boolean;
};
/** A field of the L4 header as byte matches ask for it, whatever the value; `match` is such a byte match. */
export type FieldTest = { readonly key: string; readonly match: readonly number[] };
/** Prefixes by view; null = any address, an empty list = none. `native`: those of view 6 that are not within ::ffff:0:0/96. */
export type AddressCode = {
  readonly 4: PrefixList | null;
  readonly 6: PrefixList | null;
  readonly native: PrefixList | null;
  readonly text: string;
};

const known = new WeakMap<FlowRule, RuleCode>();
/** Many rules have the same list of VIPs; where it is the same object they have one code. */
const knownAddresses = new WeakMap<FlowRule["sources"], AddressCode>();

/** The code of a rule; a rule object must not be changed, nor its lists. */
export function codeOf(rule: FlowRule): RuleCode {
  const before = known.get(rule);
  if (before !== undefined) return before;
  const code = encode(rule);
  known.set(rule, code);
  return code;
}

function encode(rule: FlowRule): RuleCode {
  const { protocols, destinationPorts, sourcePorts, byteMatches } = rule;
  const bit = (asks: boolean, dimension: number) => (asks ? 1 << dimension : 0);
  const destinations = addressCode(rule.destinations);
  const sources = addressCode(rule.sources);
  const matches = byteMatches.map(({ protocol, offset, size, mask, value }) => [
    PROTOCOL_NUMBERS[protocol],
    offset,
    size,
    mask | 0,
    value | 0,
    MINIMAL_HEADER[protocol],
  ]);
  return {
    rule,
    asks:
      bit(rule.destinations.length > 0, DESTINATION) |
      bit(rule.sources.length > 0, SOURCE) |
      bit(destinationPorts !== null, DPORT) |
      bit(sourcePorts !== null, SPORT) |
      bit(protocols.length > 0, PROTOCOL),
    classes:
      protocols.length === 0
        ? ALL_CLASSES
        : protocols.reduce((set, protocol) => set | (1 << PROTOCOL_CLASSES[protocol]), 1 << CLASS_PING),
    views: {
      4: destinations[4]?.count !== 0 && sources[4]?.count !== 0,
      6: !(isMappedOnly(destinations) && isMappedOnly(sources)),
    },
    texts: [destinations.text, sources.text, portText(destinationPorts), portText(sourcePorts)],
    destinations,
    sources,
    dports: portCode(destinationPorts),
    sports: portCode(sourcePorts),
    matches: matches.flat(),
    fields: matches.map((match) => ({ key: match.slice(0, FIELD_WORDS).join(), match })),
    isLast: rule.target !== "" && byteMatches.length === 0,
  };
}

function portCode(ranges: readonly PortRange[] | null): Int32Array | null {
  return ranges === null ? null : Int32Array.from(ranges, ({ first, last }) => (first << 16) | last);
}

/** The range from the first port of some ranges to their last one. */
export function hullOf(ranges: Int32Array | null): number {
  if (ranges === null) return ANY_PORTS;
  return ranges.length === 0 ? NO_PORTS : (ranges[0]! & ~0xffff) | (ranges[ranges.length - 1]! & 0xffff);
}

/** How many ports there are from a range's first to its last one. */
export function portsIn(range: number): number {
  return Math.max(0, (range & 0xffff) - (range >>> 16) + 1);
}

function addressCode(prefixes: FlowRule["sources"]): AddressCode {
  const before = knownAddresses.get(prefixes);
  if (before !== undefined) return before;
  const code = encodeAddresses(prefixes);
  knownAddresses.set(prefixes, code);
  return code;
}

function encodeAddresses(prefixes: FlowRule["sources"]): AddressCode {
  if (prefixes.length === 0) return { 4: null, 6: null, native: null, text: "" };
  const all = prefixList(prefixes);
  const mapped = mappedPart(all);
  const v6 = all.bits[0] === 0 ? null : all;
  return { 4: mapped, 6: v6, native: v6 === null ? null : withoutPart(v6, mapped), text: textOf(all) };
}

/** Whether one of the rules asks for sources. */
export function asksSources(codes: readonly RuleCode[]): boolean {
  return codes.some(({ asks }) => ((asks >> SOURCE) & 1) === 1);
}

/** Whether a packet of that view can match. @param areSources whether one of the rules asks for sources */
export function canTake({ destinations, views }: RuleCode, view: View, areSources: boolean): boolean {
  return views[view] && (view === 4 || areSources || destinations.native?.count !== 0);
}

/** Whether all its prefixes are of IPv4 addresses. */
function isMappedOnly({ 4: v4, 6: v6 }: AddressCode): boolean {
  return v4 !== null && v6 !== null && v4.count === v6.count;
}

function portText(ranges: readonly PortRange[] | null): string {
  return ranges === null ? "any" : ranges.map(({ first, last }) => `${first}-${last}`).join();
}

/** Ranges of a port dimension; null = any. */
export function portsOf(code: RuleCode, dimension: number): Int32Array | null {
  return dimension === DPORT ? code.dports : code.sports;
}

/** Whether `earlier` asks, in each dimension of the set, for nothing that `later` does not ask for. May say no in vain. */
export function covers(earlier: RuleCode, later: RuleCode, dimensions: number): boolean {
  if (((dimensions >> PROTOCOL) & 1) === 1 && (later.classes & ~earlier.classes) !== 0) return false;
  for (let dimension = DESTINATION; dimension <= SPORT; dimension++) {
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
  return ranges.every((one) => range >>> 16 <= one >>> 16 && (one & 0xffff) <= (range & 0xffff));
}

/** How many prefixes and port ranges a rule has, and one for itself. */
export function asksOf({ destinations, sources, dports, sports }: RuleCode): number {
  return 1 + (destinations[6]?.count ?? 0) + (sources[6]?.count ?? 0) + (dports?.length ?? 0) + (sports?.length ?? 0);
}
