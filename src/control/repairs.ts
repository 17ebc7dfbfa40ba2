import { type DesiredKernel, formatStep, type Plan, type Step } from "#steering";

/**
 * Tells a repair from a change: once a desired state has been worked on, whatever else has to be done for it later undoes
 * somebody's doing, or the kernel's own, for example routes that went with their link.
 */
export class RepairWatch {
  #desired: DesiredKernel | null = null;
  #open: ReadonlySet<string> = new Set();
  /** Steps that were repairs, since the start. */
  count = 0;

  /**
   * @param plan what this turn did
   * @param open steps that failed, or wait for something: that they come again is no repair
   * @returns the steps that were repairs
   */
  turn(desired: DesiredKernel, { additions, vips, removals }: Plan, open: readonly Step[]): readonly Step[] {
    const done = [...additions, ...vips, ...removals];
    const isOld = done.length > 0 && this.#desired !== null && isSame(this.#desired, desired);
    const repairs = isOld ? done.filter((step) => !this.#open.has(keyOf(step))) : [];
    this.count += repairs.length;
    this.#desired = desired;
    this.#open = new Set(open.map(keyOf));
    return repairs;
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
