/** Labels of a sample. An object that comes again in the next scrape is formatted once: keep it where it is costly. */
export type Labels = Readonly<Record<string, string>>;

/** One number of a family. A histogram's samples say which of its series they belong to. */
export type Sample = {
  readonly labels: Labels;
  readonly value: number;
  readonly series?: { readonly suffix: "_bucket"; readonly le: string } | { readonly suffix: "_sum" | "_count" };
};

/** What a metric is, apart from its numbers. */
export type Definition = {
  /** As every Prometheus takes it: letters, digits and underscores. */
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly help: string;
  /** Name and labels (by their plain name) for those who take UTF-8, where they differ: Meridio's have dots inside. */
  readonly utf8?: { readonly name?: string; readonly labels?: Readonly<Record<string, string>> };
};

export type Family = Definition & { readonly samples: readonly Sample[] };

/** Where a part of the metrics comes from. It reads what is there at that moment; it never waits. */
export type Source = { readonly name: string; readonly read: () => readonly Family[] };

/** A histogram's samples. @param counts per bucket, not summed up; the last bucket has no bound */
export function histogramSamples(
  labels: Labels,
  bounds: readonly string[],
  counts: ArrayLike<number>,
  sum: number,
): readonly Sample[] {
  let count = 0;
  const buckets = [...bounds, "+Inf"].map((le, bucket): Sample => {
    count += counts[bucket]!;
    return { labels, value: count, series: { suffix: "_bucket", le } };
  });
  return [
    ...buckets,
    { labels, value: sum, series: { suffix: "_sum" } },
    { labels, value: count, series: { suffix: "_count" } },
  ];
}

/** Labels by key, the same objects from scrape to scrape; those that a scrape does not ask for are forgotten after it. */
export class LabelCache {
  #last: ReadonlyMap<string, Labels> = new Map();
  #now = new Map<string, Labels>();

  /** A scrape begins. */
  begin(): void {
    this.#last = this.#now;
    this.#now = new Map();
  }

  get(key: string, make: () => Labels): Labels {
    const labels = this.#last.get(key) ?? make();
    this.#now.set(key, labels);
    return labels;
  }
}
