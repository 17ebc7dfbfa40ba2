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
  "nfqlb-2000-prefixes": "nfqlb, 2,000 rules of 32 prefixes each way",
  "nfqlb-20000-prefixes": "nfqlb, 20,000 of these",
  upstream: "upstream nfqlb, 4 targets",
};
const modes = Object.keys(names).filter((mode) => mode !== "upstream" || upstream !== "");

/** @typedef {{ mode: string, lost: number, rate: number, machineUs: number, processUs: number | null, userUs: number | null, peaks: { perSecond: number, roundTripNs: number }[] }} Figure */

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

/** @param {readonly number[]} values */
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
/** Least, median and most. @param {readonly number[]} values @returns {[number, number, number]} */
const spread = (values) => [Math.min(...values), median(values), Math.max(...values)];
/** @param {string} mode */
const peaksOf = (mode) => (figures[mode]?.peaks ?? []).map(({ perSecond }) => perSecond);
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
    peaks: all.flatMap(({ peaks }) => peaks),
  };
}
const rows = modes.map((mode) => {
  const { machineUs, processUs, userUs, lost } = figures[mode] ?? /** @type {Figure} */ ({});
  const [least = 0, middle = 0, most = 0] = spread(peaksOf(mode)).map((perSecond) => perSecond / 1000);
  return `| ${names[/** @type {keyof typeof names} */ (mode)]} | ${show(machineUs)} | ${show(processUs)} | ${show(userUs)} | ${lost} | ${show(middle, 0)} | ${show(least, 0)} to ${show(most, 0)} |`;
});
const { forward, nfqlb } = figures;
const peakRatio = (/** @type {string} */ mode, /** @type {string} */ base) =>
  show(median(peaksOf(mode)) / median(peaksOf(base)));
const cpuRatio = (/** @type {string} */ mode) => show((figures[mode]?.processUs ?? 0) / (nfqlb?.processUs ?? 1));
const nfqlbPeaks = Object.entries(figures).flatMap(([mode, { peaks }]) => (mode.startsWith("nfqlb") ? peaks : []));
const [fast, usual, slow] = spread(nfqlbPeaks.map(({ roundTripNs }) => roundTripNs));
const peaksWhere = (/** @type {(roundTripNs: number) => boolean} */ isWanted) =>
  median(nfqlbPeaks.filter(({ roundTripNs }) => isWanted(roundTripNs)).map(({ perSecond }) => perSecond));
const afterFast = peaksWhere((ns) => ns < usual);
const afterSlow = peaksWhere((ns) => ns >= usual);
const ratios = [
  `CPU per packet of the process / of the whole machine for plain forwarding: ${show((nfqlb?.processUs ?? 0) / (forward?.machineUs ?? 1))}`,
  `peak rate / that of plain forwarding: ${peakRatio("nfqlb", "forward")}`,
  `CPU per packet with 2,000 flow rules / with one: ${cpuRatio("nfqlb-2000-rules")}; with 20,000: ${cpuRatio("nfqlb-20000-rules")}`,
  `CPU per packet with 2,000 flow rules of 32 prefixes in both addresses / with one rule: ${cpuRatio("nfqlb-2000-prefixes")}; with 20,000: ${cpuRatio("nfqlb-20000-prefixes")}`,
  `peak rate with 1,000 targets / with 4: ${peakRatio("nfqlb-1000-targets", "nfqlb")}`,
  `a cache line from one CPU to the other and back, before each peak: ${show(fast, 0)} to ${show(slow, 0)} ns, median ${show(usual, 0)}; peaks of nfqlb after the faster half: median ${show(afterFast / 1000, 0)}, after the slower: ${show(afterSlow / 1000, 0)} kpps`,
];
const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: root, encoding: "utf8" }).trim();
const machine = `${cpus().length} × ${cpus()[0]?.model.trim()}, Linux ${release().replace(/-.*/, "")}, node ${process.version}, commit ${commit}`;
const text = `Machine: ${machine}

UDP packets of 46 bytes at 100,000 per second on one queue; ${ROUNDS} interleaved rounds: medians of CPU per packet in µs, and of five peaks a round, with the least and the most.

| | whole machine | process | of it user | lost | peak, kpps | peaks |
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
