import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, onTestFinished, test } from "vitest";
import { checkHealth } from "#rpc";
import { type PublicServicesOptions, startPublicServices } from "./stateless-lb/public-services.js";

const TOO_LONG = "the path of a unix socket has at most 107 bytes, this one 108";
const folder = mkdtempSync(join(tmpdir(), "public-services-"));
afterAll(() => rmSync(folder, { recursive: true }));

const told: (readonly [message: string, data: unknown])[] = [];
const take = (message: string, data: unknown = {}) => void told.push([message, data]);
const options: PublicServicesOptions = {
  healthAddress: "",
  availabilityAddress: "",
  metricsPort: null,
  hostName: "host",
  probeTimeoutMs: 1_000,
  state: () => ({
    isNspConnected: true,
    isDataPlaneReady: false,
    isFrontendAnnounced: null,
    areSocketsAnswering: true,
    streams: [],
  }),
  onProbe: () => {},
  onAvailability: () => {},
  sources: () => [],
  log: { trace: () => {}, debug: take, info: take, warning: take, error: take },
};

test("a probe of an aggregate that fails is logged with its parts, one of a part alone is not", async () => {
  const address = `unix:${join(folder, "health.sock")}`;
  const services = await startPublicServices({ ...options, healthAddress: address });
  onTestFinished(services.close);
  const ask = (service: string) => checkHealth({ address, security: "plain-text" }, service, { deadlineMs: 5_000 });
  for (const service of ["Stream", "Flow", "Readiness"]) expect(await ask(service)).toBe("NOT_SERVING");
  const probes = told.filter(([message]) => message === "Probe service");
  expect(probes).toEqual([
    [
      "Probe service",
      { Service: "Readiness", Status: "NOT_SERVING", svcInfo: expect.stringMatching(/^, subservices:\[.*Stream:/) },
    ],
  ]);
});

test("a socket whose folder is missing is told as that, with the setting", async () => {
  const path = join(folder, "none", "lb.sock");
  await expect(startPublicServices({ ...options, availabilityAddress: `unix:${path}` })).rejects.toThrowError(
    expect.objectContaining({
      code: "ERR_LISTEN",
      message: `NSM_SOCKET: ${path}: there is no folder ${join(folder, "none")}`,
    }),
  );
});

test("a folder that nobody can make is told, with the setting; one that is missing is made", async () => {
  const health = (path: string) => startPublicServices({ ...options, healthAddress: `unix:${path}` });
  await expect(health("/proc/x/y/health.sock")).rejects.toThrowError(
    expect.objectContaining({ code: "ERR_LISTEN", message: expect.stringMatching(/^NSM_HEALTH_SOCKET: ENOENT.*proc/) }),
  );
  const services = await health(join(folder, "a", "b", "health.sock"));
  await services.close();
});

test("a path that does not fit into a socket's address is refused, and not cut", async () => {
  const long = `${folder}/${"x".repeat(107 - folder.length)}`;
  await expect(startPublicServices({ ...options, healthAddress: `unix:${long}` })).rejects.toThrowError(
    expect.objectContaining({ message: `NSM_HEALTH_SOCKET: ${long}: ${TOO_LONG}` }),
  );
  const services = await startPublicServices({ ...options, healthAddress: `unix:${long.slice(0, -1)}` });
  expect(readdirSync(folder)).toContain(long.slice(folder.length + 1, -1));
  await services.close();
});
