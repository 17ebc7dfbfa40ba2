import fc from "fast-check";
import { expect, test } from "vitest";
import { AGGREGATES, assess, type ServiceState, SUB_SERVICES } from "./assess.js";

const serving: ServiceState = {
  isNspConnected: true,
  isDataPlaneReady: true,
  isFrontendAnnounced: true,
  areSocketsAnswering: true,
  streams: [
    { flows: 0, targets: 0 },
    { flows: 1, targets: 2 },
  ],
};
const noStreams: Partial<ServiceState> = { streams: [] };

test.each<[string, Partial<ServiceState>, readonly string[], boolean]>([
  ["all is well", {}, [], true],
  ["the NSP is away", { isNspConnected: false }, ["NSPCli"], true],
  ["a socket does not answer", { areSocketsAnswering: false }, ["NSMEndpoint"], true],
  ["the frontend is away", { isFrontendAnnounced: false }, ["Egress"], true],
  ["there is no frontend to wait for", { isFrontendAnnounced: null }, [], true],
  ["R16: streams were evicted", noStreams, ["Stream", "Flow"], false],
  ["R16: the last flow went", { streams: [{ flows: 0, targets: 2 }] }, ["Flow"], true],
  ["no target gets packets", { streams: [{ flows: 1, targets: 0 }] }, [], false],
  ["D8: the data plane died", { isDataPlaneReady: false }, ["Flow"], false],
])("%s", (_name, change, failing, isAvailable) => {
  const { parts, isAvailable: found } = assess({ ...serving, ...change });
  expect(SUB_SERVICES.filter((part) => !parts[part])).toEqual(failing);
  expect(found).toBe(isAvailable);
});

test("Liveness depends on our own sockets alone, whatever else fails", () => {
  const anyState = fc.record({
    isNspConnected: fc.boolean(),
    isDataPlaneReady: fc.boolean(),
    isFrontendAnnounced: fc.option(fc.boolean()),
    areSocketsAnswering: fc.boolean(),
    streams: fc.array(fc.record({ flows: fc.nat(3), targets: fc.nat(3) }), { maxLength: 3 }),
  });
  const isLive = (state: ServiceState) => AGGREGATES.Liveness.every((part) => assess(state).parts[part]);
  fc.assert(fc.property(anyState, (state) => isLive(state) === state.areSocketsAnswering));
});
