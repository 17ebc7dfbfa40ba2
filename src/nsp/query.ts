import {
  type DescMessage,
  type DescMethodServerStreaming,
  type MessageInitShape,
  type MessageShape,
  toJson,
} from "@bufbuild/protobuf";
import { type ClientOptions, RpcClient } from "#rpc";
import { ConfigurationManager } from "./gen/nsp/v1/configuration_manager_pb.js";
import { Target_Status, Target_Type } from "./gen/nsp/v1/model_pb.js";
import { TargetRegistry } from "./gen/nsp/v1/target_registry_pb.js";

/** What can be asked for. */
export const KINDS = ["trenches", "conduits", "streams", "flows", "vips", "attractors", "gateways", "targets"] as const;
export type Kind = (typeof KINDS)[number];

/** Names that objects have to have; an empty one is any. */
export type QueryFilter = {
  readonly trench: string;
  readonly conduit: string;
  readonly stream: string;
  /** Of targets: `default` or `frontend`. */
  readonly type: "default" | "frontend";
};

/** One object as plain JSON, with the contract's field names. */
export type Row = Readonly<Record<string, unknown>>;

/** A target to register. */
export type Registration = QueryFilter & {
  readonly ips: readonly string[];
  readonly context: Readonly<Record<string, string>>;
  readonly isEnabled: boolean;
};

/** Asks an NSP, for people and scripts. */
export class NspQuery implements Disposable {
  readonly #client: RpcClient;

  constructor(server: ClientOptions) {
    this.#client = new RpcClient(server);
  }

  /** The objects of a kind, and again whenever they change. @throws {RpcError} the watch broke */
  watch(kind: Kind, filter: QueryFilter, signal: AbortSignal): AsyncGenerator<readonly Row[]> {
    const trench = { name: filter.trench };
    const conduit = { name: filter.conduit, trench };
    const stream = { name: filter.stream, conduit };
    const { method } = ConfigurationManager;
    switch (kind) {
      case "trenches":
        return this.#rows(method.watchTrench, trench, ({ trench }) => (trench === undefined ? [] : [trench]), signal);
      case "conduits":
        return this.#rows(method.watchConduit, conduit, ({ conduits }) => conduits, signal);
      case "streams":
        return this.#rows(method.watchStream, stream, ({ streams }) => streams, signal);
      case "flows":
        return this.#rows(method.watchFlow, { stream }, ({ flows }) => flows, signal);
      case "vips":
        return this.#rows(method.watchVip, { trench }, ({ vips }) => vips, signal);
      case "attractors":
        return this.#rows(method.watchAttractor, { trench }, ({ attractors }) => attractors, signal);
      case "gateways":
        return this.#rows(method.watchGateway, { trench }, ({ gateways }) => gateways, signal);
      case "targets": {
        const type = typeOf(filter);
        const isAnywhere = type === Target_Type.FRONTEND; // a frontend belongs to no stream
        const target = { status: Target_Status.ANY, type, ...(isAnywhere ? {} : { stream }) };
        return this.#rows(TargetRegistry.method.watch, target, ({ targets }) => targets, signal);
      }
    }
  }

  /** Registers, or repeats a registration; the first one of a target counts as disabled. @throws {RpcError} */
  async register(registration: Registration, deadlineMs = 5_000): Promise<void> {
    await this.#client.unary(TargetRegistry.method.register, toTarget(registration), { deadlineMs });
  }

  /** @throws {RpcError} */
  async unregister(registration: Registration, deadlineMs = 5_000): Promise<void> {
    await this.#client.unary(TargetRegistry.method.unregister, toTarget(registration), { deadlineMs });
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
  }

  async *#rows<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    filter: MessageInitShape<I>,
    listOf: (answer: MessageShape<O>) => readonly object[],
    signal: AbortSignal,
  ): AsyncGenerator<readonly Row[]> {
    const item = method.output.fields[0]!.message!;
    const options = { alwaysEmitImplicit: true };
    for await (const answer of this.#client.serverStream(method, filter, signal))
      yield listOf(answer).map((object) => toJson(item, object as MessageShape<typeof item>, options) as Row);
  }
}

function toTarget({ ips, context, isEnabled, ...filter }: Registration) {
  const type = typeOf(filter);
  const stream = { name: filter.stream, conduit: { name: filter.conduit, trench: { name: filter.trench } } };
  return {
    ips: [...ips],
    context: { ...context },
    status: isEnabled ? Target_Status.ENABLED : Target_Status.DISABLED,
    type,
    ...(type === Target_Type.FRONTEND ? {} : { stream }),
  };
}

const typeOf = ({ type }: QueryFilter) => (type === "frontend" ? Target_Type.FRONTEND : Target_Type.DEFAULT);
