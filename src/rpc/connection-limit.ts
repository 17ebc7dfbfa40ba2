import type { Http2Server, ServerHttp2Session } from "node:http2";

/** How often is told at most that there are too many. */
const TELL_EVERY_MS = 60_000;

/**
 * Holds a server to so many connections: a file descriptor that a stranger holds is one that the whole process lacks. For
 * one that comes beyond the limit the one goes that has been without a call for longest; where each has a call, as whoever
 * watches something has, the new one goes.
 * @param onFull told at the first one that has to go, and then once a minute at most
 */
export function limitConnections(server: Http2Server, most: number, onFull: () => void): void {
  /** Open calls, in the order in which connections last had none. */
  const open = new Map<ServerHttp2Session, number>();
  let toldMs = Number.NEGATIVE_INFINITY;
  const count = (session: ServerHttp2Session, change: 1 | -1) => {
    const calls = open.get(session);
    if (calls === undefined) return;
    if (calls + change === 0) open.delete(session); // to the end of the order
    open.set(session, calls + change);
  };
  server.on("session", (session) => {
    open.set(session, 0);
    session.on("stream", (stream) => {
      count(session, 1);
      stream.once("close", () => count(session, -1));
    });
    session.once("close", () => open.delete(session));
    if (open.size <= most) return;
    const leaving = idleOne(open) ?? session;
    open.delete(leaving);
    leaving.destroy();
    if (performance.now() - toldMs < TELL_EVERY_MS) return;
    toldMs = performance.now();
    onFull();
  });
}

function idleOne(open: ReadonlyMap<ServerHttp2Session, number>): ServerHttp2Session | null {
  for (const [session, calls] of open) if (calls === 0) return session;
  return null;
}
