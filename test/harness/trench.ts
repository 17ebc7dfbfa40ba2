import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import type { Registration } from "#nsp";
import { SHM } from "./balancer.js";
import { ROOT } from "./bundled.js";
import { NspProgram } from "./nsp-program.js";
import type { Pod, Site, SiteClient, SiteTarget } from "./site.js";

export type Flow = {
  readonly name: string;
  readonly stream: string;
  readonly priority: number;
  readonly protocols: readonly string[];
  readonly vips: readonly string[];
  readonly "destination-port-ranges": readonly string[];
  readonly "byte-matches"?: readonly string[];
};
export type Stream = { readonly name: string; readonly conduit: string; readonly "max-targets": number };
type Nat = {
  readonly protocol: string;
  readonly port: number;
  readonly "target-port": number;
  readonly vips: readonly string[];
};
/** The content of a configuration file. */
export type TrenchFile = {
  readonly trench: { readonly name: string };
  readonly conduits: readonly { readonly name: string; readonly "destination-port-nats"?: readonly Nat[] }[];
  readonly vips: readonly { readonly name: string; readonly address: string }[];
  readonly streams: readonly Stream[];
  readonly flows: readonly Flow[];
};

/** A trench: its NSP, its outside world, and what operators and applications do there. */
export class Trench {
  readonly client: SiteClient;
  readonly nsp: NspProgram;
  readonly #name: string;
  readonly #path: string;
  readonly #site: Site;

  private constructor(site: Site, name: string, client: SiteClient, folder: string) {
    this.client = client;
    this.#site = site;
    this.#name = name;
    this.#path = join(folder, "stateless-lb.yaml");
    this.nsp = new NspProgram(join(ROOT, "bin"), { folder }, join(SHM, `nsp-${name}.db`));
  }

  /** With its NSP running and the local frontend announced. */
  static async create(site: Site, file: TrenchFile): Promise<Trench> {
    const { name } = file.trench;
    const folder = join(site.folder, name);
    mkdirSync(folder);
    const trench = new Trench(site, name, await site.client(), folder);
    trench.apply(file);
    await trench.start();
    return trench;
  }

  async start(): Promise<void> {
    await this.nsp.start();
    const own = { type: "frontend", ips: [hostname()], context: { identifier: hostname() }, isEnabled: true } as const;
    await this.nsp.query.register({ trench: this.#name, conduit: "", stream: "", ...own });
  }

  /** `kubectl apply`: replaces the file as an editor does. */
  apply(file: TrenchFile): void {
    // JSON is YAML. What registers here does not repeat it, and a test may take longer than the usual minute.
    writeFileSync(`${this.#path}.new`, JSON.stringify({ ...file, nsp: { "entry-timeout": 3_600 } }));
    renameSync(`${this.#path}.new`, this.#path);
  }

  /** A pod for one of its conduits, with programs that start. */
  async pod(conduit: string, vips: readonly string[]): Promise<Pod> {
    const { client } = this;
    const pod = await this.#site.pod({ trench: this.#name, conduit, nsp: this.nsp.address, client, vips });
    pod.start();
    return pod;
  }

  /** An application opens a stream: its agent announces it, finds the identifier free, and enables it. */
  async open(target: SiteTarget, place: Place, vips: readonly string[]): Promise<void> {
    await target.open(place.pod, vips);
    await this.nsp.query.register(this.#registration(target, place, false));
    await this.nsp.query.register(this.#registration(target, place, true));
  }

  async close(target: SiteTarget, place: Place): Promise<void> {
    await this.nsp.query.unregister(this.#registration(target, place, false));
  }

  #registration(target: SiteTarget, { pod, stream, identifier }: Place, isEnabled: boolean): Registration {
    return {
      trench: this.#name,
      conduit: pod.conduit,
      stream,
      type: "default",
      ips: pod.addressesOf(target),
      context: { identifier: String(identifier ?? target.number) },
      isEnabled,
    };
  }

  [Symbol.dispose](): void {
    this.nsp[Symbol.dispose]();
  }
}

/** Where a target registers. */
export type Place = {
  readonly pod: Pod;
  readonly stream: string;
  /** Its number, if not given. */
  readonly identifier?: number;
};
