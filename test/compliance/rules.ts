import { expect, test } from "vitest";
import type { Family, RouteConnection, Rule } from "#netlink/route";

const rule = (fields: Partial<Rule>): Rule => ({
  family: 4,
  priority: 20,
  fwmark: 5001,
  fwmask: 0xffffffff,
  action: "table",
  table: 5001,
  goto: null,
  protocol: 90,
  ...fields,
});
const nop = (priority: number): Rule => rule({ priority, fwmark: null, action: "nop", table: 0 });
const refused = (errno: string) => expect.objectContaining({ code: "ERR_NETLINK", errno });

/** What every kernel does with rules; `open` gives a connection to one without rules of protocol 90. */
export function rulesCompliance(name: string, open: () => RouteConnection): void {
  const families: readonly Family[] = [4, 6];
  const ours = (route: RouteConnection, family: Family) =>
    route.rules(family).filter(({ protocol }) => protocol === 90);

  test.for(families)(`${name}: a rule is listed as it was added, IPv%d`, (family) => {
    using route = open();
    const added = [
      rule({ family, priority: 2, fwmark: 0x1380, fwmask: 0xffffffc0, action: "goto", table: 0, goto: 95 }),
      rule({ family, priority: 2, fwmark: 0, fwmask: 0xffffe000, action: "goto", table: 0, goto: 95 }),
      rule({ family, priority: 3, fwmark: null, action: "goto", table: 0, goto: 95 }),
      rule({ family, priority: 20 }),
      rule({ family, priority: 21, fwmark: 1, table: 77 }),
      rule({ family, priority: 22, fwmark: 0xffffffff, table: 0x7fffffff }),
      rule({ ...nop(95), family }),
    ];
    for (const one of added) route.addRule(one);
    expect(ours(route, family)).toEqual(added);
    for (const one of added) route.deleteRule(one);
    expect(ours(route, family)).toEqual([]);
  });

  test(`${name}: the same rule twice is EEXIST, and that of another maker is another rule`, () => {
    using route = open();
    route.addRule(rule({}));
    expect(() => route.addRule(rule({}))).toThrowError(refused("EEXIST"));
    route.addRule(rule({ protocol: 91 }));
    expect(ours(route, 4)).toEqual([rule({})]);
    route.deleteRule(rule({ protocol: 91 }));
    expect(ours(route, 4)).toEqual([rule({})]);
    route.deleteRule(rule({}));
  });

  test(`${name}: rules that differ in one field stand beside each other`, () => {
    using route = open();
    const some = [
      rule({}),
      rule({ table: 5002 }),
      rule({ fwmark: 5002 }),
      rule({ fwmask: 0xffff }),
      rule({ priority: 21 }),
    ];
    for (const one of some) route.addRule(one);
    expect(ours(route, 4)).toEqual(some);
    for (const one of some.toReversed()) route.deleteRule(one);
    expect(ours(route, 4)).toEqual([]);
  });

  test(`${name}: deleting a rule that is gone is ENOENT`, () => {
    using route = open();
    expect(() => route.deleteRule(rule({}))).toThrowError(refused("ENOENT"));
    route.addRule(rule({}));
    for (const other of [
      rule({ fwmark: 5002 }),
      rule({ table: 5002 }),
      rule({ priority: 21 }),
      rule({ protocol: 91 }),
    ]) {
      expect(() => route.deleteRule(other)).toThrowError(refused("ENOENT"));
    }
    route.deleteRule(rule({}));
    expect(() => route.deleteRule(rule({}))).toThrowError(refused("ENOENT"));
  });

  test(`${name}: rules are walked by priority, and in the order of arrival where it is equal`, () => {
    using route = open();
    const order = [30, 20, 25, 20, 30, 10].map((priority, i) => rule({ priority, fwmark: 6000 + i }));
    for (const one of order) route.addRule(one);
    const expected = [6005, 6001, 6003, 6002, 6000, 6004];
    expect(ours(route, 4).map(({ fwmark }) => fwmark)).toEqual(expected);
    for (const one of order) route.deleteRule(one);
  });

  test(`${name}: a goto leads forward only, and may lead to a rule that is not there yet`, () => {
    using route = open();
    const goto = (priority: number, target: number) =>
      rule({ priority, fwmark: null, action: "goto", table: 0, goto: target });
    expect(() => route.addRule(goto(20, 20))).toThrowError(refused("EINVAL"));
    expect(() => route.addRule(goto(20, 10))).toThrowError(refused("EINVAL"));
    route.addRule(goto(20, 30));
    expect(ours(route, 4)).toEqual([goto(20, 30)]);
    route.deleteRule(goto(20, 30));
  });

  test(`${name}: a rule of another kind is listed with what it looks at, and can be deleted exactly`, () => {
    using route = open();
    const selectors = {
      header: { destinationLength: 0, sourceLength: 8, tos: 0, flags: 2 },
      attributes: { source: new Uint8Array([10, 0, 0, 0]), outputInterface: "v0" },
    };
    route.addRule(rule({}));
    route.addRule(rule({ selectors }));
    expect(ours(route, 4)).toEqual([rule({}), rule({ selectors })]);
    route.deleteRule(rule({ selectors }));
    expect(ours(route, 4)).toEqual([rule({})]);
    route.deleteRule(rule({}));
  });

  test(`${name}: a rule for some sources keeps the same one for all from being added, not the other way round`, () => {
    using route = open();
    const selectors = {
      header: { destinationLength: 0, sourceLength: 8, tos: 0, flags: 0 },
      attributes: { source: new Uint8Array([10, 0, 0, 0]) },
    };
    route.addRule(rule({ selectors }));
    expect(() => route.addRule(rule({}))).toThrowError(refused("EEXIST"));
    route.deleteRule(rule({ selectors }));
    route.addRule(rule({}));
    route.addRule(rule({ selectors }));
    route.deleteRule(rule({ selectors }));
    route.deleteRule(rule({}));
  });

  test(`${name}: a rule with an action that is none of ours is listed by number, and deleted exactly`, () => {
    using route = open();
    const blackhole = rule({ action: 6, table: 0 });
    route.addRule(rule({}));
    route.addRule(blackhole);
    expect(ours(route, 4)).toEqual([rule({}), blackhole]);
    route.deleteRule(blackhole);
    expect(ours(route, 4)).toEqual([rule({})]);
    route.deleteRule(rule({}));
  });

  test(`${name}: a dump of many rules has each of them once, in order`, () => {
    using route = open();
    const many = Array.from({ length: 700 }, (_, i) => rule({ priority: 10 + (i % 7), fwmark: 10_000 + i }));
    for (const one of many) route.addRule(one);
    expect(ours(route, 4)).toEqual(many.toSorted((a, b) => a.priority - b.priority));
    for (const one of many) route.deleteRule(one);
    expect(ours(route, 4)).toEqual([]);
  });
}
