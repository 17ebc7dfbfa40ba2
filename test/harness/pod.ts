import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./bundled.js";

/** User and group of the reference's image. */
export const POD_USER = 10002;

/** How the programs get CAP_NET_ADMIN, or do not: `file` is a capability on node's own file. */
export type Grant = "ambient" | "file" | "none";

/**
 * Makes a folder with a `stateless-lb` that runs the built program as a pod does: an ordinary user without groups, no
 * new privileges (but for `file`, which is one), no capability but CAP_NET_ADMIN in the bounding set, and a mount namespace where everything is
 * read-only but /tmp and /dev/shm. node and the programs are bound in, so that the user need not be able to reach the
 * project's folder. Needs real root.
 * @param folder in /tmp, readable for everybody
 */
export function makePod(folder: string, grant: Grant): string {
  const pod = join(folder, grant);
  const bin = join(pod, "bin");
  mkdirSync(bin, { recursive: true });
  for (const path of [folder, pod, bin]) chmodSync(path, 0o755);
  const node = join(pod, "node");
  if (grant === "file") {
    copyFileSync(process.execPath, node);
    execFileSync("setcap", ["cap_net_admin+ep", node]);
  } else writeFileSync(node, "");
  const bindNode = grant === "file" ? "" : `mount --bind "${process.execPath}" "${node}"`;
  const ambient = grant === "ambient" ? "+net_admin" : "-all";
  const capabilities = [
    `--inh-caps=-all,${ambient} --ambient-caps=-all,${ambient}`,
    `--bounding-set=-all,${grant === "none" ? "-all" : "+net_admin"}`,
    grant === "file" ? "" : "--no-new-privs",
  ].join(" ");
  const script = `#!/bin/sh
exec unshare -m sh -ec '
  mount --make-rprivate /
  mount --bind /tmp /tmp
  mount --bind "${join(ROOT, "bin")}" "${bin}"
  ${bindNode}
  while read -r _ point _; do
    case "$point" in /tmp|/dev/shm) ;; *) mount -o remount,bind,ro "$point" 2>/dev/null || true ;; esac
  done < /proc/self/mounts
  if touch "${ROOT}/written" /proc/sys/net/ipv4/ip_forward 2>/dev/null; then echo "not read-only" >&2; exit 99; fi
  export PATH="${pod}:$PATH"
  exec setpriv --reuid ${POD_USER} --regid ${POD_USER} --clear-groups ${capabilities} "${join(bin, "stateless-lb")}" "$@"
' sh "$@"
`;
  const launcher = join(pod, "stateless-lb");
  writeFileSync(launcher, script, { mode: 0o755 });
  return pod;
}
