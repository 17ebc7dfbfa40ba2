/** What a metric is, apart from its numbers. */
export type Definition = {
  /** As every Prometheus takes it: letters, digits and underscores. */
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly help: string;
  /** Name and labels (by their plain name) for those who take UTF-8, where they differ: Meridio's have dots inside. */
  readonly utf8?: { readonly name?: string; readonly labels?: Readonly<Record<string, string>> };
};

/** A metric of ours, `stateless_lb_…`; all others have names of Meridio's or of every Prometheus client's. */
export function own(type: Definition["type"], name: string, help: string): Definition {
  return { name: `stateless_lb_${name}`, type, help };
}

/** Takes the numbers of a scrape, family by family, and keeps nothing of what it is given. */
export type Exposition = {
  /** A family begins; what follows belongs to it. */
  readonly family: (definition: Definition) => void;
  /**
   * A number of the family.
   * @param labels of {@link labelText}; keep them where they come again in each scrape
   * @param suffix of its name: which series of a histogram it belongs to
   */
  readonly sample: (labels: string, value: number, suffix?: "" | "_bucket" | "_sum" | "_count") => void;
};

/** Where a part of the metrics comes from. It tells what is there at that moment; it never waits. */
export type Source = {
  readonly name: string;
  readonly write: (out: Exposition) => void;
  /** Gives back what it holds from scrape to scrape. */
  readonly close?: () => void;
};

export type Labels = Readonly<Record<string, string>>;

/** Labels as they stand between the braces of Prometheus's text format; "" = none. */
export function labelText(labels: Labels): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}="${escapeLabel(value)}"`)
    .join(",");
}

/** More labels behind those that are text already. */
export function joinLabels(...texts: readonly string[]): string {
  return texts.filter((text) => text !== "").join(",");
}

/** A whole family of one number. */
export function single(out: Exposition, definition: Definition, value: number, labels = ""): void {
  out.family(definition);
  out.sample(labels, value);
}

/**
 * The series of a histogram.
 * @param bounds as text, in ascending order
 * @param counts per bucket, not summed up; the last bucket has no bound
 */
export function histogram(
  out: Exposition,
  labels: string,
  bounds: readonly string[],
  counts: ArrayLike<number>,
  sum: number,
): void {
  let count = 0;
  for (let bucket = 0; bucket <= bounds.length; bucket++) {
    count += counts[bucket]!;
    out.sample(joinLabels(`le="${bounds[bucket] ?? "+Inf"}"`, labels), count, "_bucket");
  }
  out.sample(labels, sum, "_sum");
  out.sample(labels, count, "_count");
}

/** Prometheus's text format: backslash, quote and line feed are escaped in values of labels. */
function escapeLabel(value: string): string {
  return /["\\\n]/.test(value) ? value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n") : value;
}
