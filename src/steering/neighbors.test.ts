import { expect, test } from "vitest";
import { addressKey, NeighborState } from "#netlink/route";
import { Neighbors } from "./neighbors.js";

const address = Uint8Array.of(172, 16, 0, 2);
const KEY = addressKey(address);
const other = Uint8Array.of(172, 16, 0, 3);
/** A state that is told of an entry; `gone` is its deletion. */
type Told = keyof typeof NeighborState | "gone";
function after(...states: readonly Told[]): Neighbors {
  const neighbors = new Neighbors();
  for (const state of states) tell(neighbors, state);
  return neighbors;
}
function take(neighbors: Neighbors, state: Told, of: Uint8Array) {
  const change = state === "gone" ? "deleted" : "new";
  return neighbors.take(change, 7, addressKey(of), NeighborState[state === "gone" ? "failed" : state]);
}
function tell(neighbors: Neighbors, state: Told): boolean {
  return take(neighbors, state, address) !== "nothing";
}
const isFailed = (neighbors: Neighbors) => neighbors.isFailed(7, KEY);

test("a neighbor has failed from FAILED until it is reachable again", () => {
  expect(isFailed(after("reachable", "stale", "probe"))).toBe(false);
  expect(isFailed(after("reachable", "probe", "failed"))).toBe(true);
  expect(isFailed(after("failed", "incomplete"))).toBe(true);
  expect(isFailed(after("failed", "incomplete", "stale"))).toBe(true);
  expect(isFailed(after("failed", "incomplete", "reachable"))).toBe(false);
  expect(isFailed(after("failed", "permanent"))).toBe(false);
});

test("that the kernel begins to ask is never told: INCOMPLETE says that it has asked in vain, and asks again", () => {
  expect(isFailed(after("incomplete"))).toBe(true);
  expect(isFailed(after("reachable", "stale", "probe", "incomplete"))).toBe(true);
  expect(isFailed(after("incomplete", "reachable"))).toBe(false);
  expect(isFailed(after("incomplete", "incomplete", "failed", "incomplete", "stale"))).toBe(true);
  const read = new Neighbors(); // in a dump it is any question
  read.replace([{ linkIndex: 7, key: KEY, state: NeighborState.incomplete }], () => true);
  expect([isFailed(read), read.isWorthProbing(7, KEY)]).toEqual([false, false]);
  const failed = after("failed");
  failed.replace([{ linkIndex: 7, key: KEY, state: NeighborState.incomplete }], () => true);
  expect([isFailed(failed), failed.isWorthProbing(7, KEY)]).toEqual([true, false]);
});

test("another link-layer address is news for people, and decides nothing", () => {
  const neighbors = new Neighbors();
  const hear = (state: keyof typeof NeighborState, mac: number) =>
    neighbors.take("new", 7, KEY, NeighborState[state], mac);
  expect([hear("reachable", 5), hear("stale", 5), hear("reachable", 6)]).toEqual(["heard", "nothing", "moved"]);
  expect([hear("failed", 0), hear("reachable", 7), hear("reachable", 7)]).toEqual(["failure", "failure", "nothing"]);
  expect([hear("stale", 0), hear("reachable", 7), hear("reachable", 8)]).toEqual(["nothing", "nothing", "moved"]);
});

test("only what decides something is news", () => {
  const neighbors = new Neighbors();
  const news = (
    ["incomplete", "reachable", "stale", "probe", "reachable", "failed", "incomplete", "reachable"] as const
  ).map((state) => tell(neighbors, state));
  expect(news).toEqual([true, true, false, false, false, true, false, true]);
});

test("an entry that is dropped as garbage long after its failure leaves it failed; one deleted by hand says nothing", () => {
  const garbage = after("failed");
  take(garbage, "reachable", other);
  tell(garbage, "gone");
  expect(isFailed(garbage)).toBe(true);
  expect(isFailed(after("reachable", "failed", "gone"))).toBe(false);
});

test("what we drop ourselves is no failure, also when other events come in between", () => {
  const neighbors = after("stale");
  expect(neighbors.forget(address, [6, 7])).toEqual([{ family: 4, linkIndex: 7, address }]);
  expect(neighbors.forget(address, [6, 7])).toEqual([]); // it is done, though not told yet
  expect(tell(neighbors, "failed")).toBe(false);
  take(neighbors, "reachable", other);
  tell(neighbors, "gone");
  expect([isFailed(neighbors), neighbors.isUnknown(7, KEY)]).toEqual([false, true]);
  expect(neighbors.forget(address, [7])).toEqual([]); // there is nothing to drop any more
});

test("an entry that we drop while packets wait for its answer is asked anew at once; a failure after that is one", () => {
  const neighbors = after("stale");
  neighbors.forget(address, [7]);
  expect([tell(neighbors, "incomplete"), isFailed(neighbors)]).toEqual([false, false]);
  expect([tell(neighbors, "incomplete"), isFailed(neighbors)]).toEqual([true, true]);
});

test("fixed entries are neither dropped nor asked, nor those that the kernel is asking about", () => {
  expect(after("permanent").forget(address, [7])).toEqual([]);
  const isWorth = (...states: readonly Told[]) => after(...states).isWorthProbing(7, KEY);
  expect([isWorth("permanent"), isWorth("noarp"), isWorth("incomplete"), isWorth("probe"), isWorth("delay")]).toEqual(
    Array(5).fill(false),
  );
  expect([isWorth(), isWorth("stale"), isWorth("reachable"), isWorth("failed")]).toEqual(Array(4).fill(true));
});

test("a new reading keeps failures of neighbors that are gone, as long as their link lives", () => {
  const neighbors = after("failed");
  neighbors.replace([], () => true);
  expect(isFailed(neighbors)).toBe(true);
  neighbors.replace([], () => false);
  expect(isFailed(neighbors)).toBe(false);
  neighbors.replace([{ linkIndex: 7, key: KEY, state: NeighborState.failed }], () => true);
  expect(isFailed(neighbors)).toBe(true);
});
