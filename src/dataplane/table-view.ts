import type { Decider } from "./decide.js";
import { RuleView } from "./rule-view.js";
import type { StreamTables } from "./stream-tables.js";

/**
 * The table images one batch of packets sees: the flow rules (none in `lb` mode) and, through them, the streams' lookup
 * tables. `enter` and `leave` bracket a batch; between them no image that was seen is overwritten.
 */
export class TableView implements Disposable {
  readonly #streams: StreamTables;
  readonly #tier: StreamTables | null;
  readonly #rules: RuleView | null;

  /**
   * @param flowsName region of the flow rules, or null: the streams' names are set once by the caller
   * @throws {TableError} there is no such region
   */
  constructor(folder: string, flowsName: string | null, streams: StreamTables, tier: StreamTables | null) {
    this.#streams = streams;
    this.#tier = tier;
    this.#rules = flowsName === null ? null : new RuleView(folder, flowsName);
    if (this.#rules !== null) streams.setNames(this.#rules.streams);
  }

  /** Number of the flow rules that the batch sees; 0 without flow rules. */
  get rulesGeneration(): number {
    return this.#rules === null ? 0 : this.#rules.generation;
  }

  /** Begins a batch: the decider sees the flow rules now in force. */
  enter(decider: Decider): void {
    const rules = this.#rules;
    if (rules === null) return;
    if (rules.enter()) this.#streams.setNames(rules.streams);
    decider.program = rules.program;
  }

  /** Ends a batch: writers may reuse the images it saw. */
  leave(): void {
    this.#streams.leave();
    this.#tier?.leave();
    this.#rules?.leave();
  }

  [Symbol.dispose](): void {
    this.#rules?.[Symbol.dispose]();
  }
}
