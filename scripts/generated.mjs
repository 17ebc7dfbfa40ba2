// Generated files: with --write they are written, otherwise each must equal what would be written.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { requirementTables } from "./requirements.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const isWrite = process.argv.includes("--write");
const folder = mkdtempSync(join(tmpdir(), "generated-"));
/** @type {string[]} */
const problems = [];

/** @param {string} path @param {string} content */
function settle(path, content) {
  const file = join(root, path);
  if (isWrite) {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
  } else if (!existsSync(file) || readFileSync(file, "utf8") !== content)
    problems.push(`${path} is not current: run npm run generate`);
}

const outfile = join(folder, "settings.mjs");
await build({
  entryPoints: [join(root, "src/programs/stateless-lb/settings-text.ts")],
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

const requirements = requirementTables(root);
problems.push(...requirements.problems);
const testing = readFileSync(join(root, "docs/testing.md"), "utf8");
const marks = /(<!-- requirements -->\n)[\s\S]*(<!-- end of requirements -->)/;
settle(
  "docs/testing.md",
  testing.replace(marks, (_, begin, end) => `${begin}\n${requirements.text}\n${end}`),
);

/** Messages of the contracts: room whose gen/ has them → paths below proto/. */
const contracts = {
  nsp: ["nsp"],
  rpc: ["grpc"],
  availability: ["loadbalancer", "nsp/v1/model.proto"], // its one foreign message, so that rooms stay apart
};
for (const [room, paths] of Object.entries(contracts)) {
  const out = `src/${room}/gen`;
  const plugin = { local: "node_modules/.bin/protoc-gen-es", out, opt: ["target=js+dts", "import_extension=js"] };
  const template = JSON.stringify({ version: "v2", plugins: [plugin] });
  const chosen = paths.flatMap((path) => ["--path", `proto/${path}`]);
  const args = ["generate", "--output", folder, "--template", template, ...chosen];
  execFileSync(join(root, "node_modules/.bin/buf"), args, { cwd: root, stdio: "inherit" });
  for (const entry of readdirSync(join(folder, out), { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue;
    const path = relative(folder, join(entry.parentPath ?? entry.path, entry.name));
    settle(path, readFileSync(join(folder, path), "utf8"));
  }
}
rmSync(folder, { recursive: true });
for (const problem of problems) console.error(problem);
process.exit(problems.length === 0 ? 0 : 1);
