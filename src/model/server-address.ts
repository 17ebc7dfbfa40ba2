import { isIPv6 } from "node:net";
import { MAX_UNIX_NAME_BYTES } from "./socket-path.js";

/** What {@link parseServerAddress} takes, for messages. */
export const SERVER_ADDRESS_FORM = "unix:/path or host:port, port 1..65535";

/**
 * Where a server is or listens: `unix:/path` or `unix:///path`, the path absolute and of at most 107 bytes, or `host:port`,
 * the host a name, an IPv4 address, or an IPv6 address in brackets. gRPC would take nearly anything, and fail later.
 * @returns `unix:/path` or `host:port`; null: it is none
 */
export function parseServerAddress(text: string): string | null {
  const path = /^unix:(?:\/\/)?(\/(?!\/)[^\0]*[^/\0])$/.exec(text)?.[1];
  if (path !== undefined) return Buffer.byteLength(path) <= MAX_UNIX_NAME_BYTES ? `unix:${path}` : null;
  const [, ipv6, name, digits] = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9_][a-z0-9_.-]{0,252})):([0-9]{1,5})$/i.exec(text) ?? [];
  if (ipv6 === undefined ? name === undefined : !isIPv6(ipv6)) return null;
  const port = Number(digits);
  return port >= 1 && port <= 65_535 ? text : null;
}
