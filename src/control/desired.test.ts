import { expect, test } from "vitest";
import type { Flow } from "#model";
import { FlowRules } from "./desired.js";

const flow = (name: string, ...vips: readonly string[]): Flow => ({
  name,
  stream: "web",
  priority: 1,
  vips: vips.map((prefix) => ({ name: prefix, prefix })),
  sourcePrefixes: [],
  sourcePorts: [],
  destinationPorts: ["80"],
  protocols: ["tcp"],
  byteMatches: [],
});

test("rules of flows with the same VIPs share one list of them, also with flows that come later", () => {
  const rules = new FlowRules();
  const flows = [flow("a", "10.0.0.1/32", "2001:db8::1/128"), flow("b", "10.0.0.1/32", "2001:db8::1/128")];
  const [a, b] = rules.of(flows);
  expect(b!.destinations).toBe(a!.destinations);
  const [, , c, d] = rules.of([...flows, flow("c", "10.0.0.1/32", "2001:db8::1/128"), flow("d", "10.0.0.2/32")]);
  expect(c!.destinations).toBe(a!.destinations);
  expect(d!.destinations).toHaveLength(1);
  expect(c).toMatchObject({ name: "tshm-web-c", destinations: [{ bits: 128 }, { bits: 128 }] });
});
