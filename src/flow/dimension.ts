import { gatherPorts, weighPorts } from "./port-tree.js";
import { DESTINATION, DPORT, hullOf, portsIn, portsOf, type RuleCode, SOURCE, SPORT } from "./rule-code.js";

/**
 * The dimensions that are asked, the one that divides the rules best first: a packet is left with few of them there, and few
 * are in several places. For addresses that is a guess from how many different ones there are.
 * @param asked bit set of dimensions; @param rules indices into `codes`
 */
export function inOrder(codes: readonly RuleCode[], rules: readonly number[], asked: number): readonly number[] {
  const dimensions = [DESTINATION, SOURCE, DPORT, SPORT].filter((dimension) => (asked >> dimension) & 1);
  if (dimensions.length < 2) return dimensions;
  const costs = new Map<number, number>();
  for (const dimension of dimensions) {
    const cost = costOf(codes, rules, dimension);
    if (cost <= rules.length) return [dimension, ...dimensions.filter((other) => other !== dimension)]; // a rule each
    costs.set(dimension, cost);
  }
  return dimensions.sort((a, b) => costs.get(a)! - costs.get(b)!);
}

/** Rules in all regions of the dimension, taken together, times those in one of them on average. */
function costOf(codes: readonly RuleCode[], rules: readonly number[], dimension: number): number {
  if (dimension === DPORT || dimension === SPORT) {
    const { items, others } = gatherPorts(rules, (rule) => portsOf(codes[rule]!, dimension));
    const { sum, regions } = weighPorts(items, others.length);
    return (sum * sum) / regions;
  }
  const values = new Set<string>();
  let any = 0;
  for (const rule of rules) {
    const { asks, texts } = codes[rule]!;
    if (((asks >> dimension) & 1) === 0) any++;
    else values.add(texts[dimension]!);
  }
  const own = rules.length - any;
  return (own + any * values.size) * (any + own / values.size);
}

/** Few ports are so many. */
const FEW_PORTS = 8_192;

/** Whether the rules take few destination ports each, on average. */
export function hasFewPorts(codes: readonly RuleCode[], rules: readonly number[]): boolean {
  let ports = 0;
  for (const rule of rules) ports += portsIn(hullOf(codes[rule]!.dports));
  return ports <= FEW_PORTS * rules.length;
}
