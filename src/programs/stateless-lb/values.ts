// Values of environment variables as Go's parsers read them: the manifests of the reference are written for those.
import { parseServerAddress, SERVER_ADDRESS_FORM } from "#model";
import { MAX_QUEUES } from "../nfqlb/names.js";

/** The text is not a value of its kind; the message says what is allowed. */
export class ValueError extends Error {}

const UNIT_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
};

/** Longest time of a timer in ms, some 24.8 days: node takes a longer one as 1 ms. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

/** Go holds durations in 64 bits of ns; what does not fit is refused. */
const MAX_DURATION_MS = 2 ** 63 / 1e6;

/** A duration in Go's syntax (time.ParseDuration), in ms: `300ms`, `1h30m`, `-1.5s`, plain `0`. @throws {ValueError} */
export function parseDuration(text: string): number {
  const refuse = () => new ValueError("a duration is needed, for example 300ms, 5s or 1h30m");
  const match = /^([+-]?)(.+)$/s.exec(text);
  if (match === null) throw refuse();
  const [, sign, rest = ""] = match;
  if (rest === "0") return 0;
  let ms = 0;
  let at = 0;
  for (const part of rest.matchAll(/([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)/g)) {
    if (part.index !== at) throw refuse();
    at += part[0].length;
    ms += Number(part[1]) * UNIT_MS[part[2]!]!;
  }
  if (at !== rest.length || ms >= MAX_DURATION_MS) throw refuse();
  return sign === "-" ? -ms : ms;
}

/** A duration in ms as Go prints it, to the ns: `1h30m0s`, `300ms`, `0s`. */
export function formatDuration(ms: number): string {
  const ns = Math.round(Math.abs(ms) * 1e6);
  const sign = ms < 0 ? "-" : "";
  if (ns === 0) return "0s";
  if (ns < 1e3) return `${sign}${ns}ns`;
  if (ns < 1e6) return `${sign}${ns / 1e3}µs`;
  if (ns < 1e9) return `${sign}${ns / 1e6}ms`;
  const hours = Math.floor(ns / 3_600e9);
  const minutes = Math.floor((ns % 3_600e9) / 60e9);
  const seconds = `${(ns % 60e9) / 1e9}s`;
  if (hours > 0) return `${sign}${hours}h${minutes}m${seconds}`;
  return minutes > 0 ? `${sign}${minutes}m${seconds}` : `${sign}${seconds}`;
}

/** A boolean as strconv.ParseBool reads it. @throws {ValueError} */
export function parseBoolean(text: string): boolean {
  if (["1", "t", "T", "TRUE", "true", "True"].includes(text)) return true;
  if (["0", "f", "F", "FALSE", "false", "False"].includes(text)) return false;
  throw new ValueError("true or false is needed (also 1, t, T, TRUE, True, 0, f, F, FALSE, False)");
}

/** strconv.ParseInt(text, 0, 64): 0x, 0o, 0b, a leading 0 is octal; `_` behind a prefix and between digits. */
const INTEGER = /^([+-]?)(0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|0(?:_?[0-7])*|[1-9](?:_?[0-9])*)$/;

/** A whole number as Go reads it. @throws {ValueError} also beyond 2^53, which no setting needs */
export function parseInteger(text: string): number {
  const match = INTEGER.exec(text);
  const digits = (match?.[2] ?? "").replaceAll("_", "");
  const value = Number(/^0[0-7]+$/.test(digits) ? `0o${digits.slice(1)}` : digits);
  if (match === null || !Number.isSafeInteger(value))
    throw new ValueError("a whole number is needed, for example 5000 or 0x1388");
  return match[1] === "-" && value !== 0 ? -value : value;
}

/** Go's host: unreserved characters, sub-delims, and what it lets through besides; brackets hold an IPv6 address. */
const HOST = /^(?:\[[0-9a-fA-F:.]+(?:%25[\w.~-]+)?\]|[\w.~!$&'()*+,;=<>"\u0080-\uffff-]*)(?::[0-9]*)?$/;
const HAS_SCHEME = /^[a-zA-Z][a-zA-Z0-9+.-]*:/;

/** A URL as net/url.Parse takes it, an empty one too; what that refuses is refused. The text stays. @throws {ValueError} */
export function parseUrl(text: string): string {
  const refuse = (why: string) =>
    new ValueError(`a URL is needed, for example unix:///run/nsm.sock or tcp://host:port (${why})`);
  if (/\p{Cc}/u.test(text)) throw refuse("it has a control character");
  const [beforeFragment = "", fragment = ""] = text.split(/#(.*)/s);
  if (beforeFragment.startsWith(":")) throw refuse("it has no scheme before the colon");
  const hasScheme = HAS_SCHEME.test(beforeFragment);
  const [rest = ""] = (hasScheme ? beforeFragment.slice(beforeFragment.indexOf(":") + 1) : beforeFragment).split("?");
  if (hasScheme && !rest.startsWith("/")) return text; // opaque
  if (!rest.startsWith("/") && rest.split("/")[0]!.includes(":")) throw refuse("its first part has a colon");
  const authority = rest.startsWith("//") && (hasScheme || !rest.startsWith("///")) ? rest.slice(2).split("/")[0]! : "";
  const host = authority.slice(authority.lastIndexOf("@") + 1);
  if (!HOST.test(host)) throw refuse("its host or port is none");
  const path = rest.slice(authority === "" ? 0 : authority.length + 2);
  if (/%(?![0-9a-fA-F]{2})/.test(`${authority.slice(0, authority.lastIndexOf("@") + 1)}${path}#${fragment}`))
    throw refuse("% needs two hexadecimal digits");
  return text;
}

/** NFQUEUE numbers, `n` or `first:last`; further parts are ignored as the reference does. @throws {ValueError} */
export function parseQueues(text: string): { readonly first: number; readonly last: number } {
  const [first = "", last = first] = text.split(":");
  const isNumber = (part: string) => /^[0-9]+$/.test(part) && Number(part) <= 65_535;
  const count = Number(last) - Number(first) + 1;
  if (!isNumber(first) || !isNumber(last) || count < 1 || count > MAX_QUEUES) {
    throw new ValueError(
      `queue numbers are needed: n or first:last, 0..65535, first <= last, at most ${MAX_QUEUES} queues`,
    );
  }
  return { first: Number(first), last: Number(last) };
}

/**
 * Where a server listens, from a URL: `unix:///path` or `tcp://host:port`, an empty host being all addresses; "" for "".
 * @throws {ValueError}
 */
export function toListenAddress(url: string): string {
  if (url === "") return "";
  const [, host, rest] = /^tcp:\/\/(\[[^\]]*\]|[^:/]*)(:[0-9]+)\/?$/.exec(url) ?? [];
  const address = parseServerAddress(rest === undefined ? url : `${host || "[::]"}${rest}`);
  if (address === null || (rest === undefined && !url.startsWith("unix:")))
    throw new ValueError("unix:///path or tcp://host:port is needed, a path of at most 107 bytes or a port 1..65535");
  return address;
}

/** Where an NSP is, as gRPC is told: `host:port`, also as `dns:///host:port`, or `unix:/path`. @throws {ValueError} */
export function toServerAddress(text: string): string {
  const address = parseServerAddress(text.replace(/^dns:(?:\/\/\/)?/, ""));
  if (address === null) throw new ValueError(`${SERVER_ADDRESS_FORM} is needed, a path of at most 107 bytes`);
  return address;
}

/** Bytes of an interface's name: IFNAMSIZ (16) without the zero at its end. */
const MAX_INTERFACE_NAME_BYTES = 15;

/** How names of interfaces begin; nft's `*` for the rest is not part of it. @throws {ValueError} no name begins so */
export function parseInterfacePrefix(text: string): string {
  if (!/^[^\s\p{Cc}/:*"\\]+$/u.test(text) || Buffer.byteLength(text) > MAX_INTERFACE_NAME_BYTES)
    throw new ValueError(
      `the beginning of interface names is needed: 1..${MAX_INTERFACE_NAME_BYTES} bytes without blanks, / : * " and \\`,
    );
  return text;
}
