import {
  create,
  type DescMessage,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { deserialize, pathOf, serialize } from "./definition.js";
import { toRpcError } from "./error.js";

export type ClientOptions = {
  /** `host:port` or `unix:/path`. */
  readonly address: string;
  /** Plain text has to be asked for; nothing else is there yet. */
  readonly security: "plain-text";
  /** Most ms between attempts to connect. Meridio: NSM_GRPC_MAX_BACKOFF. Default 5_000. */
  readonly maxBackoffMs?: number;
  /** Interval of HTTP/2 PINGs in ms while a call is open; 0 sends none. Meridio: NSM_GRPC_KEEPALIVE_TIME. Default 0. */
  readonly keepaliveMs?: number;
};

/** Calls to one gRPC server; it connects when needed, again and again. */
export class RpcClient implements Disposable {
  readonly #client: Client;

  constructor({ address, maxBackoffMs = 5_000, keepaliveMs = 0 }: ClientOptions) {
    this.#client = new Client(address, credentials.createInsecure(), {
      "grpc.default_authority": "localhost",
      "grpc.initial_reconnect_backoff_ms": Math.min(100, maxBackoffMs),
      "grpc.max_reconnect_backoff_ms": maxBackoffMs,
      "grpc.use_local_subchannel_pool": 1,
      ...(keepaliveMs > 0 ? { "grpc.keepalive_time_ms": keepaliveMs } : {}),
    });
  }

  /** One request, one answer. @throws {RpcError} */
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    { deadlineMs = 5_000 } = {},
  ): Promise<MessageShape<O>> {
    const path = pathOf(method.parent, method.name);
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        path,
        (message: MessageShape<I>) => serialize(method.input, message),
        (bytes) => deserialize(method.output, bytes),
        create(method.input, request),
        new Metadata({ waitForReady: true }),
        { deadline: Date.now() + deadlineMs },
        (error, answer) => {
          if (error !== null) reject(toRpcError(path, error));
          else resolve(answer!);
        },
      );
    });
  }

  /**
   * One request, a stream of answers; waits for the connection. Leaving the loop, or `signal`, cancels the call; after
   * `signal` the loop just ends.
   * @throws {RpcError} the stream broke
   */
  async *serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    signal: AbortSignal,
  ): AsyncGenerator<MessageShape<O>> {
    const path = pathOf(method.parent, method.name);
    if (signal.aborted) return;
    const call = this.#client.makeServerStreamRequest(
      path,
      (message: MessageShape<I>) => serialize(method.input, message),
      (bytes) => deserialize(method.output, bytes),
      create(method.input, request),
      new Metadata({ waitForReady: true }),
    );
    const cancel = () => call.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    try {
      for await (const answer of call) yield answer as MessageShape<O>;
    } catch (error) {
      if (!signal.aborted) throw toRpcError(path, error as ServiceError);
    } finally {
      signal.removeEventListener("abort", cancel);
      call.on("error", () => {}); // a cancelled call still reports CANCELLED
      call.cancel();
    }
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}
