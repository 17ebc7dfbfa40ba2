// Runs the demo; as an ordinary user inside a user namespace, where the system permits it.
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildHarness } from "./build-harness.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const build = await buildHarness();
const command = [process.execPath, join(build, "demo.cjs"), join(root, "bin"), build, ...process.argv.slice(2)];
if (process.geteuid?.() !== 0) {
  const probe = spawnSync("unshare", ["-Urnm", "true"]);
  if (probe.status !== 0) {
    console.error("demo: needs root, or unprivileged user namespaces (unshare -Urnm does not work here)");
    process.exit(1);
  }
  command.unshift("unshare", "-Urnm");
}
const { status } = spawnSync(command[0] ?? "", command.slice(1), { stdio: "inherit" });
process.exit(status ?? 1);
