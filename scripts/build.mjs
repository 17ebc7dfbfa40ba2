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

/**
 * Options of node, which it takes at its start only (decision 0056). The data plane's threads allocate at their start alone. The
 * control plane makes garbage slowly while nothing happens: it is collected when SettledMemory says so, in one go, and
 * under load when the heap has grown by half.
 */
const DATA_OPTIONS = "--optimize-for-size --no-memory-reducer --v8-pool-size=1 --expose-gc";
const CONTROL_OPTIONS =
  "--max-semi-space-size=1 --heap-growing-percent=50 --no-memory-reducer --no-parallel-scavenge --v8-pool-size=1 --expose-gc";

/** Programs: file in bin/ → source, and options of node. The worker has to be a file of its own. */
const entries = {
  nfqlb: { source: "src/programs/nfqlb.ts", options: DATA_OPTIONS },
  "stateless-lb": { source: "src/programs/stateless-lb.ts", options: CONTROL_OPTIONS },
  "queue-worker.cjs": { source: "src/programs/queue-worker.ts", options: null },
};

const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

/**
 * A program is a shell script that starts node on itself with what node takes at its start only: to node the second line is a
 * text and a comment. No options from the environment of whoever starts it are needed, and the process stays the same.
 *
 * Both are small programs that live long, so memory is preferred to speed where V8 asks (decision 0056). One arena: glibc
 * gives each thread one of its own, and threads of ours allocate at their start alone. Who only watches gets the time that
 * nobody else wants, and that from the first moment: the start of node is most of what a watcher costs (decision 0062).
 * @param {string} options
 */
const starter = (options) => {
  const watcher = `case "$1 \${NFQLB_WATCHERS:-idle}" in "trace idle" | "top idle") command -v chrt >/dev/null && exec chrt -i 0 node ${options} "$0" "$@"; exec nice -n 19 node ${options} "$0" "$@" ;; esac; `;
  const arena = `MALLOC_ARENA_MAX="\${MALLOC_ARENA_MAX:-1}"; export MALLOC_ARENA_MAX; `;
  return `#!/bin/sh\n':' //; ${arena}${options === DATA_OPTIONS ? watcher : ""}exec node ${options} "$0" "$@"`;
};

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

/** Reading of .proto files, for services of gRPC's own that we do not offer; the library loads it when they are asked for. */
const protoLoaderPlugin = {
  name: "proto-loader",
  /** @param {import("esbuild").PluginBuild} builder */
  setup(builder) {
    builder.onResolve({ filter: /^@grpc\/proto-loader$/ }, (args) => ({ path: args.path, namespace: "left-out" }));
    builder.onLoad({ filter: /.*/, namespace: "left-out" }, () => ({
      contents: 'throw new Error("left out");',
      loader: "js",
    }));
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
  Object.entries(entries).map(async ([file, { source, options }]) => {
    await build({
      entryPoints: [join(root, source)],
      outfile: join(out, file),
      absWorkingDir: root,
      bundle: true,
      platform: "node",
      target: "node20",
      format: "cjs",
      minifyWhitespace: true,
      minifySyntax: true,
      logLevel: "warning",
      plugins: [koffiPlugin, libsqlPlugin, protoLoaderPlugin],
      define: { "process.env.BUILD_VERSION": JSON.stringify(version) },
      banner: { js: options === null ? "" : starter(options) },
    });
    if (options !== null) chmodSync(join(out, file), 0o755);
    // V8 keeps the text, with two bytes for each character if any of them needs two.
    if (/[^\0-\x7f]/.test(readFileSync(join(out, file), "latin1"))) throw new Error(`${file}: not plain ASCII`);
  }),
);
