import { flowsGeneration, readFlows } from "#tables";

/** Sets of rules that are remembered, for records older than the rules in force. */
const REMEMBERED = 16;

/** A rule as a trace shows it. */
export type RuleName = { readonly name: string; readonly target: string };

/** Names of a region's rules by the generation they belong to: a record holds a rule's index in the rules it was decided by. */
export class RuleNames {
  readonly #folder: string;
  readonly #name: string | null;
  readonly #known = new Map<number, readonly RuleName[]>();

  /** @param name the region; null: there are no rules */
  constructor(folder: string, name: string | null) {
    this.#folder = folder;
    this.#name = name;
    this.refresh();
  }

  /** Looks whether there are new rules; cheap when there are none. To be called more often than rules change. */
  refresh(): void {
    if (this.#name === null) return;
    try {
      if (this.#known.has(flowsGeneration(this.#folder, this.#name))) return;
      const { generation, rules } = readFlows(this.#folder, this.#name);
      this.#known.set(
        generation,
        rules.map(({ rule: { name, target } }) => ({ name, target })),
      );
    } catch (error) {
      if ((error as { code?: string }).code !== "ENOENT") throw error; // deleted: what is known stays known
    }
    for (const generation of this.#known.keys()) {
      if (this.#known.size <= REMEMBERED) break;
      this.#known.delete(generation);
    }
  }

  /** The rule, or null: no rule, or rules that came and went between two looks. */
  find(generation: number, rule: number): RuleName | null {
    return this.#known.get(generation)?.[rule] ?? null;
  }
}
