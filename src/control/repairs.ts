import { type DesiredKernel, formatStep, type Plan, type Step } from "#steering";

/**
 * Tells a repair from a change: once a desired state has been worked on, whatever else has to be done for it later undoes
 * somebody's doing, or the kernel's own, for example routes that went with their link.
 */
export class RepairWatch {
  #desired = "";
  #open: ReadonlySet<string> = new Set();
  /** Steps that were repairs, since the start. */
  count = 0;

  /**
   * @param plan what this turn did
   * @param open steps that failed, or wait for something: that they come again is no repair
   * @returns the steps that were repairs
   */
  turn(desired: DesiredKernel, { additions, vips, removals }: Plan, open: readonly Step[]): readonly Step[] {
    const text = JSON.stringify(desired);
    const isRepair = (step: Step) => text === this.#desired && !this.#open.has(keyOf(step));
    const repairs = [...additions, ...vips, ...removals].filter(isRepair);
    this.count += repairs.length;
    this.#desired = text;
    this.#open = new Set(open.map(keyOf));
    return repairs;
  }
}

const keyOf = (step: Step) => formatStep(step).join("\n");
