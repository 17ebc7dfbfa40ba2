import { closeSync, fstatSync, mkdtempSync, openSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { parseFlowRule, setFlow } from "#flow";
import { ensureFlows, updateFlows } from "./index.js";

test("room to grow takes no memory; what a larger file does not need is given back", () => {
  const own = mkdtempSync("/dev/shm/tables-");
  onTestFinished(() => rmSync(own, { recursive: true }));
  ensureFlows(own, "f");
  const rule = (i: number, port: string) =>
    parseFlowRule({ name: `f${i}`, target: "s", dsts: `10.0.${i >> 8}.${i & 255}/32`, dports: port });
  const set = (count: number, port: string) =>
    updateFlows(
      own,
      "f",
      () => Array.from({ length: count }, (_, i) => rule(i, port)),
      () => 0,
    );
  const taken = () => statSync(join(own, "f")).blocks * 512;
  set(2_000, "80");
  const one = taken() - 4096;
  expect(statSync(join(own, "f")).size).toBeGreaterThan(3.9 * one); // two images of twice the size
  set(2_000, "81");
  expect(taken() - 4096).toBeLessThan(2.1 * one);
  const old = openSync(join(own, "f"), "r"); // as a reader that has not yet looked again
  onTestFinished(() => closeSync(old));
  set(5_000, "80");
  expect(statSync(join(own, "f")).ino).not.toBe(fstatSync(old).ino);
  expect(fstatSync(old).blocks * 512 - 4096).toBeLessThan(1.1 * one);
});

test("one of 2,000 rules changes in less than 20 ms, region and all; 100 rules take few pages", { retry: 4 }, () => {
  const folder = mkdtempSync(join(tmpdir(), "tables-change-"));
  const rule = (i: number, port: number) =>
    parseFlowRule({
      name: `f${i}`,
      target: "s",
      protocols: "tcp",
      dsts: `10.${i >> 8}.${i & 255}.1/32`,
      dports: `${port}`,
    });
  const publish = (count: number) => {
    ensureFlows(folder, `flows-${count}`);
    const rules = Array.from({ length: count }, (_, i) => rule(i, 80));
    updateFlows(
      folder,
      `flows-${count}`,
      () => rules,
      () => 0,
    );
  };
  publish(100);
  expect(statSync(join(folder, "flows-100")).size).toBe(4096 + 2 * 64 * 1024); // the first size
  publish(2_000);
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 15; i++) {
    const start = performance.now();
    updateFlows(
      folder,
      "flows-2000",
      (rules) => setFlow(rules, rule(i * 100, 81)),
      () => 0,
    );
    least = Math.min(least, performance.now() - start);
  }
  expect(least).toBeLessThan(20);
  rmSync(folder, { recursive: true });
});
