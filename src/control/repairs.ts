import { type DesiredKernel, formatStep, type Plan, type Step } from "#steering";
import { type RepairStorm, RepairStorms } from "./repair-storms.js";

/** What one turn put right: commands of the kernel's changes, and tables. */
export type Repairs = {
  readonly kernel: readonly string[];
  readonly tables: readonly string[];
  /** What has been put right so often now that somebody must be undoing it. */
  readonly storms: readonly RepairStorm[];
};

/**
 * Tells a repair from a change: once a desired state has been worked on, whatever else has to be done for it later undoes
 * somebody's doing, or the kernel's own, for example routes that went with their link.
 */
export class RepairWatch {
  #desired: DesiredKernel | null = null;
  #open: ReadonlySet<string> = new Set();
  readonly #storms = new RepairStorms();
  /** Steps that were repairs, and tables, since the start. */
  count = 0;

  /**
   * @param plan what this turn did
   * @param open steps that failed, or wait for something: that they come again is no repair
   * @param tables tables, and the flow rules, that somebody else had changed and that were published anew
   */
  turn(
    desired: DesiredKernel,
    { additions, vips, removals }: Plan,
    open: readonly Step[],
    tables: readonly string[],
    nowMs: number,
  ): Repairs {
    const done = [...additions, ...vips, ...removals];
    const isOld = done.length > 0 && this.#desired !== null && isSame(this.#desired, desired);
    const repairs = isOld ? done.filter((step) => !this.#open.has(keyOf(step))) : [];
    this.count += repairs.length + tables.length;
    this.#desired = desired;
    this.#open = new Set(open.map(keyOf));
    const things = [...repairs.map((step) => formatStep(step)[0] ?? ""), ...tables];
    const storms = things.length === 0 ? [] : this.#storms.repaired(things, nowMs);
    return { kernel: repairs.flatMap(formatStep), tables, storms };
  }

  storms(nowMs: number): readonly RepairStorm[] {
    return this.#storms.now(nowMs);
  }
}

function isSame(a: DesiredKernel, b: DesiredKernel): boolean {
  return a === b || (isSameTargets(a.targets, b.targets) && textOf(a) === textOf(b));
}

type Targets = DesiredKernel["targets"];

function isSameTargets(a: Targets, b: Targets): boolean {
  const isSameOne = (one: Targets[number], other: Targets[number] | undefined) =>
    one === other || (one.fwmark === other?.fwmark && one.addresses.join() === other.addresses.join());
  return a === b || (a.length === b.length && a.every((one, i) => isSameOne(one, b[i])));
}

/** All but the targets. */
const textOf = (desired: DesiredKernel) => JSON.stringify({ ...desired, targets: [] });

const keyOf = (step: Step) => formatStep(step).join("\n");
