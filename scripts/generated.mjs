// Generated files: with --write they are written, otherwise each must equal what would be written.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const isWrite = process.argv.includes("--write");
const folder = mkdtempSync(join(tmpdir(), "generated-"));
/** @type {string[]} */
const problems = [];

/** @param {string} path @param {string} content */
function settle(path, content) {
  if (isWrite) writeFileSync(join(root, path), content);
  else if (readFileSync(join(root, path), "utf8") !== content)
    problems.push(`${path} is not current: run npm run generate`);
}

const outfile = join(folder, "settings.mjs");
await build({
  entryPoints: [join(root, "src/programs/stateless-lb/settings.ts")],
  outfile,
  bundle: true,
  platform: "node",
  format: "esm",
  logLevel: "error",
});
const { settingsTable } = await import(outfile);
settle(
  "docs/settings.md",
  `# Settings of stateless-lb\n\nEnvironment variables. Names, types and defaults are Meridio's up to \`NSM_SOCKET\`; values are read as Go reads them. A variable that\nis set to the empty text counts as set. Generated from \`src/programs/stateless-lb/settings.ts\`.\n\n${settingsTable()}`,
);

execFileSync(join(root, "node_modules/.bin/buf"), ["generate", "--output", folder], { cwd: root, stdio: "inherit" });
for (const name of ["configuration_manager_pb", "model_pb", "target_registry_pb"]) {
  for (const extension of ["js", "d.ts"]) {
    const path = `src/nsp/gen/nsp/v1/${name}.${extension}`;
    settle(path, readFileSync(join(folder, path), "utf8"));
  }
}
rmSync(folder, { recursive: true });
for (const problem of problems) console.error(problem);
process.exit(problems.length === 0 ? 0 : 1);
