// Runs inside a client or a target: many short connections from ports of the kernel's choice, each of which is to hear the
// name of the host that served it.
import { createSocket } from "node:dgram";
import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";
import type { Connections } from "./site.js";

type Serve = {
  readonly cmd: "serve";
  readonly name: string;
  readonly protocol: "tcp" | "udp";
  /** Of TCP every address of the host; of UDP this one, so that it answers from it. */
  readonly address: string;
  readonly port: number;
};
type Command = Serve | ({ readonly cmd: "connect" } & Connections);

const AT_ONCE = 32;
const typeOf = (address: string) => (address.includes(":") ? "udp6" : "udp4");

async function serve({ name, protocol, address, port }: Serve): Promise<object> {
  if (protocol === "tcp") {
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.end(name);
    });
    await new Promise<void>((resolve) => server.listen(port, "::", resolve));
    return {};
  }
  const socket = createSocket(typeOf(address));
  socket.on("error", () => {});
  socket.on("message", (_, from) => socket.send(name, from.port, from.address));
  await new Promise<void>((resolve) => socket.bind(port, address, resolve));
  return {};
}

/** The name of the host behind one connection; null: none answered. */
function tcp(address: string, port: number, waitMs: number): Promise<string | null> {
  return new Promise((resolve) => {
    let name = "";
    const socket = connect({ host: address, port });
    socket.setTimeout(waitMs, () => socket.destroy());
    socket.on("data", (chunk) => {
      name += String(chunk);
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve(name === "" ? null : name));
  });
}

function udp(address: string, port: number, waitMs: number): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = createSocket(typeOf(address));
    const finish = (name: string | null) => {
      clearTimeout(timer);
      socket.close();
      resolve(name);
    };
    const timer = setTimeout(() => finish(null), waitMs);
    socket.on("error", () => finish(null));
    socket.on("message", (name) => finish(String(name)));
    socket.send("?", port, address);
  });
}

async function connectAll({ protocol, address, port, count, waitMs }: Connections): Promise<object> {
  const one = protocol === "tcp" ? tcp : udp;
  const hosts: Record<string, number> = {};
  let lost = 0;
  let started = 0;
  const lane = async () => {
    while (started++ < count) {
      const name = await one(address, port, waitMs);
      if (name === null) lost++;
      else hosts[name] = (hosts[name] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, lane));
  return { hosts, lost };
}

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line) as Command;
    (command.cmd === "serve" ? serve(command) : connectAll(command)).then(
      (answer) => console.log(JSON.stringify(answer)),
      (error: Error) => console.log(JSON.stringify({ error: error.message })),
    );
  })
  .on("close", () => process.exit(0));
console.log(JSON.stringify({ ready: true }));
