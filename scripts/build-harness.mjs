// Bundles the test harness (agents, demo, bench) into build/, beside bin/ which is for users alone.
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

/** Name in build/ → source. */
const entries = {
  "client-agent.cjs": "test/harness/client-agent.ts",
  "target-agent.cjs": "test/harness/target-agent.ts",
  "packet-agent.cjs": "test/harness/packet-agent.ts",
  "socket-agent.cjs": "test/harness/socket-agent.ts",
  "mconnect-agent.cjs": "test/harness/mconnect-agent.ts",
  "demo.cjs": "test/harness/demo.ts",
  "whole-path.cjs": "bench/whole-path.ts",
  "footprint.cjs": "bench/footprint.ts",
  "fuzz.cjs": "test/fuzz/run.ts",
};

/** @returns {Promise<string>} the folder */
export async function buildHarness() {
  const out = join(root, "build");
  mkdirSync(out, { recursive: true });
  await Promise.all(
    Object.entries(entries).map(([file, source]) =>
      build({
        entryPoints: [join(root, source)],
        outfile: join(out, file),
        absWorkingDir: root,
        bundle: true,
        platform: "node",
        target: "node20",
        format: "cjs",
        external: ["koffi"],
        logLevel: "warning",
      }),
    ),
  );
  return out;
}
