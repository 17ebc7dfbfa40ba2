import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setImmediate } from "node:timers/promises";
import { chooseEscaping, contentType, type Escaping, TextExposition } from "./exposition.js";
import { type Exposition, labelText, type Source } from "./family.js";

/** A scraper that takes longer for its request, or is silent for longer while it reads, is cut off. */
const SLOWEST_MS = 10_000;
const MOST_CONNECTIONS = 32;

export type MetricsServer = {
  readonly port: number;
  /** Makes the next scrape cheap, see {@link Preparation}. */
  readonly prepare: () => Promise<void>;
  readonly close: () => Promise<void>;
};

/**
 * Serves `/metrics` on all addresses. A source that fails is left out, counted and told; the others go on, and nothing
 * that a scrape meets can end the process (R25). A scrape reads all sources in one turn, so they speak of one moment.
 * @param port 0 = any
 * @throws {Error} EADDRINUSE and the like
 */
export async function startMetricsServer(
  port: number,
  sources: readonly Source[],
  onFault: (source: string, error: Error) => void,
): Promise<MetricsServer> {
  const scrapes = new Map<string, number>(["200", "500"].map((code) => [code, 0]));
  const faults = new Map<string, number>(sources.map(({ name }) => [name, 0]));
  const preparation = new Preparation(sources);
  let idle: TextExposition | null = null;
  const writeAll = (out: TextExposition, escaping: Escaping) => {
    out.begin(escaping);
    for (const source of sources) writeSource(source, out, faults, onFault);
    writeOwn(out, scrapes, faults);
    return out.parts;
  };
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const out = idle ?? new TextExposition();
    idle = null;
    response.once("close", () => {
      idle = out; // nobody reads its memory any more
    });
    const count = (code: string) => scrapes.set(code, (scrapes.get(code) ?? 0) + 1);
    try {
      const escaping = chooseEscaping(request.headers.accept);
      const parts = writeAll(out, escaping);
      count("200");
      const length = parts.reduce((sum, part) => sum + part.length, 0);
      response.writeHead(200, { "Content-Type": contentType(escaping), "Content-Length": length });
      if (request.method !== "HEAD") for (const part of parts) response.write(part);
      response.end();
    } catch (error) {
      count("500");
      onFault("scrape", error as Error);
      if (!response.headersSent) response.writeHead(500);
      response.end();
    }
  };
  const server = createServer((request, response) => {
    const path = request.url?.split("?")[0];
    if (path !== "/metrics") response.writeHead(404, { "Content-Type": "text/plain" }).end("see /metrics\n");
    else if (request.method !== "GET" && request.method !== "HEAD")
      response.writeHead(405, { Allow: "GET, HEAD" }).end();
    else answer(request, response);
  });
  server.requestTimeout = SLOWEST_MS;
  server.headersTimeout = SLOWEST_MS;
  server.setTimeout(SLOWEST_MS);
  server.maxConnections = MOST_CONNECTIONS;
  await listen(server, port);
  return {
    port: (server.address() as AddressInfo).port,
    prepare: async () => {
      const out = idle ?? new TextExposition();
      idle = null;
      await preparation.run(out);
      idle = out;
    },
    close: () => {
      preparation.stop();
      server.closeAllConnections();
      for (const source of sources) source.close?.();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, () => {
      server.off("error", reject);
      server.on("error", () => {}); // a failed accept, for want of descriptors: the next scrape tries again
      resolve();
    });
  });
}

/** Passes until the engine has compiled what a scrape runs. */
const WARM_UP_PASSES = 4;

/**
 * Does in advance what a scrape would have to do that is new: counts what is in tables, makes labels; and warms the code up.
 * The first scrape after a start takes ten times as much CPU otherwise. Other work has its turn between two sources.
 */
class Preparation {
  readonly #sources: readonly Source[];
  #passes = WARM_UP_PASSES;
  #isRunning = false;
  #isStopped = false;

  constructor(sources: readonly Source[]) {
    this.#sources = sources;
  }

  /** @param out written over, and left with memory for the next text */
  async run(out: TextExposition): Promise<void> {
    if (this.#isRunning) return;
    this.#isRunning = true;
    for (; this.#passes > 0 && !this.#isStopped; this.#passes--) {
      out.begin("underscores");
      for (const source of this.#sources) {
        await setImmediate();
        if (!this.#isStopped) writeSource(source, out, new Map(), () => {}); // the scrape tells of faults
      }
    }
    this.#passes = 1;
    this.#isRunning = false;
  }

  stop(): void {
    this.#isStopped = true;
  }
}

function writeSource(
  source: Source,
  out: TextExposition,
  faults: Map<string, number>,
  onFault: (source: string, error: Error) => void,
): void {
  const { name } = source;
  try {
    out.attempt(() => source.write(out));
  } catch (error) {
    faults.set(name, (faults.get(name) ?? 0) + 1);
    onFault(name, error as Error);
  }
}

function writeOwn(out: Exposition, scrapes: ReadonlyMap<string, number>, faults: ReadonlyMap<string, number>): void {
  out.family({
    name: "promhttp_metric_handler_requests_total",
    type: "counter",
    help: "Scrapes by HTTP status code",
  });
  for (const [code, count] of scrapes) out.sample(labelText({ code }), count);
  out.family({
    name: "stateless_lb_scrape_errors_total",
    type: "counter",
    help: "Scrapes in which a source of metrics could not be read",
  });
  for (const [source, count] of faults) out.sample(labelText({ source }), count);
}
