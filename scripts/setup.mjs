// Makes sure that what demo and tests call is there; on Debian, as root, it is installed.
import { spawnSync } from "node:child_process";

/** Command → Debian package. */
const needed = {
  ip: "iproute2",
  nsenter: "util-linux",
  // iptables brings the extensions with which nft prints an xt target; without them it prints nothing in its place.
  ...(process.argv.includes("setup-tests") ? { nft: "nftables", iptables: "iptables" } : {}),
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
