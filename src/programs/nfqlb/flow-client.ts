import { createConnection, Socket } from "node:net";
import { connectAbstract } from "#sys";
import { CommandError } from "./command.js";
import type { FlowAddress } from "./flow-address.js";
import type { FlowRequest } from "./flow-protocol.js";

/** A server that is silent for so long will not answer any more. */
const SILENCE_MS = 30_000;

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
    const socket = connectTo(address);
    socket.setTimeout(SILENCE_MS, () => socket.destroy(new Error("no answer")));
    socket.write(`${lines}eoc:\n`);
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks).toString("utf8").replace(/\0$/, "");
  } catch (error) {
    const { code, errno } = error as { code?: string; errno?: string };
    const name = (code === "ERR_SYS" ? errno : code) ?? "";
    throw new CommandError(`Connect failed. ${explain(name, address) ?? (name || String(error))}`);
  }
}

/** What an error most likely means, or null; the first is upstream's. */
function explain(name: string, { kind }: FlowAddress): string | null {
  if (name === "ECONNREFUSED") return "Connection refused";
  if (name === "ENOENT") return "No such socket: no data plane has listened there (NFQLB_FLOW_ADDRESS)";
  if (name === "EACCES") return "Permission denied: the socket is for root and the data plane's own user";
  if (name !== "EPIPE" && name !== "ECONNRESET") return null;
  return kind === "tcp"
    ? `Closed by the data plane (${name})`
    : `Closed by the data plane (${name}): it serves root and its own user, nobody else`;
}

function connectTo(address: FlowAddress): Socket {
  if (address.kind === "abstract") return new Socket({ fd: connectAbstract(address.name) });
  return address.kind === "path" ? createConnection(address.path) : createConnection(address.port, address.host);
}
