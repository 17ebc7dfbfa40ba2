// `make test`: the checks, then every test; the last line is `N passed, N failed`, with the checks counted in.
import { spawn, spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildHarness } from "./build-harness.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
await buildHarness();
const steps = ["check:format", "check:types", "check:arrows", "check:generated", "check:lint", "check:unused"];
let passed = 0;
let failed = 0;
for (const step of steps) {
  const { status } = spawnSync("npm", ["run", "--silent", step], { stdio: "inherit", cwd: root });
  console.log(`${status === 0 ? "passed" : "FAILED"}: ${step}`);
  if (status === 0) passed++;
  else failed++;
}

/** Packet tests need namespaces: an ordinary user runs them inside a user namespace of his own. */
const isRoot = process.geteuid?.() === 0;
const wrap = isRoot || spawnSync("unshare", ["-Urnm", "true"]).status !== 0 ? [] : ["unshare", "-Urnm"];
let skipped = 0;
for (const project of ["unit", "netns"]) {
  const command = [...wrap, join(root, "node_modules/.bin/vitest"), "run", "--project", project];
  const child = spawn(command[0] ?? "", command.slice(1), { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  let tail = "";
  child.stdout.on("data", (chunk) => {
    process.stdout.write(chunk);
    tail = (tail + String(chunk)).slice(-2_000);
  });
  const code = await new Promise((resolve) => child.on("close", resolve));
  const counts = /(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\s*$/.exec(tail);
  passed += Number(counts?.[1] ?? 0);
  failed += counts === null ? 1 : Number(counts[2]);
  skipped += Number(counts?.[3] ?? 0);
  if (code !== 0 && counts !== null && counts[2] === "0") failed++;
}
console.log(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
process.exit(failed === 0 ? 0 : 1);
