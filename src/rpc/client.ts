import {
  create,
  type DescMessage,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { Client, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { deserialize, pathOf, serialize } from "./definition.js";
import { plainDetails, toRpcError } from "./error.js";
import { Health } from "./gen/grpc/health/v1/health_pb.js";
import { silenceLibrary } from "./library-log.js";
import { clientCredentials, type Security } from "./security.js";

/** Longest message taken, in bytes; the library's 4 MiB are some 25,000 targets. */
const MAX_MESSAGE_BYTES = 64 << 20;

/** What a server may send ahead, in bytes; with HTTP/2's own 65,535 a snapshot of 1,000 targets would have to wait half-way. */
const FLOW_CONTROL_WINDOW_BYTES = 1 << 20;

export type ClientOptions = {
  /** `host:port` or `unix:/path`. */
  readonly address: string;
  readonly security: Security;
  /** Most ms between attempts to connect. Meridio: NSM_GRPC_MAX_BACKOFF. Default 5_000. */
  readonly maxBackoffMs?: number;
  /**
   * Interval of HTTP/2 PINGs in ms while a call is open; 0 sends none. Meridio: NSM_GRPC_KEEPALIVE_TIME. Default 0. A
   * server that answers GOAWAY `too_many_pings` doubles it for as long as this client lives (gRPC proposal A8).
   */
  readonly keepaliveMs?: number;
  /** What a shorter interval is raised to, in ms. Default 10_000, as gRPC-Go (`internal.KeepaliveMinPingTime`). */
  readonly minKeepaliveMs?: number;
  /** How long an answer to a PING is waited for, in ms; then the connection is given up. Default 20_000, as gRPC-Go. */
  readonly keepaliveTimeoutMs?: number;
  /** Whether calls wait for a server that cannot be reached, instead of failing with why. Default true. */
  readonly isPatient?: boolean;
};

/** Calls to one gRPC server; it connects when needed, again and again. */
export class RpcClient implements Disposable {
  /** Interval of pings in ms at first; 0: there are none. */
  readonly keepaliveMs: number;
  readonly #client: Client;
  readonly #isPatient: boolean;

  constructor({
    address,
    security,
    maxBackoffMs = 5_000,
    keepaliveMs = 0,
    minKeepaliveMs = 10_000,
    keepaliveTimeoutMs = 20_000,
    isPatient = true,
  }: ClientOptions) {
    this.keepaliveMs = keepaliveMs > 0 ? Math.max(keepaliveMs, minKeepaliveMs) : 0;
    this.#isPatient = isPatient;
    silenceLibrary(); // it would tell, for example, that the keepalive interval doubles
    this.#client = new Client(address, clientCredentials(security), {
      "grpc.default_authority": "localhost",
      "grpc.initial_reconnect_backoff_ms": Math.min(100, maxBackoffMs),
      "grpc.max_reconnect_backoff_ms": maxBackoffMs,
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc-node.flow_control_window": FLOW_CONTROL_WINDOW_BYTES,
      "grpc.use_local_subchannel_pool": 1,
      "grpc.enable_channelz": 0, // nobody asks for its statistics
      ...(this.keepaliveMs > 0
        ? { "grpc.keepalive_time_ms": this.keepaliveMs, "grpc.keepalive_timeout_ms": keepaliveTimeoutMs }
        : {}),
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
        new Metadata({ waitForReady: this.#isPatient }),
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
  serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    signal: AbortSignal,
  ): AsyncGenerator<MessageShape<O>> {
    return this.#stream(method, request, (bytes) => deserialize(method.output, bytes), signal);
  }

  /** The same with each answer as the bytes it came in, for who wants to see what changed before decoding it. */
  serverStreamBytes<I extends DescMessage>(
    method: DescMethodServerStreaming<I, DescMessage>,
    request: MessageInitShape<I>,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    return this.#stream(method, request, (bytes) => bytes, signal);
  }

  async *#stream<I extends DescMessage, T>(
    method: DescMethodServerStreaming<I, DescMessage>,
    request: MessageInitShape<I>,
    read: (bytes: Uint8Array) => T,
    signal: AbortSignal,
  ): AsyncGenerator<T> {
    const path = pathOf(method.parent, method.name);
    if (signal.aborted) return;
    const call = this.#client.makeServerStreamRequest(
      path,
      (message: MessageShape<I>) => serialize(method.input, message),
      read,
      create(method.input, request),
      new Metadata({ waitForReady: this.#isPatient }),
    );
    const cancel = () => call.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    try {
      for await (const answer of call) yield answer as T;
    } catch (error) {
      if (!signal.aborted) throw isServiceError(error) ? toRpcError(path, error) : error;
    } finally {
      signal.removeEventListener("abort", cancel);
      call.on("error", () => {}); // a cancelled call still reports CANCELLED
      call.cancel();
    }
  }

  /**
   * Why the server cannot be reached now, for example `connect ECONNREFUSED 192.0.2.1:7778`; "": it can be, or nothing is
   * known of it within `deadlineMs`.
   */
  fault(deadlineMs = 1_000): Promise<string> {
    const nothing = () => Buffer.alloc(0);
    return new Promise((resolve) => {
      this.#client.makeUnaryRequest(
        pathOf(Health, Health.method.check.name),
        nothing,
        nothing,
        null,
        new Metadata(),
        { deadline: Date.now() + deadlineMs },
        (error) => resolve(error?.code === status.UNAVAILABLE ? plainDetails(error.details) : ""),
      );
    });
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

function isServiceError(error: unknown): error is ServiceError {
  return typeof (error as ServiceError).code === "number";
}
