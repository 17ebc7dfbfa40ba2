import { expect, test } from "vitest";
import { checkLimits } from "./stateless-lb/doctor-host.js";
import { checkConntrack, checkOffloads } from "./stateless-lb/doctor-kernel.js";

const reading = (values: Readonly<Record<string, string>>) => (path: string) => values[path] ?? null;

test("doctor: large receive offload is a fault of each interface that is up, BIG TCP advice", () => {
  const link = (name: string, isUp = true, groMaxBytes = 65_536) => ({ name, isUp, groMaxBytes });
  const all = [link("lo"), link("eth0"), link("eth1", false), link("eth2", true, 131_072)];
  expect(checkOffloads(all, () => false).map(({ what, verdict }) => [what, verdict])).toEqual([
    ["offloads of eth2", "advice"],
  ]);
  expect(checkOffloads([link("eth0")], (name) => name === "eth0")).toEqual([
    {
      what: "offloads of eth0",
      verdict: "fault",
      found: "large receive offload is on: forwarded packets are damaged",
      mend: "ethtool -K eth0 lro off",
    },
  ]);
  expect(checkOffloads(all.slice(0, 3), (name) => name !== "eth0")).toMatchObject([
    { verdict: "ok", found: "no traps on 1 interfaces" },
  ]);
});

test("doctor: a nearly full table of connections is a fault, any tracking is advice", () => {
  const check = (count: string, most = "1000") =>
    checkConntrack(
      reading({
        "/proc/sys/net/netfilter/nf_conntrack_count": count,
        "/proc/sys/net/netfilter/nf_conntrack_max": most,
      }),
    );
  expect(checkConntrack(reading({}))).toMatchObject({ verdict: "ok" });
  expect(check("0")).toMatchObject({ verdict: "ok", found: "tracks nothing here" });
  expect(check("899")).toMatchObject({ verdict: "advice", found: expect.stringContaining("899 of at most 1000") });
  expect(check("900")).toMatchObject({ verdict: "fault", mend: expect.stringContaining("nf_conntrack_max") });
});

test("doctor: few open files are a fault, little memory is advice", () => {
  const limits = (files: string) => `Limit  Soft Limit  Hard Limit  Units\nMax open files  ${files}  4096  files\n`;
  const check = (files: string, memory?: string) =>
    checkLimits(
      reading({
        "/proc/self/limits": limits(files),
        ...(memory === undefined ? {} : { "/sys/fs/cgroup/memory.max": memory }),
      }),
    ).map(({ verdict, found }) => `${verdict}: ${found}`);
  expect(check("255")).toEqual(["fault: at most 255", "ok: none of a container"]);
  expect(check("256", "max")).toEqual(["ok: at most 256", "ok: none"]);
  expect(check("unlimited", String(119 << 20))).toEqual(["ok: at most Infinity", "advice: 119 MiB"]);
  expect(check("1024", String(120 << 20))).toEqual(["ok: at most 1024", "ok: 120 MiB"]);
});
