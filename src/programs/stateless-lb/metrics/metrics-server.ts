import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { chooseEscaping, contentType, formatFamilies } from "./exposition.js";
import type { Family, Source } from "./family.js";

/** A scraper that takes longer for its request, or is silent for longer while it reads, is cut off. */
const SLOWEST_MS = 10_000;
const MOST_CONNECTIONS = 32;

export type MetricsServer = { readonly port: number; readonly close: () => Promise<void> };

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
  const readAll = () => [
    ...sources.flatMap((source) => readSource(source, faults, onFault)),
    ...ownFamilies(scrapes, faults),
  ];
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const count = (code: string) => scrapes.set(code, (scrapes.get(code) ?? 0) + 1);
    try {
      const escaping = chooseEscaping(request.headers.accept);
      const text = Buffer.from(await formatFamilies(readAll(), escaping));
      count("200");
      response.writeHead(200, { "Content-Type": contentType(escaping), "Content-Length": text.length });
      response.end(request.method === "HEAD" ? undefined : text);
    } catch (error) {
      count("500");
      onFault("format", error as Error);
      if (!response.headersSent) response.writeHead(500);
      response.end();
    }
  };
  const server = createServer((request, response) => {
    const path = request.url?.split("?")[0];
    if (path !== "/metrics") response.writeHead(404, { "Content-Type": "text/plain" }).end("see /metrics\n");
    else if (request.method !== "GET" && request.method !== "HEAD")
      response.writeHead(405, { Allow: "GET, HEAD" }).end();
    else void answer(request, response);
  });
  server.requestTimeout = SLOWEST_MS;
  server.headersTimeout = SLOWEST_MS;
  server.setTimeout(SLOWEST_MS);
  server.maxConnections = MOST_CONNECTIONS;
  await listen(server, port);
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.closeAllConnections();
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

function readSource(
  { name, read }: Source,
  faults: Map<string, number>,
  onFault: (source: string, error: Error) => void,
): readonly Family[] {
  try {
    return read();
  } catch (error) {
    faults.set(name, faults.get(name)! + 1);
    onFault(name, error as Error);
    return [];
  }
}

function ownFamilies(scrapes: ReadonlyMap<string, number>, faults: ReadonlyMap<string, number>): readonly Family[] {
  return [
    {
      name: "promhttp_metric_handler_requests_total",
      type: "counter",
      help: "Scrapes by HTTP status code",
      samples: [...scrapes].map(([code, value]) => ({ labels: { code }, value })),
    },
    {
      name: "stateless_lb_scrape_errors_total",
      type: "counter",
      help: "Scrapes in which a source of metrics could not be read",
      samples: [...faults].map(([source, value]) => ({ labels: { source }, value })),
    },
  ];
}
