import type { Flow } from "./types.js";

/** Region of a stream's lookup table; operators know it by this name. */
export const tableName = (stream: string) => `tshm-${stream}`;

/**
 * Name of a flow's rule in the data plane. Both parts may have `-` in them, so two flows can have one: stream `web` with
 * flow `tls-a`, stream `web-tls` with flow `a`.
 */
export const ruleName = ({ stream, name }: Pick<Flow, "stream" | "name">) => `${tableName(stream)}-${name}`;
