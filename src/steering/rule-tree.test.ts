// Random walks through target sets (decision 0004): the plan's steps go to a kernel in memory one by one, and after each
// of them marks that the tables hold are asked of a plain model of the kernel's walk. test/netns asks the kernel itself.
import fc from "fast-check";
import { expect, test } from "vitest";
import { defaultRoute, RouteConnection } from "#netlink/route";
import { MemoryKernel } from "../../test/fakes/memory-kernel.js";
import { walkRules } from "../../test/oracle/rule-walk.js";
import { diff, planLength } from "./diff.js";
import { Memo } from "./memo.js";
import { type ActualKernel, type DesiredKernel, NOTHING_DESIRED, OUR_PROTOCOL, type Step } from "./state.js";

type Family = 4 | 6;
const FAMILIES = [4, 6] as const;
/** Marks asked after each step; after whole halves of a plan all are asked. */
const SAMPLE = 12;
/** Walks per property, another seed each time; a few hundred steps each. */
const RUNS = 5;

type Target = DesiredKernel["targets"][number];
const addressOf = (fwmark: number, family: Family) =>
  family === 4 ? `10.1.${(fwmark >>> 8) & 0xff}.${fwmark & 0xff}` : `fd00::${(fwmark & 0xffff).toString(16)}`;
const target = (fwmark: number, families: readonly Family[]): Target => ({
  fwmark,
  addresses: families.map((family) => addressOf(fwmark, family)),
});
const has = ({ addresses }: Target, family: Family) =>
  addresses.some((address) => address.includes(":") === (family === 6));

const FEATURES = { queueStatement: "native", hasConntrack: true, hasSctpChecksum: true } as const;

/** A kernel in memory, read and changed as `Steering` does, without nftables. */
class World {
  readonly route = new RouteConnection(new MemoryKernel().open());
  /** What the kernel holds, read again after each step that changed it. */
  readonly #rules = { 4: this.rules(4), 6: this.rules(6) };
  readonly #tables = { 4: new Set<number>(), 6: new Set<number>() };

  read(): ActualKernel {
    const rules = FAMILIES.flatMap((family) => this.rules(family));
    const routes = FAMILIES.flatMap((family) => this.route.routes(family, OUR_PROTOCOL));
    return { rules, routes, isAstray: () => false, tables: new Map(), features: FEATURES, memo: new Memo() };
  }

  rules(family: Family) {
    return this.route.rules(family).filter(({ protocol }) => protocol === OUR_PROTOCOL);
  }

  apply(step: Step): void {
    switch (step.kind) {
      case "addRule":
        this.route.addRule(step.rule);
        break;
      case "deleteRule":
        this.route.deleteRule(step.rule);
        break;
      case "deleteRoute":
        this.route.deleteRoute(step.route);
        break;
      case "replaceRoute":
        this.route.replaceRoute(defaultRoute(step.table, bytes(step), OUR_PROTOCOL));
        break;
      case "nft":
        return;
    }
    if ("rule" in step) this.#rules[step.rule.family] = this.rules(step.rule.family);
    else {
      const { family } = step.kind === "deleteRoute" ? step.route : step;
      this.#tables[family] = new Set(this.route.routes(family, OUR_PROTOCOL).map(({ table }) => table));
    }
  }

