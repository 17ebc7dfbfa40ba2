import { ConfigError, type Flow, ruleName } from "#model";
import { type Refusal, toRefusal } from "./refusal.js";

/** What a flow's rule is named after. */
type Named = Pick<Flow, "stream" | "name">;

/** Flows whose rules have names of their own, and what is said of the others. */
type Distinct = { readonly flows: readonly Flow[]; readonly refusals: readonly Refusal[] };

const NONE: readonly Refusal[] = [];

/** The names of rules that flows have taken. A flow that comes twice has its rule. */
export class RuleNames {
  readonly #owners = new Map<string, Named>();

  /** @returns why the flow cannot have its rule, or null: it has it now */
  take(flow: Named): string | null {
    const name = ruleName(flow);
    const owner = this.#owners.get(name);
    if (owner === undefined) this.#owners.set(name, flow);
    if (owner === undefined || owner.stream === flow.stream) return null;
    return `its rule would be called ${name} as that of flow ${owner.name} of stream ${owner.stream}; rename one`;
  }
}

/**
 * Refuses flows whose rule would have the name of another's: one of them would silently not be in force. The first in the
 * order of streams and flows has it, so instances that learned of them in different order choose alike.
 */
export class DistinctRules {
  #given: readonly Flow[] = [];
  #distinct: Distinct = { flows: [], refusals: [] };

  /** The same result as long as `flows` is the same array, and `flows` itself where nothing is refused. */
  of(flows: readonly Flow[]): Distinct {
    if (flows === this.#given) return this.#distinct;
    const names = new RuleNames();
    const refusals: Refusal[] = [];
    const distinct = flows.filter((flow) => {
      const { name, stream } = flow;
      const rule = names.take(flow);
      if (rule !== null) refusals.push(toRefusal("flow", name, stream, new ConfigError("name", name, rule)));
      return rule === null;
    });
    this.#given = flows;
    this.#distinct = refusals.length === 0 ? { flows, refusals: NONE } : { flows: distinct, refusals };
    return this.#distinct;
  }
}
