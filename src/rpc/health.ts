import { create } from "@bufbuild/protobuf";
import { type ClientOptions, RpcClient } from "./client.js";
import {
  type HealthCheckRequest,
  HealthCheckResponseSchema,
  Health as HealthDesc,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "./gen/grpc/health/v1/health_pb.js";
import { type Service, StatusError } from "./server.js";

export type HealthStatus = "SERVING" | "NOT_SERVING";

/**
 * Statuses of gRPC's health protocol (grpc.health.v1) by service name; "" is the server as a whole. `service` answers
 * for them on any server: Check of an unknown name is NOT_FOUND, Watch of one SERVICE_UNKNOWN until it becomes known.
 */
export class Health {
  readonly #statuses = new Map<string, HealthStatus>();
  readonly #watchers = new Set<{ readonly name: string; readonly tell: () => void }>();
  readonly #onFailingCheck: (name: string) => void;

  /** @param onFailingCheck a Check is about to be answered with NOT_SERVING */
  constructor(onFailingCheck: (name: string) => void = () => {}) {
    this.#onFailingCheck = onFailingCheck;
  }

  /** Sets a status; watchers of that name hear of a change at once. */
  set(name: string, status: HealthStatus): void {
    if (this.#statuses.get(name) === status) return;
    this.#statuses.set(name, status);
    for (const watcher of this.#watchers) if (watcher.name === name) watcher.tell();
  }

  /** undefined for a name that was never set. */
  get(name: string): HealthStatus | undefined {
    return this.#statuses.get(name);
  }

  /** To be put on a server. */
  get service(): Service {
    return {
      desc: HealthDesc,
      handlers: {
        check: { kind: "unary", handle: ({ service }: HealthCheckRequest) => this.#check(service) },
        watch: {
          kind: "stream",
          handle: ({ service }: HealthCheckRequest, send, signal) => {
            const watcher = { name: service, tell: () => send(this.#answer(service)) };
            this.#watchers.add(watcher);
            signal.addEventListener("abort", () => this.#watchers.delete(watcher), { once: true });
            watcher.tell();
          },
        },
      },
    };
  }

  #check(name: string): object {
    const status = this.#statuses.get(name);
    if (status === undefined) throw new StatusError("NOT_FOUND", `${name} check failed: unknown service`);
    if (status !== "SERVING") this.#onFailingCheck(name);
    return this.#answer(name);
  }

  #answer(name: string): object {
    const status = this.#statuses.get(name);
    return create(HealthCheckResponseSchema, {
      status: status === undefined ? ServingStatus.SERVICE_UNKNOWN : ServingStatus[status],
    });
  }
}

/** Asks a server for a status, over a connection of its own. @throws {RpcError} for example DEADLINE_EXCEEDED */
export async function checkHealth(
  server: ClientOptions,
  service: string,
  { deadlineMs }: { readonly deadlineMs: number },
): Promise<HealthStatus> {
  using client = new RpcClient(server);
  const { status } = await client.unary(HealthDesc.method.check, { service }, { deadlineMs });
  return status === ServingStatus.SERVING ? "SERVING" : "NOT_SERVING";
}
