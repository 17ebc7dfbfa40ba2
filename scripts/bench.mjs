// `make bench`: what a packet costs, beside plain forwarding and an nftables jhash rule in the same run, and beside an
// upstream nfqlb where BENCH_NFQLB names one. `make bench ARGS=--write` puts the figures into docs/performance.md.
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildHarness } from "./build-harness.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const build = await buildHarness();
const upstream = process.env["BENCH_NFQLB"] ?? "";
const ROUNDS = Number(process.env["BENCH_ROUNDS"] ?? 3);
const names = {
  forward: "plain forwarding",
  jhash: "nft jhash mark rule, 4 targets",
  nfqlb: "nfqlb, 4 targets",
  "nfqlb-1000-targets": "nfqlb, 1,000 targets",
  "nfqlb-2000-rules": "nfqlb, 2,000 flow rules",
  "nfqlb-20000-rules": "nfqlb, 20,000 flow rules",
  upstream: "upstream nfqlb, 4 targets",
};
const modes = Object.keys(names).filter((mode) => mode !== "upstream" || upstream !== "");

/** @typedef {{ mode: string, lost: number, rate: number, machineUs: number, processUs: number | null, userUs: number | null, peakPerSecond: number, bestPeakPerSecond?: number }} Figure */

/** @param {string} mode @returns {Figure} */
function measure(mode) {
  const args = [join(build, "whole-path.cjs"), mode, join(root, "bin"), build, upstream];
  const { stdout, status } = spawnSync(process.execPath, args, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (status !== 0) throw new Error(`bench ${mode} failed`);
  return JSON.parse(stdout);
}

/**
 * Single peaks scatter widely; the best is shown beside the median, which is what counts.
 * @param {readonly number[]} values
 */
const best = (values) => Math.max(...values);
/** @param {readonly number[]} values */
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
/** @param {number | null | undefined} value @param {number} digits */
const show = (value, digits = 2) => (value === null || value === undefined ? "" : value.toFixed(digits));

/** @type {Record<string, Figure>} */
const figures = {};
const rounds = modes.map(() => /** @type {Figure[]} */ ([]));
for (let round = 0; round < ROUNDS; round++) {
  for (const [i, mode] of modes.entries()) rounds[i]?.push(measure(mode)); // interleaved: other load hits all alike
}
for (const [i, mode] of modes.entries()) {
  const all = rounds[i] ?? [];
  const pick = (/** @type {(figure: Figure) => number | null} */ of) => median(all.map((figure) => of(figure) ?? 0));
  const isProcess = all[0]?.processUs !== null;
  figures[mode] = {
    mode,
    lost: pick(({ lost }) => lost),
    rate: pick(({ rate }) => rate),
    machineUs: pick(({ machineUs }) => machineUs),
    processUs: isProcess ? pick(({ processUs }) => processUs) : null,
    userUs: isProcess ? pick(({ userUs }) => userUs) : null,
    peakPerSecond: pick(({ peakPerSecond }) => peakPerSecond),
    bestPeakPerSecond: best(all.map(({ peakPerSecond }) => peakPerSecond)),
  };
}
const rows = modes.map((mode) => {
  const { machineUs, processUs, userUs, lost, peakPerSecond, bestPeakPerSecond } =
    figures[mode] ?? /** @type {Figure} */ ({});
  return `| ${names[/** @type {keyof typeof names} */ (mode)]} | ${show(machineUs)} | ${show(processUs)} | ${show(userUs)} | ${lost} | ${show(peakPerSecond / 1000, 0)} | ${show((bestPeakPerSecond ?? 0) / 1000, 0)} |`;
});
const { forward, nfqlb, "nfqlb-1000-targets": many } = figures;
const cpuRatio = (/** @type {string} */ mode) => show((figures[mode]?.processUs ?? 0) / (nfqlb?.processUs ?? 1));
const ratios = [
  `CPU per packet of the process / of the whole machine for plain forwarding: ${show((nfqlb?.processUs ?? 0) / (forward?.machineUs ?? 1))}`,
  `peak rate / that of plain forwarding: ${show((nfqlb?.peakPerSecond ?? 0) / (forward?.peakPerSecond ?? 1))} (best rounds: ${show((nfqlb?.bestPeakPerSecond ?? 0) / (forward?.bestPeakPerSecond ?? 1))})`,
  `CPU per packet with 2,000 flow rules / with one: ${cpuRatio("nfqlb-2000-rules")}; with 20,000: ${cpuRatio("nfqlb-20000-rules")}`,
  `peak rate with 1,000 targets / with 4: ${show((many?.peakPerSecond ?? 0) / (nfqlb?.peakPerSecond ?? 1))}`,
];
const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: root, encoding: "utf8" }).trim();
const machine = `${cpus().length} × ${cpus()[0]?.model.trim()}, Linux ${release().replace(/-.*/, "")}, node ${process.version}, commit ${commit}`;
const text = `Machine: ${machine}

UDP packets of 46 bytes at 100,000 per second on one queue; ${ROUNDS} interleaved rounds: medians of CPU per packet in µs and of the peak, and the best peak.

| | whole machine | process | of it user | lost | peak, kpps | best peak |
|---|---|---|---|---|---|---|
${rows.join("\n")}

${ratios.map((ratio) => `- ${ratio}`).join("\n")}
`;
console.log(text);
if (process.argv.includes("--write")) {
  const path = join(root, "docs/performance.md");
  const document = readFileSync(path, "utf8");
  const [head = "", tail = ""] = document.split(/<!-- figures -->[\s\S]*<!-- end of figures -->/);
  writeFileSync(path, `${head}<!-- figures -->\n${text}<!-- end of figures -->${tail}`);
}
