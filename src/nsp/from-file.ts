import { create, toBinary } from "@bufbuild/protobuf";
import type { Configuration } from "#model";
import type { ConfigurationFile } from "./file.js";
import {
  ConduitResponseSchema,
  FlowResponseSchema,
  StreamResponseSchema,
  VipResponseSchema,
} from "./gen/nsp/v1/configuration_manager_pb.js";
import { TargetResponseSchema } from "./gen/nsp/v1/target_registry_pb.js";
import { Knowledge, keysOf } from "./knowledge.js";
import type { Refusal } from "./refusal.js";

/**
 * What a load balancer learns of one conduit from an NSP that has just been started with a file, without any: for a look
 * at what would be done. Targets that would register are not in it.
 */
export function configurationOf(
  { configuration: { conduits, vips, streams, flows, targets } }: ConfigurationFile,
  conduitName: string,
): { readonly configuration: Configuration; readonly refusals: readonly Refusal[] } {
  const knowledge = new Knowledge(conduitName, true);
  const own = conduits.filter(({ name }) => name === conduitName);
  knowledge.take("conduit", toBinary(ConduitResponseSchema, create(ConduitResponseSchema, { conduits: own })));
  knowledge.take("vips", toBinary(VipResponseSchema, create(VipResponseSchema, { vips: [...vips] })));
  knowledge.take("streams", toBinary(StreamResponseSchema, create(StreamResponseSchema, { streams: [...streams] })));
  knowledge.take("frontends", new Uint8Array());
  for (const { name } of knowledge.streams) {
    const [flowsKey, targetsKey] = keysOf(name);
    const answers = {
      flows: flows.filter(({ stream }) => stream?.name === name),
      targets: targets.filter(({ stream }) => stream?.name === name),
    };
    knowledge.take(flowsKey, toBinary(FlowResponseSchema, create(FlowResponseSchema, { flows: answers.flows })));
    knowledge.take(
      targetsKey,
      toBinary(TargetResponseSchema, create(TargetResponseSchema, { targets: answers.targets })),
    );
  }
  return knowledge.whole()!;
}
