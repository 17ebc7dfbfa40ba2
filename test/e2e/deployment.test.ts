// deploy/kubernetes/stateless-lb.yaml starts as it stands: its settings, user, groups, read-only root, volumes and probes.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse } from "yaml";
import { NspQuery } from "#nsp";
import { ROOT } from "../harness/bundled.js";
import { type Container, RunningContainer } from "../harness/container.js";
import { enterFreshNamespaces } from "../harness/namespace.js";
import { example } from "../harness/nsp.js";
import { startProgram } from "../harness/topology.js";

/** The map of a user namespace has one line with few users; only real root can become any user. */
const isRealRoot =
  process.geteuid?.() === 0 && /^\s*0\s+0\s+4294967295\s*$/.test(readFileSync("/proc/self/uid_map", "utf8"));
const ADDRESS = "127.0.0.1:7778";

type Probe = { readonly exec: { readonly command: readonly string[] } };
type Manifest = {
  readonly spec: {
    readonly securityContext: { readonly supplementalGroups: readonly number[] };
    readonly containers: readonly (Container & Record<"startupProbe" | "readinessProbe" | "livenessProbe", Probe>)[];
    readonly volumes: readonly { readonly name: string }[];
  };
};
const { spec } = parse(readFileSync(join(ROOT, "deploy/kubernetes/stateless-lb.yaml"), "utf8")) as Manifest;
const [container] = spec.containers;

let folder = "";
let nsp: ReturnType<typeof startProgram>;
let pod: RunningContainer;

beforeAll(() => {
  if (!isRealRoot) return;
  enterFreshNamespaces();
  folder = mkdtempSync("/tmp/stateless-lb-deployment-");
  writeFileSync(join(folder, "nsp.yaml"), example);
  const args = ["nsp", "--insecure", "--config", join(folder, "nsp.yaml"), "--listen", ADDRESS];
  nsp = startProgram(join(ROOT, "bin/stateless-lb"), args, {}, () => {});
  pod = new RunningContainer(folder, container!, spec.securityContext.supplementalGroups, "127.0.0.1 nsp-service\n");
});

afterAll(() => {
  if (!isRealRoot) return;
  pod[Symbol.dispose]();
  nsp.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

test.skipIf(!isRealRoot)("it starts, and each probe of the manifest answers as it should", async () => {
  const ask = ({ exec: { command } }: Probe) => pod.exec(command).code;
  await expect.poll(() => ask(container!.startupProbe), { timeout: 20_000 }).toBe(0);
  await expect.poll(() => ask(container!.livenessProbe), { timeout: 10_000 }).toBe(0);
  expect(ask(container!.readinessProbe), pod.output).toBe(4); // its frontend is missing
  using query = new NspQuery({ address: ADDRESS, security: "plain-text" });
  const host = hostname();
  const frontend = { trench: "", conduit: "", stream: "", type: "frontend", isEnabled: true } as const;
  await query.register({ ...frontend, ips: [host], context: { identifier: host } });
  await expect.poll(() => ask(container!.readinessProbe), { timeout: 10_000 }).toBe(0);
});

test.skipIf(!isRealRoot)("the probe that Meridio's operator has pods exec works, with its exit codes", () => {
  const probe = (address: string, service: string) =>
    pod.exec(
      `grpc_health_probe -addr=${address} -service=${service} -connect-timeout=400ms -rpc-timeout=400ms`.split(" "),
    );
  const own = "unix:///tmp/health.sock";
  expect(probe(own, "Readiness")).toEqual({ code: 0, out: "status: SERVING\n" });
  expect(probe(own, "Nonsense")).toEqual({ code: 3, out: `${own}: Nonsense check failed: unknown service\n` });
  expect(probe("unix:///tmp/none.sock", "")).toMatchObject({ code: 2, out: expect.stringContaining("ENOENT") });
});

test.skipIf(!isRealRoot)("losses in queues are known, and nothing needs to be written elsewhere", async () => {
  const metrics = await (await fetch("http://127.0.0.1:2223/metrics")).text();
  expect(metrics).toMatch(/^stateless_lb_queue_lost_packets_total\{queue="0",full="queue"\} 0$/m);
  expect(pod.exec(["stateless-lb", "status"]).out).toMatch(/data plane +ok .* 0 lost before it/);
  expect(pod.output).not.toMatch(/EROFS|EACCES|EPERM/);
  expect(await pod.stop()).toBe(0);
});
