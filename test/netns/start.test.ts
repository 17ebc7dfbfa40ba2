// How the built programs come up: who keeps a control plane from starting, and which data planes it takes over.
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { closeDescriptor, listenAbstract, listenerOf } from "#sys";
import { SHM } from "../harness/balancer.js";
import { ROOT } from "../harness/bundled.js";
import { enterFreshNamespaces } from "../harness/namespace.js";

const PROGRAM = join(ROOT, "bin", "stateless-lb");
const CONFIG = join(SHM, "config.yaml");

beforeAll(() => {
  enterFreshNamespaces();
  writeFileSync(CONFIG, "trench: { name: demo }\nconduits: [ { name: load-balancer } ]\n");
});

function invoke(...args: string[]): { readonly code: number | null; readonly out: string; readonly error: string } {
  const { status, stdout, stderr } = spawnSync(PROGRAM, args, { encoding: "utf8" });
  return { code: status, out: stdout, error: stderr };
}

test("whoever holds the name of the network namespace's lock is told by pid and command, also when it does not answer", () => {
  const fd = listenAbstract("stateless-lb");
  const told = `@stateless-lb, the lock of this network namespace, is held by pid ${process.pid}: ${process.execPath}`;
  for (const connections of [0, 2_000]) {
    for (let i = 0; i < connections; i++) listenerOf("stateless-lb"); // nobody takes them off the queue
    const { code, error } = invoke("--config", CONFIG);
    expect(code).toBe(1);
    expect(error).toContain(`stateless-lb: ${told}`);
    expect(invoke("doctor").out).toMatch(new RegExp(`^FAULT   control plane: dead since [^;]*; ${told}`, "m"));
  }
  closeDescriptor(fd);
  expect(invoke("doctor").out).toMatch(/^FAULT {3}control plane: dead since [^;]*$/m);
});
