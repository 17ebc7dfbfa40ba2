import { existsSync, lstatSync, unlinkSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import { listenAbstract, peerCredentials } from "#sys";
import type { FlowAddress } from "./flow-address.js";
import { type FlowRequest, FlowRequestReader } from "./flow-protocol.js";

/** A client that has not finished its request by then is cut off, and one that has not fetched its reply as long after. */
const TIME_LIMIT_MS = 5_000;
/** Clients at a time; one more pushes out the oldest of those who have the most. */
const MOST_CLIENTS = 256;

/**
 * Listens for requests; `answer` gives the reply's text. Upstream's protocol: one request per connection. A client that is
 * slow, goes away, sends too much or garbage, or opens connections without end, harms nobody but itself: time, memory and
 * number of clients are bounded. On unix sockets only root and our own user are served; a socket that is a path has mode
 * 0600, and one that a dead process left is taken over. TCP has no such protection: whoever reaches it may set flows.
 * @throws {SysError} or node's error: EADDRINUSE when somebody listens there, and the like
 */
export async function serveFlowSocket(
  address: FlowAddress,
  answer: (request: FlowRequest) => string,
): Promise<Disposable> {
  const clients = new Clients();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => socket.destroy());
    const peer = address.kind === "tcp" ? (socket.remoteAddress ?? "") : trustedPeer(socket);
    if (peer === null) {
      socket.destroy();
      return;
    }
    clients.add(socket, peer);
    serveClient(socket, answer);
  });
  if (address.kind === "path") await removeStale(address.path);
  await listen(server, address);
  return {
    [Symbol.dispose]() {
      server.close(); // removes a path, too
      clients.closeAll();
    },
  };
}

async function listen(server: Server, address: FlowAddress): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.once("listening", resolve);
    if (address.kind === "abstract") server.listen({ fd: listenAbstract(address.name) });
    else if (address.kind === "tcp") server.listen(address.port, address.host);
    else {
      const before = process.umask(0o177); // so that there is no moment in which others may connect
      try {
        server.listen(address.path);
      } finally {
        process.umask(before);
      }
    }
  });
  server.on("error", () => {}); // an accept that fails (EMFILE) concerns that client alone
}

/**
 * Removes a socket file that nobody listens on.
 * @throws EADDRINUSE somebody does, or the file is no socket; ENOENT there is no such folder (node would call it EACCES)
 */
async function removeStale(path: string): Promise<void> {
  const folder = dirname(path);
  if (!existsSync(folder)) throw Object.assign(new Error(`${path}: no folder ${folder}`), { code: "ENOENT" });
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  const isLive = stat.isSocket() ? await isListening(path) : true;
  if (isLive) throw Object.assign(new Error(`${path}: Address already in use`), { code: "EADDRINUSE" });
  unlinkSync(path);
}

function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.on("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", (error) => resolve((error as { code?: string }).code !== "ECONNREFUSED"));
  });
}

/** Who is at the other end of a unix socket, or null when it is neither root nor our own user. */
function trustedPeer(socket: Socket): string | null {
  const { _handle: handle } = socket as unknown as { _handle?: { fd?: number } };
  if (handle?.fd === undefined || handle.fd < 0) return null;
  try {
    const { pid, userId } = peerCredentials(handle.fd);
    return userId === 0 || userId === process.geteuid?.() ? String(pid) : null;
  } catch {
    return null;
  }
}

/** The connections there are, by peer. A flood from one peer pushes out its own connections, not those of others. */
class Clients {
  readonly #byPeer = new Map<string, Set<Socket>>();
  #count = 0;

  add(socket: Socket, peer: string): void {
    if (this.#count >= MOST_CLIENTS) this.#pushOut();
    const own = this.#byPeer.get(peer) ?? new Set();
    this.#byPeer.set(peer, own.add(socket));
    this.#count++;
    socket.once("close", () => this.#remove(socket, peer));
  }

  closeAll(): void {
    for (const sockets of this.#byPeer.values()) for (const socket of sockets) socket.destroy();
  }

  #remove(socket: Socket, peer: string): void {
    const own = this.#byPeer.get(peer);
    if (own?.delete(socket) !== true) return;
    this.#count--;
    if (own.size === 0) this.#byPeer.delete(peer);
  }

  #pushOut(): void {
    const [peer, most] = [...this.#byPeer].reduce((a, b) => (b[1].size > a[1].size ? b : a));
    const [oldest] = most;
    this.#remove(oldest!, peer); // at once: `close` comes later, and several may be pushed out before
    oldest!.destroy();
  }
}

/** Reads one request, answers it, and closes. */
function serveClient(socket: Socket, answer: (request: FlowRequest) => string): void {
  const reader = new FlowRequestReader();
  let timer = setTimeout(() => socket.destroy(), TIME_LIMIT_MS);
  socket.on("close", () => clearTimeout(timer));
  const reply = (text: string) => {
    socket.removeAllListeners("data");
    socket.resume(); // what else comes is thrown away: a close with unread bytes would take the reply with it
    clearTimeout(timer);
    timer = setTimeout(() => socket.destroy(), TIME_LIMIT_MS);
    socket.end(text);
  };
  socket.on("data", (chunk) => {
    const input = reader.feed(chunk);
    if (input.kind === "request") reply(answer(input.request));
    else if (input.kind === "refused") reply(`${input.reply}\0`);
    else if (input.kind === "closed") socket.destroy();
  });
  socket.on("end", () => {
    if (!socket.writableEnded) socket.destroy(); // no request will come
  });
}
