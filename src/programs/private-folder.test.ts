import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { PrivateFolder } from "./stateless-lb/private-folder.js";

const parent = mkdtempSync(join(tmpdir(), "private-folder-"));
afterAll(() => rmSync(parent, { recursive: true }));

test("a folder goes with its owner; what a killed one left goes at the next start, what others hold stays", () => {
  const left = join(parent, "stateless-lb-aaaaaa");
  mkdirSync(left);
  writeFileSync(join(left, "lock"), "");
  writeFileSync(join(left, "nsp.sock"), "");
  mkdirSync(join(parent, "stateless-lb-bbbbbb")); // no lock: being made at this moment
  mkdirSync(join(parent, "stateless-lb-of-somebody"));
  const living = new PrivateFolder(parent);
  {
    using own = new PrivateFolder(parent);
    expect(readdirSync(own.path)).toEqual(["lock"]);
    expect(readdirSync(parent)).not.toContain("stateless-lb-aaaaaa");
    expect(readdirSync(parent)).toHaveLength(4);
  }
  expect(readdirSync(living.path)).toEqual(["lock"]);
  living[Symbol.dispose]();
  expect(readdirSync(parent).toSorted()).toEqual(["stateless-lb-bbbbbb", "stateless-lb-of-somebody"]);
});
