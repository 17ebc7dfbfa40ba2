import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { ROOT } from "./bundled.js";

/** What matters here of a container and its pod, as Kubernetes has it. */
export type Container = {
  readonly env: readonly { readonly name: string; readonly value: string }[];
  readonly securityContext: {
    readonly runAsUser: number;
    readonly runAsGroup: number;
    readonly readOnlyRootFilesystem: boolean;
    readonly allowPrivilegeEscalation: boolean;
    readonly capabilities: { readonly drop: readonly string[]; readonly add: readonly string[] };
  };
  readonly volumeMounts: readonly { readonly mountPath: string }[];
};

/**
 * Runs built programs as a container's, in this network namespace: with its environment and no other, its user, groups
 * and capabilities (which are on node's file), and a root where only its volumes, empty at first, can be written. The
 * image is docs/deployment.md's, with /opt/bin in place of /bin. Needs real root.
 */
export class RunningContainer implements Disposable {
  readonly #child: ChildProcess;
  readonly #identity: readonly string[];
  /** Everything it printed. */
  output = "";

  /**
   * @param folder in /tmp, readable for everybody
   * @param hosts lines of /etc/hosts
   */
  constructor(folder: string, container: Container, groups: readonly number[], hosts: string) {
    const { runAsUser, runAsGroup, allowPrivilegeEscalation, capabilities } = container.securityContext;
    const added = capabilities.add.map((name) => `+${name.toLowerCase()}`);
    const node = join(folder, "node");
    copyFileSync(process.execPath, node);
    execFileSync("setcap", ["cap_net_admin+ep", node]);
    writeFileSync(join(folder, "hosts"), hosts);
    chmodSync(join(folder, "hosts"), 0o644);
    const environment = container.env.map(({ name, value }) => `${name}=${value}`);
    this.#identity = [
      "setpriv",
      `--reuid=${runAsUser}`,
      `--regid=${runAsGroup}`,
      groups.length === 0 ? "--clear-groups" : `--groups=${groups.join(",")}`,
      "--inh-caps=-all",
      "--ambient-caps=-all",
      `--bounding-set=${["-all", ...added].join(",")}`,
      ...(allowPrivilegeEscalation ? [] : ["--no-new-privs"]),
      "env",
      "-i",
      "PATH=/opt/bin:/usr/bin:/bin",
      ...environment,
    ];
    const volumes = container.volumeMounts.map(({ mountPath }) => mountPath);
    const script = `
      mount --make-rprivate /
      mount -t tmpfs tmpfs /opt
      mkdir /opt/bin /opt/stateless-lb
      mount --bind "${join(ROOT, "bin")}" /opt/stateless-lb
      touch /opt/bin/node && mount --bind "${node}" /opt/bin/node
      mount --bind "${join(folder, "hosts")}" /etc/hosts
      ln -s ../stateless-lb/stateless-lb ../stateless-lb/nfqlb /opt/bin/
      ln -s ../stateless-lb/stateless-lb /opt/bin/grpc_health_probe
      ${volumes.map(mountVolume).join("\n")}
      while read -r _ point _; do
        case "$point" in ${volumes.join("|")}) ;; *) mount -o remount,bind,ro "$point" 2>/dev/null || true ;; esac
      done < /proc/self/mounts
      if touch /opt/written 2>/dev/null; then echo "not read-only"; exit 99; fi
      cd / && exec "$@"`;
    const args = ["-m", "sh", "-ec", script, "sh", ...this.#identity, "stateless-lb"];
    this.#child = spawn("unshare", args, { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout!, this.#child.stderr!])
      stream.on("data", (chunk) => {
        this.output += String(chunk);
      });
  }

  /** Runs a command in it, as `kubectl exec` or a probe does. */
  exec(command: readonly string[]): { readonly code: number | null; readonly out: string } {
    const enter = ["-t", String(this.#child.pid), "-m", "--root", "--wd=/", "--", ...this.#identity, ...command];
    const { status, stdout, stderr } = spawnSync("nsenter", enter, { encoding: "utf8", timeout: 10_000 });
    return { code: status, out: `${stdout}${stderr}` };
  }

  /** SIGTERM; its exit code. */
  async stop(): Promise<number | null> {
    const exited = new Promise<number | null>((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGTERM");
    return await exited;
  }

  [Symbol.dispose](): void {
    this.#child.kill("SIGKILL");
  }
}

/** An empty directory; where the image lacks the path its runtime would make it. */
function mountVolume(path: string): string {
  const make = `[ -d "${path}" ] || { mount -t tmpfs tmpfs "${dirname(path)}" && mkdir "${path}"; }`;
  return `${make}\nmount -t tmpfs -o mode=0777 tmpfs "${path}"`;
}
