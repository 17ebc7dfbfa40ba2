import { type Metric, Registry } from "prom-client";
import type { Definition, Family } from "./family.js";

/** How names reach the scraper: with dots turned into underscores, or as they are (Prometheus 3). */
export type Escaping = "underscores" | "allow-utf-8";

/** What an Accept header asks for; like the reference, `escaping=allow-utf-8` at any of its media types decides. */
export function chooseEscaping(accept: string | undefined): Escaping {
  const schemes = [...(accept ?? "").matchAll(/;\s*escaping\s*=\s*"?([a-z0-9-]+)"?/gi)].map(([, scheme]) => scheme);
  return schemes[0]?.toLowerCase() === "allow-utf-8" ? "allow-utf-8" : "underscores";
}

/** Media type of the text; names with other characters came with version 1.0.0. */
export function contentType(escaping: Escaping): string {
  const version = escaping === "allow-utf-8" ? "1.0.0" : "0.0.4";
  return `text/plain; version=${version}; charset=utf-8; escaping=${escaping}`;
}

/** The families in Prometheus's text format. */
export async function formatFamilies(families: readonly Family[], escaping: Escaping): Promise<string> {
  const registry = new Registry();
  for (const family of families) registry.registerMetric(toMetric(family));
  const texts: string[] = [];
  for (const family of families) {
    const text = await registry.getSingleMetricAsString(family.name);
    texts.push(escaping === "allow-utf-8" ? toUtf8(text, family) : text);
  }
  return `${texts.join("\n")}\n`;
}

/**
 * The library asks a metric only for its values; its own classes would copy and hash every label on the way. `sharedLabels`
 * are formatted once per object.
 */
function toMetric({ name, help, type, samples }: Family): Metric {
  const values = samples.map(({ labels, value, series }) => {
    if (series === undefined) return { value, sharedLabels: labels };
    const own = series.suffix === "_bucket" ? { le: series.le } : {};
    return { value, sharedLabels: labels, labels: own, metricName: `${name}${series.suffix}` };
  });
  return { name, get: () => ({ name, help, type, values, aggregator: "sum" }) } as unknown as Metric;
}

/** Names with other characters stand in quotes, a metric's among the labels. None of the renamed is a histogram. */
function toUtf8(text: string, { name, utf8 }: Definition): string {
  if (utf8 === undefined) return text;
  let renamed = text;
  for (const [plain, label] of Object.entries(utf8.labels ?? {}))
    renamed = renamed.replaceAll(`${plain}="`, `"${label}"="`);
  if (utf8.name === undefined) return renamed;
  const quoted = `"${utf8.name}"`;
  const lines = renamed.split("\n").map((line) => {
    if (line.startsWith("# ")) return line.replace(name, quoted);
    return line.startsWith(`${name}{`)
      ? `{${quoted},${line.slice(name.length + 1)}`
      : line.replace(name, `{${quoted}}`);
  });
  return lines.join("\n");
}
