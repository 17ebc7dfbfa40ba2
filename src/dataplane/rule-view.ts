import { FlowTableReader, TABLE_CHANGED, TABLE_RETIRED } from "#tables";

/** Rules of a region as the packet path uses them, `enter` before and `leave` after a batch. */
export class RuleView implements Disposable {
  readonly #folder: string;
  readonly #name: string;
  #reader: FlowTableReader;

  /** @throws ENOENT, {LayoutError} there is no such region */
  constructor(folder: string, name: string) {
    this.#folder = folder;
    this.#name = name;
    this.#reader = new FlowTableReader(folder, name);
  }

  /** The compiled rules in force, valid until `leave`. */
  get program(): Int32Array {
    return this.#reader.program;
  }

  /** Names of the tables that the rules name. */
  get streams(): readonly string[] {
    return this.#reader.streams;
  }

  /** Number of the rules in force, as a signed word. */
  get generation(): number {
    return this.#reader.generation;
  }

  /** Begins a batch. @returns whether the rules are others than those of the last batch */
  enter(): boolean {
    const state = this.#reader.enter();
    return state === TABLE_RETIRED ? this.#reopen() : state === TABLE_CHANGED;
  }

  leave(): void {
    this.#reader.leave();
  }

  /** Once per replacement of the rules' file. The old file stays mapped and in use while there is no new one. */
  #reopen(): boolean {
    try {
      const reader = new FlowTableReader(this.#folder, this.#name);
      reader.enter();
      this.#reader[Symbol.dispose]();
      this.#reader = reader;
      return true;
    } catch {
      return false; // Deleted and not there anew: the last rules stay in force.
    }
  }

  [Symbol.dispose](): void {
    this.#reader[Symbol.dispose]();
  }
}
