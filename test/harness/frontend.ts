import { checkHealth, RpcClient } from "#rpc";
import { StreamAvailabilityService } from "../../src/availability/gen/loadbalancer/v1/stream_pb.js";

/** What a frontend heard: a host name, or null for "unavailable"; the gRPC status when the stream ended. */
export class Frontend implements Disposable {
  readonly heard: (string | null)[] = [];
  end: string | null = null;
  readonly #client: RpcClient;
  readonly #ending = new AbortController();

  constructor(address: string) {
    this.#client = new RpcClient({ address, security: "plain-text", maxBackoffMs: 100 });
    void this.#follow();
  }

  async #follow(): Promise<void> {
    try {
      const { watch } = StreamAvailabilityService.method;
      for await (const { targets } of this.#client.serverStream(watch, {}, this.#ending.signal))
        this.heard.push(targets.length === 1 ? (targets[0]!.context["identifier"] ?? null) : "not one target");
    } catch (error) {
      this.end = (error as { status?: string }).status ?? String(error);
    }
  }

  [Symbol.dispose](): void {
    this.#ending.abort();
    this.#client[Symbol.dispose]();
  }
}

const SERVICES = ["", "Readiness", "Liveness", "NSPCli", "NSMEndpoint", "Egress", "Stream", "Flow"] as const;

/** Health services that are not SERVING; what went wrong when they cannot be asked. */
export async function notServing(address: string): Promise<readonly string[]> {
  try {
    const ask = (service: string) => checkHealth({ address, security: "plain-text" }, service, { deadlineMs: 2_000 });
    const statuses = await Promise.all(SERVICES.map(async (service) => [service, await ask(service)] as const));
    return statuses.filter(([, status]) => status !== "SERVING").map(([service]) => service);
  } catch (error) {
    return [(error as Error).message];
  }
}
