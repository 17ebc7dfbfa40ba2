import { type DescMessage, type DescService, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import type { MethodDefinition, ServiceDefinition } from "@grpc/grpc-js";

/** Bytes of a message, over the same memory. */
export function serialize<T extends DescMessage>(desc: T, message: MessageShape<T>): Buffer {
  return toBuffer(toBinary(desc, message));
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** @throws when the bytes are no such message; the library turns that into a status */
export function deserialize<T extends DescMessage>(desc: T, bytes: Uint8Array): MessageShape<T> {
  return fromBinary(desc, bytes);
}

/** `/package.Service/Method`. */
export function pathOf(service: DescService, methodName: string): string {
  return `/${service.typeName}/${methodName}`;
}

/** A service as the gRPC library wants it declared. An answer may be a message or its bytes. */
export function toServiceDefinition(service: DescService): ServiceDefinition {
  const methods = service.methods.map((method): [string, MethodDefinition<object, object>] => [
    method.localName,
    {
      path: pathOf(service, method.name),
      originalName: method.localName,
      requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
      responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
      requestSerialize: (message) => serialize(method.input, message as MessageShape<typeof method.input>),
      requestDeserialize: (bytes) => deserialize(method.input, bytes),
      responseSerialize: (message) =>
        message instanceof Uint8Array
          ? toBuffer(message)
          : serialize(method.output, message as MessageShape<typeof method.output>),
      responseDeserialize: (bytes) => deserialize(method.output, bytes),
    },
  ]);
  return Object.fromEntries(methods);
}
