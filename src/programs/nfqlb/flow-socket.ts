import { chmodSync, rmSync } from "node:fs";
import { createConnection, createServer, isIPv4, isIPv6, type Server, Socket } from "node:net";
import { connectAbstract, listenAbstract, peerUserId } from "#sys";
import { CommandError } from "./command.js";

/** Where the flow socket is: upstream's NFQLB_FLOW_ADDRESS. */
export type FlowAddress =
  | { readonly kind: "abstract"; readonly name: string }
  | { readonly kind: "path"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** One request: `param:value` lines. */
export type FlowRequest = ReadonlyMap<string, string>;

export const DEFAULT_FLOW_ADDRESS = "unix:nfqlb";
/** Most bytes of a request; every legal one is far below. */
const MAX_REQUEST_BYTES = 65_536;
/** A client that has not finished its request by then is cut off. */
const REQUEST_TIMEOUT_MS = 5_000;
const MAX_CONNECTIONS = 64;
/** Of these the last occurrence in a request counts, of all others the first. */
const LAST_WINS = ["priority", "udpencap"];

/**
 * Reads `unix:name` (abstract, exact length), `unix:/path`, `tcp:a.b.c.d:port` or `tcp:[v6]:port`.
 * @throws {CommandError}
 */
export function parseFlowAddress(text: string): FlowAddress {
  const allowed = "unix:name, unix:/path, tcp:a.b.c.d:port or tcp:[v6]:port";
  if (text.startsWith("unix:/")) return { kind: "path", path: text.slice(5) };
  if (text.startsWith("unix:") && text.length > 5) return { kind: "abstract", name: text.slice(5) };
  const match = /^tcp:(?:\[([0-9a-f:.]+)\]|([0-9.]+)):([0-9]{1,5})$/i.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "";
  const port = Number(match?.[3] ?? -1);
  const isValid = match?.[1] === undefined ? isIPv4(host) : isIPv6(host);
  if (!isValid || port < 0 || port > 65_535) {
    throw new CommandError(`Invalid NFQLB_FLOW_ADDRESS [${text}]; ${allowed}`);
  }
  return { kind: "tcp", host, port };
}

/**
 * Listens for requests; `answer` gives the reply's bytes. Upstream's protocol: one request per connection, ended by a
 * line that begins with `eoc:`; a line without `:` or an early end closes without a reply. A client that is slow, goes
 * away, sends too much or garbage harms nobody but itself. On unix sockets only root and our own user are served.
 * @throws {SysError} EADDRINUSE and the like
 */
export async function serveFlowSocket(
  address: FlowAddress,
  answer: (request: FlowRequest) => string,
): Promise<{ close: () => void }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => socket.destroy());
    if (address.kind !== "tcp" && !isPeerTrusted(socket)) socket.destroy();
    else receiveRequest(socket, answer);
  });
  server.maxConnections = MAX_CONNECTIONS;
  await listen(server, address);
  return { close: () => server.close() };
}

async function listen(server: Server, address: FlowAddress): Promise<void> {
  if (address.kind === "path") rmSync(address.path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.once("listening", resolve);
    if (address.kind === "abstract") server.listen({ fd: listenAbstract(address.name) });
    else if (address.kind === "path") server.listen(address.path);
    else server.listen(address.port, address.host);
  });
  server.on("error", () => {}); // an accept that fails (EMFILE) concerns that client alone
  if (address.kind === "path") chmodSync(address.path, 0o600);
}

function isPeerTrusted(socket: Socket): boolean {
  const { _handle: handle } = socket as unknown as { _handle?: { fd?: number } };
  if (handle?.fd === undefined || handle.fd < 0) return false;
  try {
    const userId = peerUserId(handle.fd);
    return userId === 0 || userId === process.geteuid?.();
  } catch {
    return false;
  }
}

function receiveRequest(socket: Socket, answer: (request: FlowRequest) => string): void {
  let text = "";
  const timer = setTimeout(() => socket.destroy(), REQUEST_TIMEOUT_MS);
  socket.on("close", () => clearTimeout(timer));
  socket.setEncoding("utf8");
  socket.on("data", (chunk: string) => {
    text += chunk;
    if (text.length > MAX_REQUEST_BYTES) {
      socket.destroy();
      return;
    }
    const end = /^eoc:/m.exec(text);
    if (end === null) return;
    socket.pause();
    const request = parseRequest(text.slice(0, end.index));
    if (request === null) socket.destroy();
    else socket.end(answer(request), () => socket.destroy());
  });
  socket.on("end", () => {
    if (!socket.writableEnded) socket.destroy();
  });
}

/** The request's parameters, or null when a line has no colon. */
export function parseRequest(text: string): FlowRequest | null {
  const params = new Map<string, string>();
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const colon = line.indexOf(":");
    if (colon < 0) return null;
    const name = line.slice(0, colon);
    if (!params.has(name) || LAST_WINS.includes(name)) params.set(name, line.slice(colon + 1));
  }
  return params;
}

/**
 * Sends a request and returns the whole reply, without a closing NUL.
 * @throws {CommandError} nobody listens, or the connection broke
 */
export async function sendFlowRequest(address: FlowAddress, request: FlowRequest): Promise<string> {
  for (const [name, value] of request) {
    if (value.includes("\n")) throw new CommandError(`Invalid ${name}: line breaks are not allowed`);
  }
  const lines = [...request].map(([name, value]) => `${name}:${value}\n`).join("");
  try {
    const socket = address.kind === "abstract" ? new Socket({ fd: connectAbstract(address.name) }) : connectTo(address);
    socket.write(`${lines}eoc:\n`);
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks).toString("utf8").replace(/\0$/, "");
  } catch (error) {
    const { code, errno } = error as { code?: string; errno?: string };
    const name = code === "ERR_SYS" ? errno : code;
    throw new CommandError(
      `Connect failed. ${name === "ECONNREFUSED" ? "Connection refused" : (name ?? String(error))}`,
    );
  }
}

function connectTo(address: FlowAddress & { kind: "path" | "tcp" }): Socket {
  return address.kind === "path" ? createConnection(address.path) : createConnection(address.port, address.host);
}
