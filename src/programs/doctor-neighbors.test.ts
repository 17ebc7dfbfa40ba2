import { expect, test } from "vitest";
import { checkNeighborTables } from "./stateless-lb/doctor-neighbors.js";

const addresses = (count: number, family: 4 | 6) =>
  Array.from({ length: count }, (_, i) => (family === 4 ? `10.0.${i >> 8}.${i & 255}` : `fd00::${i.toString(16)}`));
const kernel = (values: Readonly<Record<string, string>>) => (path: string) => values[path] ?? null;
const defaults = kernel({
  "/proc/sys/net/ipv4/neigh/default/gc_thresh3": "1024",
  "/proc/sys/net/ipv4/neigh/default/gc_thresh2": "512",
  "/proc/sys/net/ipv6/neigh/default/gc_thresh3": "8192",
  "/proc/sys/net/ipv6/neigh/default/gc_thresh2": "4096",
});
const check = (count: number, family: 4 | 6, read = defaults) => checkNeighborTables(addresses(count, family), read)[0];

test("doctor holds the number of targets against the kernel's neighbor table, by family", () => {
  expect(checkNeighborTables([], defaults)).toEqual([]);
  expect(check(512, 4)).toMatchObject({ what: "neighbor table, IPv4", verdict: "ok" });
  expect(check(513, 4)).toMatchObject({ verdict: "advice", found: expect.stringContaining("512 kept (gc_thresh2)") });
  expect(check(1_024, 4)).toEqual({
    what: "neighbor table, IPv4",
    verdict: "fault",
    found:
      "1024 targets, at most 1024 neighbors on this machine (gc_thresh3), 512 kept (gc_thresh2): packets to some are lost",
    mend: "on the host: sysctl -w net.ipv4.neigh.default.gc_thresh3=4096 net.ipv4.neigh.default.gc_thresh2=2048",
  });
  expect(check(1_024, 6)).toMatchObject({ what: "neighbor table, IPv6", verdict: "ok" });
  const both = checkNeighborTables([...addresses(1_024, 4), ...addresses(1_024, 4), ...addresses(3, 6)], defaults);
  expect(both.map(({ verdict }) => verdict)).toEqual(["fault", "ok"]);
});

test("a pod does not see its host's limits: few targets fit anyway, of many it says so", () => {
  const pod = kernel({});
  expect(check(256, 4, pod)).toMatchObject({ verdict: "ok" });
  expect(check(257, 4, pod)).toMatchObject({
    verdict: "unknown",
    mend: expect.stringContaining("on the host: sysctl -w"),
  });
});
