import { FlowTableReader, TABLE_CHANGED, TABLE_RETIRED } from "#tables";
import type { Decider } from "./decide.js";
import type { StreamTables } from "./stream-tables.js";

/**
 * The table images one batch of packets sees: the flow rules (none in `lb` mode) and, through them, the streams' lookup
 * tables. `enter` and `leave` bracket a batch; between them no image that was seen is overwritten.
 */
export class TableView implements Disposable {
  readonly #folder: string;
  readonly #flowsName: string | null;
  readonly #streams: StreamTables;
  readonly #tier: StreamTables | null;
  #flows: FlowTableReader | null;

  /**
   * @param flowsName region of the flow rules, or null: the streams' names are set once by the caller
   * @throws {TableError} there is no such region
   */
  constructor(folder: string, flowsName: string | null, streams: StreamTables, tier: StreamTables | null) {
    this.#folder = folder;
    this.#flowsName = flowsName;
    this.#streams = streams;
    this.#tier = tier;
    this.#flows = flowsName === null ? null : new FlowTableReader(folder, flowsName);
    if (this.#flows !== null) streams.setNames(this.#flows.streams);
  }

  /** Begins a batch: the decider sees the flow rules now in force. */
  enter(decider: Decider): void {
    const flows = this.#flows;
    if (flows === null) return;
    const state = flows.enter();
    if (state === TABLE_CHANGED) this.#streams.setNames(flows.streams);
    else if (state === TABLE_RETIRED) {
      this.#reopen(decider);
      return;
    }
    decider.program = flows.program;
  }

  /** Ends a batch: writers may reuse the images it saw. */
  leave(): void {
    this.#streams.leave();
    this.#tier?.leave();
    this.#flows?.leave();
  }

  /** Once per replacement of the rules' file. The old file stays mapped and in use while there is no new one. */
  #reopen(decider: Decider): void {
    try {
      const flows = new FlowTableReader(this.#folder, this.#flowsName!);
      flows.enter();
      this.#streams.setNames(flows.streams);
      this.#flows?.[Symbol.dispose]();
      this.#flows = flows;
    } catch {
      // Deleted and not there anew: the last rules stay in force.
    }
    decider.program = this.#flows!.program;
  }

  [Symbol.dispose](): void {
    this.#flows?.[Symbol.dispose]();
  }
}
