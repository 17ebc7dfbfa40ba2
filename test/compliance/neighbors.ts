import { expect, test } from "vitest";
import { type Neighbor, NeighborState, type RouteConnection } from "#netlink/route";

const refused = (errno: string) => expect.objectContaining({ code: "ERR_NETLINK", errno });
const lladdr = (last: number) => new Uint8Array([2, 0, 0, 0, 0, last]);
const ADDRESSES = {
  4: (last: number) => new Uint8Array([10, 1, 0, last]),
  6: (last: number) => new Uint8Array([0xfd, ...Array<number>(14).fill(0), last]),
} as const;

/** What every kernel does with neighbor entries; `open` gives a connection to one with a link `v0`, where nobody answers. */
export function neighborsCompliance(name: string, open: () => RouteConnection): void {
  const linkIndex = (route: RouteConnection) => route.links().find((link) => link.name === "v0")!.index;

  for (const family of [4, 6] as const) {
    const entry = (route: RouteConnection, fields: Partial<Neighbor> = {}): Neighbor => ({
      family,
      linkIndex: linkIndex(route),
      address: ADDRESSES[family](9),
      state: NeighborState.permanent,
      linkLayerAddress: lladdr(9),
      flags: 0,
      protocol: 90,
      ...fields,
    });
    /** Without the multicast entries that a real kernel makes by itself. */
    const listed = (route: RouteConnection) =>
      route.neighbors(family, linkIndex(route)).filter(({ state }) => state !== NeighborState.noarp);

    test(`${name}: a neighbor is listed as it was added, replaced in its place, and gone when deleted, IPv${family}`, () => {
      using route = open();
      route.addNeighbor(entry(route));
      expect(listed(route)).toEqual([entry(route)]);
      expect(route.neighbors(family).filter(({ protocol }) => protocol === 90)).toEqual([entry(route)]);
      expect(route.neighbors(family, 1)).toEqual([]);
      const changed = entry(route, { linkLayerAddress: lladdr(10), state: NeighborState.stale });
      route.replaceNeighbor(changed);
      expect(listed(route)).toEqual([changed]);
      route.deleteNeighbor(changed);
      expect(listed(route)).toEqual([]);
    });

    test(`${name}: a neighbor twice is EEXIST, a neighbor on no link ENODEV, IPv${family}`, () => {
      using route = open();
      route.addNeighbor(entry(route));
      expect(() => route.addNeighbor(entry(route, { linkLayerAddress: lladdr(10) }))).toThrowError(refused("EEXIST"));
      expect(() => route.addNeighbor(entry(route, { linkIndex: 999 }))).toThrowError(refused("ENODEV"));
      expect(listed(route)).toEqual([entry(route)]);
      route.deleteNeighbor(entry(route));
    });

    test(`${name}: deleting a neighbor that is gone is ENOENT, IPv${family}`, () => {
      using route = open();
      expect(() => route.deleteNeighbor(entry(route))).toThrowError(refused("ENOENT"));
    });

    test(`${name}: a state that has a link-layer address needs one, IPv${family}`, () => {
      using route = open();
      const without = entry(route, {
        linkLayerAddress: null,
        state: NeighborState.stale,
        address: ADDRESSES[family](8),
      });
      expect(() => route.replaceNeighbor(without)).toThrowError(refused("EINVAL"));
    });

    test(`${name}: a probe of a known neighbor asks it and keeps its link-layer address, IPv${family}`, () => {
      using route = open();
      const stale = entry(route, { state: NeighborState.stale, address: ADDRESSES[family](7) });
      route.addNeighbor(stale);
      route.probeNeighbors([stale]);
      expect(listed(route)).toContainEqual({ ...stale, state: NeighborState.probe });
      route.deleteNeighbor(stale);
    });

    test(`${name}: a probe of an unknown or failed neighbor resolves it, IPv${family}`, () => {
      using route = open();
      const unknown = entry(route, {
        state: NeighborState.incomplete,
        linkLayerAddress: null,
        address: ADDRESSES[family](6),
        protocol: 0,
      });
      route.probeNeighbors([unknown]);
      expect(listed(route)).toContainEqual(unknown);
      const failed = { ...unknown, state: NeighborState.failed };
      route.replaceNeighbor(failed);
      expect(listed(route)).toContainEqual(failed);
      route.probeNeighbors([unknown]);
      expect(listed(route)).toContainEqual(unknown);
      route.deleteNeighbor(unknown);
    });
  }
}
