// `make check`: format, types, arrows, lint, dead code. All run, all faults are shown.
import { spawnSync } from "node:child_process";

const steps = ["check:format", "check:types", "check:arrows", "check:generated", "check:lint", "check:unused"];
const failed = steps.filter((step) => {
  const result = spawnSync("npm", ["run", "--silent", step], { stdio: "inherit" });
  console.log(`${result.status === 0 ? "ok    " : "FAILED"} ${step}`);
  return result.status !== 0;
});
process.exit(failed.length === 0 ? 0 : 1);
