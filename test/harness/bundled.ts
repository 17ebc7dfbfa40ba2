import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** Bundles a source file of the project as the build does, FFI library outside, and returns the file to run. */
export async function bundle(source: string, folder: string): Promise<string> {
  const outfile = join(folder, "bundle.cjs");
  await build({
    entryPoints: [join(ROOT, source)],
    outfile,
    absWorkingDir: ROOT,
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node20",
    external: ["koffi"],
    logLevel: "error",
  });
  return outfile;
}

/** Runs a source file bundled, in a node of its own, and returns what it printed on standard output. */
export async function runBundled(source: string, ...args: string[]): Promise<string> {
  const folder = mkdtempSync(join(ROOT, "node_modules", ".bundle-")); // inside the tree, so that koffi is found
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [await bundle(source, folder), ...args]);
    return stdout;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
