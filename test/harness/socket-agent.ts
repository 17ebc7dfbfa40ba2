// Runs inside any host: ordinary UDP and TCP sockets, so that the kernel's own checksums, offloads and path MTU are in play.
import { createSocket, type Socket } from "node:dgram";
import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";

type Command =
  /** Sends back what comes, over UDP and TCP. */
  | { readonly cmd: "serve"; readonly address: string; readonly port: number }
  /** Sends one datagram of `bytes` from a connected socket that stays open, and waits for the same to come back. */
  | {
      readonly cmd: "udp";
      readonly address: string;
      readonly port: number;
      readonly bytes: number;
      readonly waitMs: number;
    }
  /** Sends `bytes` over a new connection and waits for the same to come back. */
  | {
      readonly cmd: "tcp";
      readonly address: string;
      readonly port: number;
      readonly bytes: number;
      readonly waitMs: number;
    };

const pattern = (bytes: number) => Buffer.from(Array.from({ length: bytes }, (_, i) => (i * 7 + (i >> 8)) & 255));
const typeOf = (address: string) => (address.includes(":") ? "udp6" : "udp4");
const clients = new Map<string, Socket>();

async function serve(address: string, port: number): Promise<object> {
  const socket = createSocket(typeOf(address));
  socket.on("message", (message, { address: to, port: toPort }) => socket.send(message, toPort, to));
  socket.on("error", () => {});
  await new Promise<void>((resolve) => socket.bind(port, address, resolve));
  const server = createServer((connection) => {
    connection.on("error", () => {});
    connection.pipe(connection);
  });
  await new Promise<void>((resolve) => server.listen(port, address, resolve));
  return { served: true };
}

async function connected(address: string, port: number): Promise<Socket> {
  const key = `${address} ${port}`;
  const present = clients.get(key);
  if (present !== undefined) return present;
  const socket = createSocket(typeOf(address));
  socket.on("error", () => {});
  await new Promise<void>((resolve) => socket.connect(port, address, () => resolve()));
  clients.set(key, socket);
  return socket;
}

async function udp(address: string, port: number, bytes: number, waitMs: number): Promise<object> {
  const socket = await connected(address, port);
  const sent = pattern(bytes);
  return new Promise((resolve) => {
    const finish = (result: object) => {
      clearTimeout(timer);
      socket.off("message", check);
      resolve(result);
    };
    const check = (message: Buffer) => finish({ isEqual: message.equals(sent) });
    const timer = setTimeout(() => finish({ isEqual: false, problem: "no answer" }), waitMs);
    socket.on("message", check);
    socket.send(sent, (error) => {
      if (error !== null) finish({ isEqual: false, problem: (error as NodeJS.ErrnoException).code });
    });
  });
}

async function tcp(address: string, port: number, bytes: number, waitMs: number): Promise<object> {
  const sent = pattern(bytes);
  return new Promise((resolve) => {
    const parts: Buffer[] = [];
    const socket = connect({ host: address, port });
    const finish = (problem?: string) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ isEqual: Buffer.concat(parts).equals(sent), ...(problem === undefined ? {} : { problem }) });
    };
    const timer = setTimeout(() => finish("stalled"), waitMs);
    socket.on("connect", () => socket.end(sent));
    socket.on("data", (part) => parts.push(part));
    socket.on("end", () => finish());
    socket.on("error", (error) => finish(error.message));
  });
}

function run(command: Command): Promise<object> {
  const { address, port } = command;
  if (command.cmd === "serve") return serve(address, port);
  return command.cmd === "udp"
    ? udp(address, port, command.bytes, command.waitMs)
    : tcp(address, port, command.bytes, command.waitMs);
}

createInterface({ input: process.stdin })
  .on("line", (line) => {
    run(JSON.parse(line) as Command).then(
      (answer) => console.log(JSON.stringify(answer)),
      (error: Error) => console.log(JSON.stringify({ error: error.message })),
    );
  })
  .on("close", () => process.exit(0));
console.log(JSON.stringify({ ready: true }));
