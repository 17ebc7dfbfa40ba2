import { execFileSync, spawn } from "node:child_process";
import { CLONE_NEWNET, CLONE_NEWNS, unshare } from "#sys";

/** Why a test that needs namespaces of its own cannot run here, or null. */
export function namespaceObstacle(): string | null {
  return process.geteuid?.() === 0 ? null : "needs root, or a user namespace around the run (unshare -r)";
}

/**
 * Moves this thread, and everything it starts from now on, into fresh network and mount namespaces with a loopback
 * device that is up and a /dev/shm of their own. They vanish with the process.
 */
export function enterFreshNamespaces(): void {
  unshare(CLONE_NEWNET | CLONE_NEWNS);
  run("mount", "--make-rprivate", "/");
  run("mount", "-t", "sysfs", "sysfs", "/sys");
  run("mount", "-t", "tmpfs", "tmpfs", "/dev/shm");
  ip("link set lo up");
}

/** Runs a command and returns what it printed. @throws with its standard error */
export function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** Lines for `ip -batch`, in this namespace. */
export function ip(...lines: string[]): void {
  execFileSync("ip", ["-batch", "-"], { input: lines.join("\n"), stdio: ["pipe", "ignore", "pipe"] });
}

/** Another host: a network namespace held by a child that ends when its standard input closes. */
export type Host = {
  readonly pid: number;
  /** Runs a command inside and returns what it printed. */
  readonly run: (command: string, ...args: string[]) => string;
  readonly ip: (...lines: string[]) => void;
  /** Starts a command inside; what it gives ends that. */
  readonly start: (command: string, ...args: string[]) => () => Promise<void>;
  /** Its links are gone at once; the kernel would take them away some time after the namespace's last process. */
  readonly close: () => void;
};

/** A pair of veth devices goes as a whole, so that the name of the end outside is free afterwards; others may be faster. */
const DELETE_LINKS =
  "ip -brief link show type veth | cut -d @ -f 1 | while read link; do ip link delete $link 2>/dev/null || :; done";

/** Makes a host; it has nothing but a loopback device that is up. */
export async function makeHost(): Promise<Host> {
  const child = spawn("unshare", ["-n", "sh", "-c", "ip link set lo up; echo ready; exec cat"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.stdout.once("data", () => resolve());
  });
  child.stdout.resume();
  const pid = child.pid!;
  return {
    pid,
    run: (command, ...args) => run("nsenter", "-t", String(pid), "-n", command, ...args),
    ip: (...lines) => {
      execFileSync("nsenter", ["-t", String(pid), "-n", "ip", "-batch", "-"], {
        input: lines.join("\n"),
        stdio: ["pipe", "ignore", "pipe"],
      });
    },
    start: (command, ...args) => {
      const started = spawn("nsenter", ["-t", String(pid), "-n", command, ...args], { stdio: "ignore" });
      const ended = new Promise<void>((resolve) => started.once("exit", () => resolve()));
      return () => {
        started.kill("SIGKILL");
        return ended;
      };
    },
    close: () => {
      if (child.exitCode === null) run("nsenter", "-t", String(pid), "-n", "sh", "-c", DELETE_LINKS);
      child.stdin.end();
    },
  };
}
