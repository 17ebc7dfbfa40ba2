// The flow socket a second time: requests read from all their bytes at once, rules kept in a plain list. Written from
// decision 0023 and upstream's words for it, with other means than src/programs and src/flow.
import { isIPv4, isIPv6 } from "node:net";

/** Longest line and longest request, in bytes. */
const LINE_BYTES = 8_192;
const REQUEST_BYTES = 65_536;
const KNOWN = /^(action|name|target|priority|protocols|dsts|srcs|dports|sports|match|udpencap)$/;

export type PlainRequest = Readonly<Record<string, string>>;

/** What a client's bytes are: a request, or one word why they are none. */
export function readRequestPlainly(bytes: Uint8Array): PlainRequest | string {
  const request: Record<string, string> = Object.create(null) as Record<string, string>;
  let from = 0;
  for (;;) {
    const feed = bytes.indexOf(10, from);
    const line = bytes.subarray(from, feed < 0 ? bytes.length : feed);
    const isEnd = line[0] === 0x65 && line[1] === 0x6f && line[2] === 0x63 && line[3] === 0x3a; // eoc:
    const whole = feed < 0 ? bytes.length : feed + 1;
    const isLineFirst = from + LINE_BYTES < REQUEST_BYTES;
    if (line.length > LINE_BYTES && !isEnd && isLineFirst) return "line too long";
    if (!isEnd && whole > REQUEST_BYTES) return "request too long";
    if (isEnd) return from + 4 > REQUEST_BYTES ? "request too long" : request;
    if (feed < 0) return "more";
    if (!line.includes(58)) return "closed";
    const text = Buffer.from(line).toString("utf8");
    if (!Buffer.from(text, "utf8").equals(line)) return "not UTF-8";
    const [name, value] = [text.slice(0, text.indexOf(":")), text.slice(text.indexOf(":") + 1)];
    if (KNOWN.test(name) && (!(name in request) || name === "priority" || name === "udpencap")) request[name] = value;
    from = feed + 1;
  }
}

/** A rule as far as the model tells one from another. */
export type PlainRule = {
  readonly name: string;
  readonly target: string;
  readonly priority: number;
  readonly protocols: readonly string[];
  readonly destinations: number;
  readonly sources: number;
  /** `first-last`, in order; null = any. */
  readonly destinationPorts: readonly string[] | null;
  readonly sourcePorts: readonly string[] | null;
  readonly byteMatches: number;
  readonly udpEncapPort: number;
};

class Refused extends Error {}

/** The rules that requests leave behind. */
export class FlowSocketModel {
  readonly #tables: readonly string[];
  flows: readonly PlainRule[] = [];
  trace: readonly PlainRule[] = [];

  /** @param tables names of the tables there are */
  constructor(tables: readonly string[]) {
    this.#tables = tables;
  }

  /** @returns whether the request is granted; a list that is empty is granted too */
  take(request: PlainRequest): boolean {
    const given = request["action"] ?? "";
    const isTrace = given.startsWith("trace-");
    const action = isTrace ? given.slice(6) : given;
    const name = request["name"];
    if (action === "list" || action === "list-names") return true;
    const before = isTrace ? this.trace : this.flows;
    try {
      if (action === "set") this.#keep(isTrace, this.#set(before, plainRule(request, isTrace), isTrace));
      else if (action === "delete" && name !== undefined && /^[^#]/.test(name)) {
        const rules = before.filter((rule) => rule.name !== name && rule.name !== `#${name}`);
        this.#keep(isTrace, rules);
      } else return false;
      return true;
    } catch (error) {
      if (error instanceof Refused) return false;
      throw error;
    }
  }

  #keep(isTrace: boolean, rules: readonly PlainRule[]): void {
    if (isTrace) this.trace = rules;
    else this.flows = rules;
  }

  #set(before: readonly PlainRule[], rule: PlainRule, isTrace: boolean): readonly PlainRule[] {
    if (!isTrace && !this.#tables.includes(rule.target)) throw new Refused();
    const old = before.find(({ name }) => name === rule.name);
    if (old !== undefined && old.udpEncapPort !== rule.udpEncapPort) throw new Refused();
    let rules = before;
    const put = (one: PlainRule) => {
      const isThere = rules.some(({ name }) => name === one.name);
      const changed = isThere ? rules.map((other) => (other.name === one.name ? one : other)) : [...rules, one];
      rules = changed.toSorted((a, b) => b.priority - a.priority);
    };
    const port = `${rule.udpEncapPort}-${rule.udpEncapPort}`;
    const helper = { target: "", protocols: ["udp"], destinationPorts: [port], sourcePorts: null, byteMatches: 0 };
    if (rule.udpEncapPort !== 0) put({ ...rule, ...helper, name: `#${rule.name}` });
    put(rule);
    return rules;
  }
}

