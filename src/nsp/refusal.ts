import { ConfigError } from "#model";

/** An object of the NSP that breaks a rule and is left out; what is said of it in log, metric and status. */
export type Refusal = {
  readonly kind: "VIP" | "stream" | "flow" | "target" | "port NAT";
  /** Its name; of a target its addresses, of a port NAT `port-targetPort-protocol`. */
  readonly object: string;
  /** Stream that it belongs to, or "". */
  readonly stream: string;
  readonly field: string;
  readonly value: string;
  /** What is wrong, or what is allowed. */
  readonly rule: string;
};

/** Longest value shown: a peer may send anything. */
const MAX_SHOWN = 200;

/** One line for people. Equal texts are equal refusals. */
export function formatRefusal({ kind, object, stream, field, value, rule }: Refusal): string {
  return `${kind} ${object}${stream === "" ? "" : ` of stream ${stream}`}: ${field} "${value}": ${rule}`;
}

/** @throws {Error} anything that is no broken rule but a fault of ours */
export function toRefusal(kind: Refusal["kind"], object: string, stream: string, error: unknown): Refusal {
  if (!(error instanceof ConfigError)) throw error;
  const { field, rule } = error;
  return { kind, object: shorten(object), stream, field, value: shorten(error.value), rule };
}

function shorten(text: string): string {
  return text.length <= MAX_SHOWN ? text : `${text.slice(0, MAX_SHOWN)}…`;
}
