import { create } from "@bufbuild/protobuf";
import type { Service } from "#rpc";
import { type Response, ResponseSchema, StreamAvailabilityService } from "./gen/loadbalancer/v1/stream_pb.js";

/**
 * Tells frontends whether this load balancer can deliver (loadbalancer.v1): one answer at once, then one per change. An
 * answer has one target, with the host name as identifier when it can, and with nothing in it when it cannot.
 */
export class StreamAvailability {
  readonly #watchers = new Set<() => void>();
  readonly #available: Response;
  readonly #unavailable = create(ResponseSchema, { targets: [{}] });
  #isAvailable = false;

  /** @param hostName by which the frontend of the same host knows us */
  constructor(hostName: string) {
    this.#available = create(ResponseSchema, { targets: [{ context: { identifier: hostName } }] });
  }

  get isAvailable(): boolean {
    return this.#isAvailable;
  }

  /** Watchers hear of a change at once. */
  set(isAvailable: boolean): void {
    if (this.#isAvailable === isAvailable) return;
    this.#isAvailable = isAvailable;
    for (const tell of this.#watchers) tell();
  }

  /** To be put on a server. */
  get service(): Service {
    return {
      desc: StreamAvailabilityService,
      handlers: {
        watch: {
          kind: "stream",
          handle: (_request, send, signal) => {
            const tell = () => send(this.#isAvailable ? this.#available : this.#unavailable);
            this.#watchers.add(tell);
            signal.addEventListener("abort", () => this.#watchers.delete(tell), { once: true });
            tell();
          },
        },
      },
    };
  }
}
