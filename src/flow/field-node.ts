import { hashTable } from "./hash-table.js";
import { FIELD_HASH, MORE_FIELD, moreReference } from "./program.js";
import type { FieldTest, RuleCode } from "./rule-code.js";
import type { WordWriter } from "./word-writer.js";

/** Words of a byte match in a rule's code: protocol, offset, size, mask, value, minimal header. */
const VALUE = 4;
const HEADER = 5;

/** The field, not yet settled, that most of the rules ask for, if they are at least `least`. */
export function commonField(
  codes: readonly RuleCode[],
  settled: readonly FieldTest[],
  least: number,
): FieldTest | null {
  if (codes.length < least) return null;
  const counts = new Map<string, { readonly field: FieldTest; count: number }>();
  for (const code of codes) {
    for (const field of code.fields) {
      if (settled.some(({ key }) => key === field.key)) continue;
      const known = counts.get(field.key);
      if (known === undefined) counts.set(field.key, { field, count: 1 });
      else known.count++;
    }
  }
  const [most] = [...counts.values()].sort((a, b) => b.count - a.count);
  return most !== undefined && most.count >= least ? most.field : null;
}

/**
 * Writes a node that looks the value of a field up.
 * @param next node that goes on with rules that fit in the field
 */
export function buildFieldNode(
  words: WordWriter,
  field: FieldTest,
  rules: readonly number[],
  codes: readonly RuleCode[],
  next: (rules: readonly number[]) => number,
): number {
  const others: number[] = []; // rules that do not ask for the field
  const byValue = new Map<number, number[]>();
  for (const rule of rules) {
    const values = new Set(
      codes[rule]!.fields.filter(({ key }) => key === field.key).map(({ match }) => match[VALUE]!),
    );
    const [value, ...more] = values;
    if (value === undefined) others.push(rule);
    else if (more.length === 0) byValue.set(value, [...(byValue.get(value) ?? []), rule]); // two values cannot both hold
  }
  const values = [...byValue.keys()];
  const children = values.map((value) => next([...others, ...byValue.get(value)!].sort((a, b) => a - b)));
  const ignored = next(rules);
  const failed = next(others);
  const head = [...field.match.slice(0, VALUE), field.match[HEADER]!, ignored];
  if (head.length !== FIELD_HASH) throw new RangeError("field node: layout");
  const at = words.append(head);
  words.append(hashTable(values, children, failed));
  return moreReference(MORE_FIELD, at);
}
