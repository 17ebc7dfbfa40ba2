// The second part of `make bench`: memory of both programs together, their CPU while nothing happens, and that of a scrape,
// with 100 streams, 1,000 flows and 1,000 targets. `--write` puts the figures into docs/performance.md.
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildHarness } from "./build-harness.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const build = await buildHarness();
const ROUNDS = Number(process.env["BENCH_ROUNDS"] ?? 3);
const kinds = { following: "following an NSP of its own process", alone: "alone, the NSP inside" };

/** @typedef {import("../test/harness/footprint.js").Footprint & import("../test/harness/footprint.js").Scrapes} Figure */

/** @param {string} kind @returns {Figure} */
function measure(kind) {
  const args = [join(build, "footprint.cjs"), kind, join(root, "bin")];
  const { stdout, status } = spawnSync(process.execPath, args, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (status !== 0) throw new Error(`bench footprint ${kind} failed`);
  return JSON.parse(stdout);
}

const all = Object.entries(kinds).map(([kind, name]) => ({ kind, name, figures: /** @type {Figure[]} */ ([]) }));
for (let round = 0; round < ROUNDS; round++) for (const { kind, figures } of all) figures.push(measure(kind)); // interleaved: other load hits all alike

/** @param {readonly number[]} values */
const sort = (values) => [...values].sort((a, b) => a - b);
/** @param {readonly number[]} values */
const median = (values) => sort(values)[values.length >> 1] ?? 0;
/** Median of the rounds, the least and the most. @param {readonly number[]} values @param {number} digits */
const show = (values, digits) => {
  const [least, most] = [Math.min(...values), Math.max(...values)].map((value) => value.toFixed(digits));
  return `${median(values).toFixed(digits)} (${least} to ${most})`;
};
/** @param {string} what @param {(figure: Figure) => number} pick @param {number} digits */
const row = (what, pick, digits = 1) =>
  `| ${what} | ${all.map(({ figures }) => show(figures.map(pick), digits)).join(" | ")} |`;
const text = `${ROUNDS} interleaved rounds: medians, the least and the most.

| MiB | ${all.map(({ name }) => name).join(" | ")} |
|---|${all.map(() => "---").join("|")}|
${[
  row("**resident together, shared pages once**", (one) => one.togetherMib),
  row("of it the control plane's own", (one) => one.controlAnonymousMib),
  row("of it the data plane's own", (one) => one.dataAnonymousMib),
  row("of it programs and libraries, both", (one) => one.programsMib),
  row("of it table images that are mapped", (one) => one.imagesMib),
  row("RSS of the control plane", (one) => one.controlRssMib),
  row("RSS of the data plane", (one) => one.dataRssMib),
  row("PSS of both", (one) => one.pssMib),
  row("**CPU of both while nothing happens, % of a core**", (one) => one.controlCpu + one.dataCpu, 2),
  row("CPU of the control plane while nothing happens, % of a core", (one) => one.controlCpu, 2),
  row("CPU of the data plane while nothing happens, % of a core", (one) => one.dataCpu, 2),
  row("**CPU of a scrape, ms: median of 20**", (one) => median(one.scrapeCpuMs)),
  row("the first scrape", (one) => one.scrapeCpuMs[0] ?? 0),
  row("the dearest one", (one) => Math.max(...one.scrapeCpuMs)),
].join("\n")}
`;
console.log(text);
if (process.argv.includes("--write")) {
  const path = join(root, "docs/performance.md");
  const document = readFileSync(path, "utf8");
  const [head = "", tail = ""] = document.split(/<!-- footprint -->[\s\S]*<!-- end of footprint -->/);
  writeFileSync(path, `${head}<!-- footprint -->\n${text}<!-- end of footprint -->${tail}`);
}