function plainRule(request: PlainRequest, isTrace: boolean): PlainRule {
  const name = request["name"] ?? "";
  const target = isTrace ? "trace" : (request["target"] ?? "");
  if (name === "" || name[0] === "#" || Buffer.from(name).length > 1_023 || target === "") throw new Refused();
  const protocols = words(request["protocols"]).map((word) => word.toLowerCase());
  if (!protocols.every((word) => ["tcp", "udp", "sctp"].includes(word))) throw new Refused();
  const udpEncapPort = isTrace ? 0 : integer(request["udpencap"], 0, 65_535);
  const isSctp = protocols.length > 0 && protocols.every((word) => word === "sctp");
  if (udpEncapPort !== 0 && !isSctp) throw new Refused();
  return {
    name,
    target,
    priority: isTrace ? 0 : integer(request["priority"], -(2 ** 31), 2 ** 31 - 1),
    protocols: [...new Set(protocols)].sort(),
    destinations: prefixes(request["dsts"]),
    sources: prefixes(request["srcs"]),
    destinationPorts: ports(request["dports"]),
    sourcePorts: ports(request["sports"]),
    byteMatches: statements(request["match"]),
    udpEncapPort,
  };
}

const words = (text = "") => text.replaceAll(",", " ").split(" ").filter(Boolean);

function integer(text: string | undefined, min: number, max: number): number {
  if (text === undefined) return 0;
  const digits = text.startsWith("-") ? text.slice(1) : text;
  const isPlain = digits.length > 0 && digits.length <= 10 && !/[^0-9]/.test(digits);
  if (!isPlain || Number(text) < min || Number(text) > max) throw new Refused();
  return Number(text);
}

function prefixes(text: string | undefined): number {
  const list = words(text);
  if (list.length > 32 || !list.every(isPrefix)) throw new Refused();
  return list.length;
}

function isPrefix(text: string): boolean {
  const [address = "", bits, ...rest] = text.split("/");
  if (bits === undefined || rest.length > 0 || address.includes("%")) return false;
  const most = isIPv4(address) ? 32 : isIPv6(address) ? 128 : -1;
  return String(Number(bits)) === bits && Number(bits) >= 0 && Number(bits) <= most;
}

/** Ports by asking of each of the 65535 whether it is meant. */
function ports(text: string | undefined): readonly string[] | null {
  if (text === undefined) return null;
  const isMeant = new Uint8Array(65_537);
  for (const word of words(text)) {
    const ends = word.split("-");
    if (ends.length > 2 || !ends.every((end) => end.length > 0 && end.length < 6 && !/[^0-9]/.test(end)))
      throw new Refused();
    const [first, last] = [Number(ends[0]), Number(ends.at(-1))];
    if (first < 1 || last > 65_535 || first > last) throw new Refused();
    isMeant.fill(1, first, last + 1);
  }
  const ranges: string[] = [];
  for (let first = isMeant.indexOf(1); first >= 0; ) {
    const behind = isMeant.indexOf(0, first);
    ranges.push(`${first}-${behind - 1}`);
    first = isMeant.indexOf(1, behind);
  }
  return ranges;
}

const HEADERS: Readonly<Record<string, number>> = { tcp: 20, udp: 8, sctp: 12 };

/** `protocol[offset:size]&mask=value`, with blanks around `:`, `&` and `=` alone; the offset as C reads it. */
function statements(text = ""): number {
  if (text === "") return 0;
  const list = text.split(",");
  for (const item of list) {
    const statement = item.slice(item.search(/[^ ]|$/));
    const parts = /^([a-z]+)\[(\d+) *: *(\d)\] *(?:& *(0x[0-9a-f]+) *)?= *(0x[0-9a-f]+|\d+)$/.exec(statement);
    const [, protocol = "", offset = "", size = ""] = parts ?? [];
    const isOctal = offset.length > 1 && offset.startsWith("0");
    const begin = isOctal ? Number.parseInt(`0${/^[0-7]*/.exec(offset)![0]}`, 8) : Number(offset);
    const fits = begin + Number(size) <= (HEADERS[protocol] ?? -1);
    if (statement.length > 64 || parts === null || !"124".includes(size) || !fits) throw new Refused();
  }
  return list.length;
}
