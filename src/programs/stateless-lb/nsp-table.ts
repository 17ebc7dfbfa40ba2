import type { Kind, Row } from "#nsp";

/** Columns of a kind: heading → where the value is in a row, names of nested objects joined by dots. */
const COLUMNS: Readonly<Record<Kind, Readonly<Record<string, string>>>> = {
  trenches: { NAME: "name" },
  conduits: { NAME: "name", TRENCH: "trench.name", "PORT NATS": "destinationPortNats" },
  streams: { NAME: "name", CONDUIT: "conduit.name", "MAX TARGETS": "maxTargets" },
  flows: {
    NAME: "name",
    STREAM: "stream.name",
    PRIORITY: "priority",
    PROTOCOLS: "protocols",
    VIPS: "vips",
    SOURCES: "sourceSubnets",
    "DESTINATION PORTS": "destinationPortRanges",
    "SOURCE PORTS": "sourcePortRanges",
    "BYTE MATCHES": "byteMatches",
  },
  vips: { NAME: "name", ADDRESS: "address", TRENCH: "trench.name" },
  attractors: { NAME: "name", TRENCH: "trench.name", VIPS: "vips", GATEWAYS: "gateways" },
  gateways: {
    NAME: "name",
    ADDRESS: "address",
    PROTOCOL: "protocol",
    "REMOTE ASN": "remoteASN",
    "LOCAL ASN": "localASN",
    BFD: "bfd",
  },
  targets: {
    IPS: "ips",
    IDENTIFIER: "context.identifier",
    STATUS: "status",
    TYPE: "type",
    STREAM: "stream.name",
    CONDUIT: "stream.conduit.name",
    TRENCH: "stream.conduit.trench.name",
  },
};

/** Rows as a table with headings; columns are as wide as they need to be. */
export function formatRows(kind: Kind, rows: readonly Row[]): string {
  const columns = Object.entries(COLUMNS[kind]);
  const lines = [columns.map(([heading]) => heading), ...rows.map((row) => columns.map(([, path]) => cell(row, path)))];
  const widths = columns.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  return lines
    .map(
      (line) =>
        `${line
          .map((text, i) => text.padEnd(widths[i]!))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}

function cell(row: Row, path: string): string {
  let value: unknown = row;
  for (const key of path.split(".")) value = (value as Row | undefined)?.[key];
  return show(value) || "-";
}

function show(value: unknown): string {
  if (Array.isArray(value)) return value.map(show).join(",");
  if (typeof value === "string") return value.replace(/\p{Cc}/gu, "?");
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (typeof value !== "object" || value === null) return "";
  const { name, port, targetPort, protocol } = value as Row;
  return name === undefined ? `${show(protocol)}:${show(port)}->${show(targetPort)}` : show(name);
}
