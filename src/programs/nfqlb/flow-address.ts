import { isIPv4, isIPv6 } from "node:net";
import { MAX_UNIX_NAME_BYTES } from "#model";
import { CommandError } from "./command.js";

/** Where the flow socket is: upstream's NFQLB_FLOW_ADDRESS. */
export type FlowAddress =
  | { readonly kind: "abstract"; readonly name: string }
  | { readonly kind: "path"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

export const DEFAULT_FLOW_ADDRESS = "unix:nfqlb";

/**
 * Reads `unix:name` (abstract, exact length), `unix:/path`, `tcp:a.b.c.d:port` or `tcp:[v6]:port`.
 * @throws {CommandError}
 */
export function parseFlowAddress(text: string): FlowAddress {
  const address = text.startsWith("unix:") ? parseUnix(text.slice(5)) : parseTcp(text);
  if (address !== null) return address;
  const allowed = `unix:name, unix:/path (1..${MAX_UNIX_NAME_BYTES} bytes), tcp:a.b.c.d:port or tcp:[v6]:port`;
  throw new CommandError(`Invalid NFQLB_FLOW_ADDRESS [${text}]; ${allowed}`);
}

function parseUnix(name: string): FlowAddress | null {
  const bytes = Buffer.byteLength(name);
  if (bytes === 0 || bytes > MAX_UNIX_NAME_BYTES || name.includes("\0")) return null;
  return name.startsWith("/") ? { kind: "path", path: name } : { kind: "abstract", name };
}

function parseTcp(text: string): FlowAddress | null {
  const match = /^tcp:(?:\[([0-9a-f:.]+)\]|([0-9.]+)):([0-9]{1,5})$/i.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "";
  const port = Number(match?.[3] ?? -1);
  const isValid = match?.[1] === undefined ? isIPv4(host) : isIPv6(host);
  return isValid && port >= 0 && port <= 65_535 ? { kind: "tcp", host, port } : null;
}
