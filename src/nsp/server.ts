import { create } from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";
import { type Handlers, InvalidArgument, type RunningServer, startServer } from "#rpc";
import { matchesConduit, matchesFlow, matchesInTrench, matchesStream, matchesTarget, matchesTrench } from "./filter.js";
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
import { TargetRegistry, TargetResponseSchema } from "./gen/nsp/v1/target_registry_pb.js";
import type { NspStore } from "./store.js";

/** How often registrations are looked at for their time-out. */
const EXPIRY_INTERVAL_MS = 1_000;

/**
 * An NSP server over a store: every watch is answered at once with the full filtered list and again after each change.
 * @param listen `unix:/path` or `host:port`; plain text
 * @throws {Error} an address cannot be listened on
 */
export async function startNspServer(store: NspStore, listen: readonly string[]): Promise<RunningServer> {
  const timer = setInterval(() => store.expire(), EXPIRY_INTERVAL_MS);
  timer.unref();
  try {
    const server = await startServer(
      [
        { desc: ConfigurationManager, handlers: configurationHandlers(store) },
        { desc: TargetRegistry, handlers: registryHandlers(store) },
      ],
      listen,
    );
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

function watch<F>(store: NspStore, answer: (filter: F) => object): Handlers[string] {
  return {
    kind: "stream",
    handle: (filter: never, send, signal) => {
      const stop = store.subscribe(() => send(answer(filter)));
      signal.addEventListener("abort", stop, { once: true });
      send(answer(filter));
    },
  };
}

function configurationHandlers(store: NspStore): Handlers {
  const now = () => store.configuration;
  return {
    watchTrench: watch(store, (filter: Trench) => {
      const { trench } = now();
      return create(TrenchResponseSchema, trench !== null && matchesTrench(filter, trench) ? { trench } : {});
    }),
    watchConduit: watch(store, (filter: Conduit) =>
      create(ConduitResponseSchema, { conduits: now().conduits.filter((conduit) => matchesConduit(filter, conduit)) }),
    ),
    watchStream: watch(store, (filter: Stream) =>
      create(StreamResponseSchema, { streams: now().streams.filter((stream) => matchesStream(filter, stream)) }),
    ),
    watchFlow: watch(store, (filter: Flow) =>
      create(FlowResponseSchema, { flows: now().flows.filter((flow) => matchesFlow(filter, flow)) }),
    ),
    watchVip: watch(store, (filter: Vip) =>
      create(VipResponseSchema, { vips: now().vips.filter((vip) => matchesInTrench(filter, vip)) }),
    ),
    watchAttractor: watch(store, (filter: Attractor) =>
      create(AttractorResponseSchema, { attractors: now().attractors.filter((one) => matchesInTrench(filter, one)) }),
    ),
    watchGateway: watch(store, (filter: Gateway) =>
      create(GatewayResponseSchema, { gateways: now().gateways.filter((one) => matchesInTrench(filter, one)) }),
    ),
  };
}

function registryHandlers(store: NspStore): Handlers {
  return {
    register: {
      kind: "unary",
      handle: (target: Target) => {
        if (target.ips.length === 0) throw new InvalidArgument("ips: a target has at least one address");
        store.register(target);
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
    watch: watch(store, (filter: Target) =>
      create(TargetResponseSchema, { targets: store.targets().filter((target) => matchesTarget(filter, target)) }),
    ),
  };
}
