import type { Kind, NspQuery, QueryFilter, Registration, Row } from "#nsp";
import { RpcError } from "#rpc";

/** Why a registration that the server has taken may have no effect, as far as the server tells. */
export async function findDoubts(
  query: NspQuery,
  registration: Registration,
  deadlineMs: number,
): Promise<readonly string[]> {
  if (registration.type === "frontend") return [];
  const { trench, conduit, stream, context, ips } = registration;
  const place = `stream ${stream} of conduit ${conduit}, trench ${trench}`;
  const streams = await first(query, "streams", registration, deadlineMs);
  if (streams === null) return [];
  if (streams.length === 0)
    return [`the server has no ${place}: nobody will use this target; see --trench, --conduit, --stream`];
  const doubts: string[] = [];
  const [maxTargets] = streams.map((row) => Number(row["maxTargets"]));
  const identifier = context["identifier"] ?? "";
  if (Number(identifier) > maxTargets!)
    doubts.push(`identifier ${identifier} is above ${maxTargets}, the most of ${place}`);
  const targets = await first(query, "targets", registration, deadlineMs);
  const isListed = targets?.some((row) => String(row["ips"]) === String(ips)) !== false;
  if (!isListed)
    doubts.push("the server does not list this target; has its configuration file one with this identifier?");
  return doubts;
}

/** The objects of a kind as they are now; null where the server doesn't say in time. */
async function first(
  query: NspQuery,
  kind: Kind,
  filter: QueryFilter,
  deadlineMs: number,
): Promise<readonly Row[] | null> {
  try {
    for await (const rows of query.watch(kind, filter, AbortSignal.timeout(deadlineMs))) return rows;
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
  }
  return null;
}
