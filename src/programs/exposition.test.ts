// The text of metrics beside that of prom-client, the oracle; of whole scrapes see metrics.test.ts.
import { array, assert, constantFrom, double, integer, oneof, property, record, string } from "fast-check";
import { Gauge, Registry } from "prom-client";
import { expect, test } from "vitest";
import { TextExposition } from "./stateless-lb/metrics/exposition.js";
import { histogram, labelText, single } from "./stateless-lb/metrics/family.js";

const gauge = (name: string, help = "help") => ({ name, type: "gauge", help }) as const;
const textOf = (out: TextExposition) => Buffer.concat(out.parts).toString();
const linesOf = (text: string) => text.split("\n").filter((line) => line !== "");

const anyText = oneof(string({ unit: "binary" }), string({ unit: constantFrom('"', "\\", "\n", "a", "ä", "€", "𝄞") }));
const anyValue = oneof(double(), integer(), constantFrom(0, 1, 2 ** 53, Number.POSITIVE_INFINITY, Number.NaN));

test("any help, labels and values are written as prom-client writes them", async () => {
  const families = array(
    record({
      help: anyText,
      samples: array(record({ labels: record({ a: anyText, b: anyText }), value: anyValue }), { maxLength: 150 }),
    }),
    { maxLength: 5 },
  );
  const cases: { readonly ours: string; readonly registry: Registry }[] = [];
  const out = new TextExposition(); // its memory is used again from case to case
  assert(
    property(families, (list) => {
      const registry = new Registry();
      out.begin("underscores");
      for (const [i, { help, samples }] of list.entries()) {
        const name = `metric_${i}`;
        out.family(gauge(name, help));
        const metric = new Gauge({
          name,
          help: help === "" ? "-" : help,
          labelNames: ["a", "b"],
          registers: [registry],
        });
        const unique = new Map(samples.map((sample) => [JSON.stringify(sample.labels), sample]));
        for (const { labels, value } of unique.values()) {
          out.sample(labelText(labels), value);
          metric.set(labels, value);
        }
      }
      cases.push({ ours: textOf(out), registry });
    }),
    { numRuns: 300 },
  );
  for (const { ours, registry } of cases) {
    const theirs = (await registry.metrics())
      .replaceAll(/^# HELP (\S+) -$/gm, "# HELP $1 ")
      .replaceAll(/ Nan$/gm, " NaN");
    expect(linesOf(ours).map((line) => line.trimEnd())).toEqual(linesOf(theirs).map((line) => line.trimEnd()));
  }
});

test("thousands of lines over many chunks, and memory that is used again", () => {
  const out = new TextExposition();
  for (const count of [5_000, 1, 20_000]) {
    out.begin("underscores");
    out.family(gauge("one"));
    for (let i = 0; i < count; i++) out.sample(labelText({ number: `${i}€` }), i);
    expect(linesOf(textOf(out)).slice(2)).toEqual(Array.from({ length: count }, (_, i) => `one{number="${i}€"} ${i}`));
  }
});

test.each([0, 99, 100, 101, 3_000])(
  "a source that fails behind %i lines leaves nothing, and what was there stays",
  (lines) => {
    const out = new TextExposition();
    single(out, gauge("before"), 1);
    const fail = () => {
      out.family(gauge("broken"));
      for (let i = 0; i < lines; i++) out.sample(labelText({ number: String(i) }), i);
      throw new Error("gone");
    };
    expect(() => out.attempt(fail)).toThrow("gone");
    single(out, gauge("after"), 2);
    expect(linesOf(textOf(out)).filter((line) => !line.startsWith("#"))).toEqual(["before 1", "after 2"]);
  },
);

test("a histogram without labels, and one of a name in UTF-8", () => {
  const out = new TextExposition();
  out.begin("allow-utf-8");
  out.family({ name: "a_b", type: "histogram", help: "h" });
  histogram(out, "", ["1", "2"], [1, 0, 3], 9);
  out.family({ name: "c_d", type: "gauge", help: "h", utf8: { name: "c.d", labels: { e_f: "e.f" } } });
  out.sample("", 1);
  out.sample('e_f="x"', 2);
  expect(linesOf(textOf(out)).filter((line) => !line.startsWith("#"))).toEqual([
    'a_b_bucket{le="1"} 1',
    'a_b_bucket{le="2"} 1',
    'a_b_bucket{le="+Inf"} 4',
    "a_b_sum 9",
    "a_b_count 4",
    '{"c.d"} 1',
    '{"c.d","e.f"="x"} 2',
  ]);
});