  /** Those of the targets whose mark does not lead to its own table. */
  misled(targets: readonly Target[]): readonly string[] {
    return FAMILIES.flatMap((family) =>
      targets
        .filter((one) => has(one, family))
        .map(({ fwmark }) => {
          const table = walkRules(this.#rules[family], fwmark, (number) => this.#tables[family].has(number));
          return table === fwmark ? "" : `IPv${family} ${fwmark} goes to ${table}`;
        })
        .filter((text) => text !== ""),
    );
  }
}

function bytes({ family, gateway }: Extract<Step, { kind: "replaceRoute" }>): Uint8Array {
  if (family === 4) return new Uint8Array(gateway.split(".").map(Number));
  const last = Number.parseInt(gateway.replace(/^.*:/, "") || "0", 16);
  return new Uint8Array([0xfd, ...Array<number>(13).fill(0), last >>> 8, last & 0xff]);
}

/** Every n-th of the targets, with another beginning at each step. */
function sampleOf(targets: readonly Target[], turn: number): readonly Target[] {
  const stride = Math.max(1, Math.floor(targets.length / SAMPLE));
  return targets.filter((_, i) => i % stride === turn % stride);
}

/**
 * Carries out the plan from what is there to `next`, at most `mostSteps` of it.
 * @param published what the tables hold now: packets carry these marks until the additions are done
 * @returns what the tables hold afterwards
 */
function advance(world: World, published: readonly Target[], next: readonly Target[], mostSteps: number) {
  const { additions, removals } = diff({ ...NOTHING_DESIRED, targets: next }, world.read());
  let steps = 0;
  for (const [half, users] of [
    [additions, published],
    [removals, next],
  ] as const) {
    for (const step of half) {
      if (steps++ === mostSteps) return half === additions ? published : next;
      world.apply(step);
      expect(world.misled(sampleOf(users, steps))).toEqual([]);
    }
    expect(world.misled(half === additions ? [...published, ...next] : next)).toEqual([]);
  }
  return next;
}

const families = fc.constantFrom<readonly Family[]>([4, 6], [4, 6], [4], [6]);
/** Marks of one stream lie close together; many streams, or a large offset, spread them. */
const marks = fc
  .record({
    count: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 55, max: 90 })),
    first: fc.constantFrom(1, 5_001, 5_033, 70_000, 2 ** 30),
    stride: fc.constantFrom(1, 1, 3, 64, 100, 4_096, 1_000_003),
  })
  .map(({ count, first, stride }) => Array.from({ length: count }, (_, i) => first + i * stride));
const targets = fc
  .tuple(marks, fc.array(families, { minLength: 1, maxLength: 5 }), fc.integer())
  .map(([some, kinds, seed]) =>
    some
      .map((fwmark, i) => target(fwmark, kinds[i % kinds.length]!))
      .toSorted((a, b) => Math.imul(a.fwmark ^ seed, 0x9e3779b1) - Math.imul(b.fwmark ^ seed, 0x9e3779b1)),
  );
/** The next set: another one, or the last one with some taken away, or with some more. */
type Transition = {
  readonly kind: "other" | "fewer" | "more";
  readonly targets: readonly Target[];
  readonly keepOneIn: number;
};
const transition: fc.Arbitrary<Transition> = fc.record({
  kind: fc.constantFrom<Transition["kind"][]>("other", "fewer", "more"),
  targets,
  keepOneIn: fc.integer({ min: 2, max: 4 }),
});

function follow(before: readonly Target[], { kind, targets: others, keepOneIn }: Transition) {
  if (kind === "other") return others;
  if (kind === "fewer") return before.filter((_, i) => i % keepOneIn === 0);
  const known = new Set(before.map(({ fwmark }) => fwmark));
  return [...others.filter(({ fwmark }) => !known.has(fwmark)), ...before];
}

test("on the way from any targets to any others, each mark that the tables hold is steered after every step", {
  timeout: 60_000,
}, () => {
  const holds = fc.property(fc.array(transition, { minLength: 2, maxLength: 3 }), (transitions) => {
    const world = new World();
    let now: readonly Target[] = [];
    for (const one of transitions) {
      const next = follow(now, one);
      now = advance(world, now, next, Number.POSITIVE_INFINITY);
      const rest = diff({ ...NOTHING_DESIRED, targets: now }, world.read());
      expect(planLength({ ...rest, additions: rest.additions.filter(({ kind }) => kind !== "nft") })).toBe(0);
    }
  });
  fc.assert(holds, { numRuns: RUNS, endOnFailure: true });
});

test("also when plans are broken off half-way, as by a crash, and the next one starts from what is there", {
  timeout: 60_000,
}, () => {
  const broken = fc.record({ transition, mostSteps: fc.nat(300) });
  const holds = fc.property(fc.array(broken, { minLength: 2, maxLength: 4 }), (transitions) => {
    const world = new World();
    let wanted: readonly Target[] = [];
    let published: readonly Target[] = [];
    for (const one of transitions) {
      wanted = follow(wanted, one.transition);
      published = advance(world, published, wanted, one.mostSteps);
    }
    advance(world, published, wanted, Number.POSITIVE_INFINITY);
    expect(world.misled(wanted)).toEqual([]);
  });
  fc.assert(holds, { numRuns: RUNS, endOnFailure: true });
});
