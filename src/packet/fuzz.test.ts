import { join } from "node:path";
import { expect, test } from "vitest";
import { ROOT, runBundled } from "../../test/harness/bundled.js";

const VECTORS = join(ROOT, "test/vectors/nfqlb/nfqlb-vectors.json");

test("a million mutated packets are understood as the slow model understands them", { timeout: 180_000 }, async () => {
  const seed = Math.floor(Math.random() * 2 ** 31) + 1;
  const output = await runBundled("test/harness/packet-fuzz.ts", "1000000", String(seed), VECTORS);
  const result = JSON.parse(output) as {
    packets: number;
    usable: number;
    kinds: Record<string, number>;
    worstMs: number;
  };
  console.log(`seed ${seed}: ${output}`);
  expect(result.packets).toBe(1_000_000);
  for (const kind of ["-1", "0", "1", "2", "4", "8", "12", "16", "17", "32", "33", "40"])
    expect(result.kinds[kind], kind).toBeGreaterThan(0);
  expect(result.worstMs).toBeLessThan(10_000); // no hang; a busy machine may pause the process
});
