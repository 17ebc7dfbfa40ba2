import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";
import { type Handlers, Health, type RunningServer, type ServerOptions, StatusError, startServer } from "#rpc";
import { matchesConduit, matchesFlow, matchesInTrench, matchesStream, matchesTrench } from "./filter.js";
import {
  AttractorResponseSchema,
  ConduitResponseSchema,
  ConfigurationManager,
  FlowResponseSchema,
  GatewayResponseSchema,
  StreamResponseSchema,
  TrenchResponseSchema,
  VipResponseSchema,
} from "./gen/nsp/v1/configuration_manager_pb.js";
import type { Attractor, Conduit, Flow, Gateway, Stream, Target, Trench, Vip } from "./gen/nsp/v1/model_pb.js";
import { TargetRegistry } from "./gen/nsp/v1/target_registry_pb.js";
import type { Entry } from "./registry.js";
import type { NspStore } from "./store.js";
import { equalBytes, joinList } from "./wire.js";

/** How often registrations are looked at for their time-out. */
const EXPIRY_INTERVAL_MS = 1_000;

/**
 * An NSP server over a store, with gRPC's health service beside the contract's two. Every watch is answered at once with
 * the full filtered list, and again when that list changes.
 * @throws {Error} an address cannot be listened on
 */
export async function startNspServer(
  store: NspStore,
  { listen, ...options }: Omit<ServerOptions, "services">,
): Promise<RunningServer> {
  const timer = setInterval(() => store.expire(), EXPIRY_INTERVAL_MS);
  timer.unref();
  const health = new Health();
  for (const name of ["", ConfigurationManager.typeName, TargetRegistry.typeName]) health.set(name, "SERVING");
  const services = [
    { desc: ConfigurationManager, handlers: configurationHandlers(store) },
    { desc: TargetRegistry, handlers: registryHandlers(store) },
    health.service,
  ];
  try {
    const server = await startServer({ services, listen, ...options });
    const close = async () => {
      clearInterval(timer);
      await server.close();
    };
    return { addresses: server.addresses, close };
  } catch (error) {
    clearInterval(timer);
    throw error;
  }
}

function configurationHandlers(store: NspStore): Handlers {
  const now = () => store.configuration;
  return {
    watchTrench: watch(store, TrenchResponseSchema, (filter: Trench) => {
      const { trench } = now();
      return trench !== null && matchesTrench(filter, trench) ? { trench } : {};
    }),
    watchConduit: watch(store, ConduitResponseSchema, (filter: Conduit) => ({
      conduits: now().conduits.filter((conduit) => matchesConduit(filter, conduit)),
    })),
    watchStream: watch(store, StreamResponseSchema, (filter: Stream) => ({
      streams: now().streams.filter((stream) => matchesStream(filter, stream)),
    })),
    watchFlow: watch(store, FlowResponseSchema, (filter: Flow) => ({
      flows: now().flows.filter((flow) => matchesFlow(filter, flow)),
    })),
    watchVip: watch(store, VipResponseSchema, (filter: Vip) => ({
      vips: now().vips.filter((vip) => matchesInTrench(filter, vip)),
    })),
    watchAttractor: watch(store, AttractorResponseSchema, (filter: Attractor) => ({
      attractors: now().attractors.filter((one) => matchesInTrench(filter, one)),
    })),
    watchGateway: watch(store, GatewayResponseSchema, (filter: Gateway) => ({
      gateways: now().gateways.filter((one) => matchesInTrench(filter, one)),
    })),
  };
}

function watch<F, O extends DescMessage>(
  store: NspStore,
  desc: O,
  answer: (filter: F) => MessageInitShape<O>,
): Handlers[string] {
  return {
    kind: "stream",
    handle: (filter: never, send, signal) => {
      let configuration: unknown = null;
      let last: Uint8Array | null = null;
      const look = () => {
        if (store.configuration === configuration) return;
        configuration = store.configuration;
        const bytes = toBinary(desc, create(desc, answer(filter)));
        if (last !== null && equalBytes(last, bytes)) return;
        last = bytes;
        send(bytes);
      };
      signal.addEventListener("abort", store.subscribe(look), { once: true });
      look();
    },
  };
}

function registryHandlers(store: NspStore): Handlers {
  return {
    register: {
      kind: "unary",
      handle: (target: Target) => {
        if (target.ips.length === 0)
          throw new StatusError("INVALID_ARGUMENT", "ips: a target has at least one address");
        try {
          store.register(target);
        } catch (error) {
          if (error instanceof RangeError) throw new StatusError("RESOURCE_EXHAUSTED", error.message);
          throw error;
        }
        return create(EmptySchema);
      },
    },
    unregister: {
      kind: "unary",
      handle: (target: Target) => {
        store.unregister(target);
        return create(EmptySchema);
      },
    },
    watch: {
      kind: "stream",
      handle: (filter: Target, send, signal) => {
        let last: readonly Entry[] | null = null;
        const look = () => {
          const entries = store.targets(filter);
          if (last !== null && entries.length === last.length && entries.every((entry, i) => entry === last![i]))
            return;
          last = entries;
          send(joinList(entries.map(({ bytes }) => bytes)));
        };
        signal.addEventListener("abort", store.subscribe(look), { once: true });
        look();
      },
    },
  };
}
