import type { ChildProcess } from "node:child_process";
import { hostname } from "node:os";
import { join } from "node:path";
import { NspQuery, type Registration } from "#nsp";
import { until } from "./balancer.js";
import { startProgram } from "./topology.js";

const NAMES = { trench: "demo", conduit: "load-balancer", stream: "web" } as const;

/** The real `stateless-lb nsp` on a folder's configuration file, with registrations that outlive it. */
export class NspProgram implements Disposable {
  readonly address: string;
  readonly query: NspQuery;
  readonly #bin: string;
  readonly #args: readonly string[];
  #child: ChildProcess | null = null;
  #output = "";

  /** @param database no disk in what is measured */
  constructor(bin: string, { folder }: { readonly folder: string }, database = "/dev/shm/nsp.db") {
    this.#bin = bin;
    this.address = `unix:${join(folder, "nsp.sock")}`;
    const files = ["--config", join(folder, "stateless-lb.yaml"), "--database", database];
    this.#args = ["nsp", "--insecure", "--listen", this.address, ...files];
    this.query = new NspQuery({ address: this.address, security: "plain-text", maxBackoffMs: 50 });
  }

  async start(): Promise<void> {
    this.#output = "";
    this.#child = startProgram(join(this.#bin, "stateless-lb"), this.#args, {}, (text) => {
      this.#output += text;
    });
    await until("the NSP", () => (this.#output.includes("NSP serves") ? true : null));
  }

  /** SIGKILL; resolves when it is gone. */
  async kill(): Promise<void> {
    const exited = new Promise((resolve) => this.#child!.once("exit", resolve));
    this.#child!.kill("SIGKILL");
    await exited;
  }

  /** Announces this host's frontend, or takes it back. */
  async frontend(isThere: boolean): Promise<void> {
    const own: Registration = {
      ...NAMES,
      type: "frontend",
      ips: [hostname()],
      context: { identifier: hostname() },
      isEnabled: true,
    };
    await (isThere ? this.query.register(own) : this.query.unregister(own));
  }

  /** Registers a target that is not in the file, so that it counts from the second call on; or takes it back. */
  async target(identifier: number, ip: string, act: "announce" | "enable" | "remove"): Promise<void> {
    const target: Registration = {
      ...NAMES,
      type: "default",
      ips: [`${ip}/24`],
      context: { identifier: String(identifier) },
      isEnabled: act === "enable",
    };
    await (act === "remove" ? this.query.unregister(target) : this.query.register(target));
  }

  [Symbol.dispose](): void {
    this.query[Symbol.dispose]();
    this.#child?.kill("SIGKILL");
  }
}
