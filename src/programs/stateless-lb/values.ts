// Values of environment variables as Go's parsers read them: the manifests of the reference are written for those.

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

/** A duration in Go's syntax (time.ParseDuration), in ms: `300ms`, `1h30m`, `-1.5s`, plain `0`. @throws {ValueError} */
export function parseDuration(text: string): number {
  const refuse = () => new ValueError("a duration is needed, for example 300ms, 5s or 1h30m");
  const match = /^([+-]?)(.+)$/s.exec(text);
  if (match === null) throw refuse();
  const [, sign, rest = ""] = match;
  if (rest === "0") return 0;
  let ms = 0;
  let at = 0;
  for (const part of rest.matchAll(/([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)/g)) {
    if (part.index !== at) throw refuse();
    at += part[0].length;
    ms += Number(part[1]) * UNIT_MS[part[2]!]!;
  }
  if (at !== rest.length) throw refuse();
  return sign === "-" ? -ms : ms;
}

/** A boolean as strconv.ParseBool reads it. @throws {ValueError} */
export function parseBoolean(text: string): boolean {
  if (["1", "t", "T", "TRUE", "true", "True"].includes(text)) return true;
  if (["0", "f", "F", "FALSE", "false", "False"].includes(text)) return false;
  throw new ValueError("true or false is needed (also 1, t, T, TRUE, True, 0, f, F, FALSE, False)");
}

/** A whole number as strconv.ParseInt(text, 0, 64) reads it: 0x, 0o, 0b, a leading 0 is octal, `_` between digits. @throws {ValueError} */
export function parseInteger(text: string): number {
  const refuse = () => new ValueError("a whole number is needed, for example 5000 or 0x1388");
  const match = /^([+-]?)(0x[0-9a-f]+|0o[0-7]+|0b[01]+|0[0-7]*|[1-9][0-9]*)$/i.exec(withoutUnderscores(text));
  if (match === null) throw refuse();
  const digits = match[2]!;
  const value = Number(/^0[0-7]+$/.test(digits) ? `0o${digits.slice(1)}` : digits);
  if (!Number.isSafeInteger(value)) throw refuse();
  return match[1] === "-" ? -value : value;
}

function withoutUnderscores(text: string): string {
  return /^[+-]?0[xob]?_?[0-9a-f]|^[+-]?[0-9]/i.test(text) ? text.replace(/(?<=[0-9a-fxob])_(?=[0-9a-f])/gi, "") : text;
}

/** A URL as net/url.Parse takes it: nearly anything; what it refuses is refused. @throws {ValueError} */
export function parseUrl(text: string): string {
  if (/[\p{Cc} ]/u.test(text) || /%(?![0-9a-f]{2})/i.test(text) || text.startsWith(":")) {
    throw new ValueError("a URL is needed, for example unix:///run/nsm.sock or tcp://host:port");
  }
  return text;
}

/** NFQUEUE numbers, `n` or `first:last`; further parts are ignored as the reference does. @throws {ValueError} */
export function parseQueues(text: string): { readonly first: number; readonly last: number } {
  const [first = "", last = first] = text.split(":");
  const isNumber = (part: string) => /^[0-9]{1,5}$/.test(part) && Number(part) <= 65_535;
  if (!isNumber(first) || !isNumber(last) || Number(last) < Number(first)) {
    throw new ValueError("queue numbers are needed: n or first:last, 0..65535, first <= last");
  }
  return { first: Number(first), last: Number(last) };
}

/**
 * Where a server listens, from a URL: `unix:///path` or `tcp://host:port`, an empty host being all addresses; "" for "".
 * @throws {ValueError}
 */
export function toListenAddress(url: string): string {
  if (url === "") return "";
  const path = /^unix:(?:\/\/)?(\/.+)$/.exec(url)?.[1];
  if (path !== undefined) return `unix:${path}`;
  const [, host, port] = /^tcp:\/\/(\[[0-9a-fA-F:.]+\]|[^:/]*):([0-9]{1,5})\/?$/.exec(url) ?? [];
  if (port === undefined || Number(port) > 65_535) throw new ValueError("unix:///path or tcp://host:port is needed");
  return `${host === "" ? "[::]" : host}:${port}`;
}
