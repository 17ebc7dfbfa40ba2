// Makes sure that what demo and tests call is there; on Debian, as root, it is installed.
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Command → Debian package. */
const needed = {
  ip: "iproute2",
  nsenter: "util-linux",
  // iptables brings the extensions with which nft prints an xt target; without them it prints nothing in its place.
  ...(process.argv.includes("setup-tests") ? { nft: "nftables", iptables: "iptables", setcap: "libcap2-bin" } : {}),
};

const isThere = (/** @type {string} */ command) => spawnSync("sh", ["-c", `command -v ${command}`]).status === 0;
const missing = Object.entries(needed).filter(([command]) => !isThere(command));
if (missing.length > 0) {
  const packages = [...new Set(missing.map(([, name]) => name))];
  const hint = `please install: ${packages.join(" ")} (Debian: apt-get install ${packages.join(" ")})`;
  if (process.geteuid?.() !== 0 || !isThere("apt-get")) {
    console.error(`setup: ${missing.map(([command]) => command).join(", ")} not found; ${hint}`);
    process.exit(1);
  }
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const steps = [
    ["apt-get", "-qq", "update"],
    ["apt-get", "-qq", "install", "-y", "--no-install-recommends", ...packages],
  ];
  for (const [command = "", ...args] of steps) {
    const { status, stderr, stdout } = spawnSync(command, args, { env, encoding: "utf8" });
    if (status === 0) continue;
    console.error(`setup: ${command} ${args.join(" ")} failed; ${hint}\n${stdout}${stderr}`);
    process.exit(1);
  }
}

// promtool judges alert rules and the metrics' text. Debian has it in the package of the server, whose installation would
// start that server: so only this one file is taken out of it. Without it the tests that need it are skipped by name.
const promtool = join(dirname(fileURLToPath(import.meta.url)), "..", ".cache", "promtool");
if (process.argv.includes("setup-tests") && !isThere("promtool") && !existsSync(promtool)) {
  mkdirSync(dirname(promtool), { recursive: true });
  const folder = mkdtempSync(`${promtool}-`);
  const run = (/** @type {string} */ command, /** @type {string[]} */ ...args) =>
    spawnSync(command, args, { cwd: folder, encoding: "utf8" }).status === 0;
  const extract = () => {
    const [file = ""] = readdirSync(folder).filter((name) => name.endsWith(".deb"));
    return run("dpkg-deb", "--extract", file, ".");
  };
  if (run("apt-get", "-qq", "download", "prometheus") && extract()) {
    renameSync(join(folder, "usr/bin/promtool"), promtool);
    chmodSync(promtool, 0o755);
  } else console.error("setup: promtool cannot be fetched (apt-get download prometheus); its tests will be skipped");
  rmSync(folder, { recursive: true });
}
