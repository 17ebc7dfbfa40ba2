import { expect, test } from "vitest";
import { defaultRoute, type NextHop, type Route, type RouteConnection } from "#netlink/route";

const v4 = (last: number) => new Uint8Array([10, 1, 0, last]);
const v6 = (last: number) => new Uint8Array([0xfd, ...Array<number>(14).fill(0), last]);
const refused = (...errnos: readonly string[]) =>
  expect.objectContaining({ code: "ERR_NETLINK", errno: expect.toBeOneOf([...errnos]) });

/** What every kernel does with routes; `open` gives a connection to one whose link `v0` has 10.1.0.1/16 and fd00::1/64. */
export function routesCompliance(name: string, open: () => RouteConnection): void {
  const ours = (route: RouteConnection) => [...route.routes(4, 90), ...route.routes(6, 90)];
  const linkIndex = (route: RouteConnection) => route.links().find((link) => link.name === "v0")!.index;
  const gateways = (route: RouteConnection) =>
    ours(route).map(({ nextHops }) => nextHops.map(({ gateway }) => gateway));
  const hop = (gateway: Uint8Array, weight: number): NextHop => ({ gateway, linkIndex: 0, weight, isUnusable: false });
  const clear = (route: RouteConnection) => {
    for (const one of ours(route)) route.deleteRoute(one);
    expect(ours(route)).toEqual([]);
  };

  for (const [family, gateway, other, metric] of [
    [4, v4(9), v4(10), 0],
    [6, v6(9), v6(10), 1024],
  ] as const) {
    const plain = defaultRoute(5001, gateway, 90);

    test(`${name}: a default route is listed with the link and metric that the kernel chose, IPv${family}`, () => {
      using route = open();
      route.addRoute(plain);
      const listed = { ...plain, metric, nextHops: [{ ...plain.nextHops[0]!, linkIndex: linkIndex(route) }] };
      expect(ours(route)).toEqual([listed]);
      clear(route);
    });

    test(`${name}: the same route twice is EEXIST, IPv${family}`, () => {
      using route = open();
      route.addRoute(plain);
      expect(() => route.addRoute(plain)).toThrowError(refused("EEXIST"));
      expect(() => route.addRoute(defaultRoute(5001, other, 90))).toThrowError(refused("EEXIST"));
      expect(gateways(route)).toEqual([[gateway]]);
      clear(route);
    });

    test(`${name}: a route is replaced in its place, and in no other, IPv${family}`, () => {
      using route = open();
      route.addRoute({ ...plain, metric: 7 });
      route.replaceRoute(plain);
      route.replaceRoute(defaultRoute(5001, other, 90));
      expect(gateways(route)).toHaveLength(2);
      expect(gateways(route)).toContainEqual([other]);
      expect(gateways(route)).toContainEqual([gateway]);
      route.replaceRoute(defaultRoute(5002, gateway, 90));
      expect(ours(route)).toHaveLength(3);
      clear(route);
    });

    test(`${name}: deleting a route that is gone is ESRCH, and one with another gateway is another, IPv${family}`, () => {
      using route = open();
      expect(() => route.deleteRoute(plain)).toThrowError(refused("ESRCH", "ENOENT"));
      route.addRoute(plain);
      expect(() => route.deleteRoute(defaultRoute(5001, other, 90))).toThrowError(refused("ESRCH"));
      expect(() => route.deleteRoute({ ...plain, protocol: 91 })).toThrowError(refused("ESRCH"));
      route.deleteRoute(plain);
      expect(() => route.deleteRoute(plain)).toThrowError(refused("ESRCH", "ENOENT"));
      expect(ours(route)).toEqual([]);
    });

    test(`${name}: several next hops keep their gateways and weights, IPv${family}`, () => {
      using route = open();
      const destination = new Uint8Array(gateway.length).fill(0x20, 0, 2);
      const several = { ...plain, destination, destinationLength: 16, nextHops: [hop(gateway, 2), hop(other, 1)] };
      route.addRoute(several);
      const nextHops = several.nextHops.map((one) => ({ ...one, linkIndex: linkIndex(route) }));
      expect(ours(route)).toEqual([{ ...several, metric, nextHops }]);
      clear(route);
    });

    test(`${name}: a gateway that is on no link is refused, IPv${family}`, () => {
      using route = open();
      const far = new Uint8Array(gateway.length).fill(0x40);
      const added = () => route.addRoute(defaultRoute(5001, far, 90));
      expect(added).toThrowError(refused(family === 4 ? "ENETUNREACH" : "EHOSTUNREACH"));
      expect(ours(route)).toEqual([]);
    });
  }

  test(`${name}: blackhole and unreachable routes have a type and no next hop`, () => {
    using route = open();
    const destination = new Uint8Array([203, 0, 113, 0]);
    const base = { ...defaultRoute(5001, v4(9), 90), destination, destinationLength: 24, nextHops: [] };
    const routes: readonly Route[] = (["blackhole", "unreachable", "prohibit", "throw"] as const).map((type, i) => ({
      ...base,
      type,
      metric: i + 1,
    }));
    for (const one of routes) route.addRoute(one);
    expect(ours(route)).toEqual(routes);
    route.deleteRoute(routes[1]!);
    expect(ours(route)).toEqual(routes.filter(({ type }) => type !== "unreachable"));
    clear(route);
  });

  test(`${name}: a dump of many routes has each of them once`, () => {
    using route = open();
    const tables = Array.from({ length: 500 }, (_, i) => 20_000 + i);
    for (const table of tables) route.replaceRoute(defaultRoute(table, v4((table % 200) + 2), 90));
    expect(new Set(ours(route).map(({ table }) => table))).toEqual(new Set(tables));
    expect(ours(route)).toHaveLength(tables.length);
    clear(route);
  });
}
