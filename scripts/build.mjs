// Bundles the programs into bin/: one CommonJS file each, with the native parts of libraries beside them, so that they
// start fast (a restart of the data plane counts in milliseconds) and need no node_modules.
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const out = join(root, "bin");
const require = createRequire(import.meta.url);

/** Programs: file in bin/ → source. The worker has to be a file of its own. */
const entries = {
  nfqlb: "src/programs/nfqlb.ts",
  "stateless-lb": "src/programs/stateless-lb.ts",
  "queue-worker.cjs": "src/programs/queue-worker.ts",
};

const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

/**
 * `nfqlb` starts as a shell script, so that who only watches gets the time that nobody else wants, and that from the first
 * moment: the start of node is most of what a watcher costs (decision 0062). To node the second line is a text and a comment.
 */
const WATCHER_START = [
  "#!/bin/sh",
  `':' //; case "$1 \${NFQLB_WATCHERS:-idle}" in "trace idle" | "top idle") command -v chrt >/dev/null && exec chrt -i 0 node "$0" "$@"; exec nice -n 19 node "$0" "$@" ;; esac; exec node "$0" "$@"`,
].join("\n");

/** koffi's native part is loaded from the bundle's own folder; packages of other platforms are not needed. */
const koffiPlugin = {
  name: "koffi",
  /** @param {import("esbuild").PluginBuild} builder */
  setup(builder) {
    builder.onResolve({ filter: /^koffi$/ }, () => ({ path: join(dirname(require.resolve("koffi")), "index.cjs") }));
    builder.onResolve({ filter: /^@koromix\/koffi-/ }, (args) => ({ path: args.path, namespace: "koffi-native" }));
    builder.onLoad({ filter: /.*/, namespace: "koffi-native" }, (args) => ({
      contents: args.path.startsWith(`@koromix/koffi-${process.platform}-${process.arch}`)
        ? `const m = { exports: {} }; process.dlopen(m, require("node:path").join(__dirname, "koffi.node")); module.exports = m.exports;`
        : `throw new Error("not this platform");`,
      loader: "js",
    }));
  },
};

/** The database's native part too; its own code that looks for the platform's package has nothing to find here. */
const libsqlPlugin = {
  name: "libsql",
  /** @param {import("esbuild").PluginBuild} builder */
  setup(builder) {
    builder.onLoad({ filter: /node_modules\/libsql\/index\.js$/ }, ({ path }) => {
      const load = `const m = { exports: {} }; process.dlopen(m, require("node:path").join(__dirname, "libsql.node")); return m.exports;`;
      const text = readFileSync(path, "utf8")
        .replace(/const \{[^}]*\} = require\("(?:@neon-rs\/load|detect-libc)"\);/g, "")
        .replace(/function requireNative\(\) \{.*?\n\}\n/s, `function requireNative() { ${load} }\n`);
      if (text.includes("@neon-rs") || !text.includes("libsql.node")) throw new Error(`${path}: not what is known`);
      return { contents: text, loader: "js" };
    });
  },
};

mkdirSync(out, { recursive: true });
writeFileSync(join(out, "package.json"), '{ "type": "commonjs" }\n');
const isMusl = !(/** @type {any} */ (process.report.getReport()).header.glibcVersionRuntime);
const platform = `${process.platform}-${process.arch}`;
const nativeFolder = dirname(require.resolve(`@koromix/koffi-${platform}/package.json`));
copyFileSync(join(nativeFolder, `${isMusl ? "musl" : "linux"}_${process.arch}`, "koffi.node"), join(out, "koffi.node"));
const libsqlPackage = `@libsql/${platform}-${isMusl ? "musl" : "gnu"}`;
copyFileSync(require.resolve(libsqlPackage), join(out, "libsql.node"));

await Promise.all(
  Object.entries(entries).map(async ([file, source]) => {
    const isProgram = !file.endsWith(".cjs");
    await build({
      entryPoints: [join(root, source)],
      outfile: join(out, file),
      absWorkingDir: root,
      bundle: true,
      platform: "node",
      target: "node20",
      format: "cjs",
      minifyWhitespace: true,
      logLevel: "warning",
      plugins: [koffiPlugin, libsqlPlugin],
      define: { "process.env.BUILD_VERSION": JSON.stringify(version) },
      banner: { js: file === "nfqlb" ? WATCHER_START : isProgram ? "#!/usr/bin/env node" : "" },
    });
    if (isProgram) chmodSync(join(out, file), 0o755);
  }),
);
