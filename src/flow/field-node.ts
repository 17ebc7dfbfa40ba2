import { FIELD_PROBES, FIELD_SLOTS, NODE_FIELD, reference } from "./program.js";
import type { RuleCode } from "./rule-code.js";
import type { WordWriter } from "./word-writer.js";

/** Words of a byte match in a rule's code: protocol, offset, size, mask, value, minimal header. */
const MATCH_WORDS = 6;
const VALUE = 4;
const HEADER = 5;

/** A field of the L4 header as byte matches ask for it, whatever the value. */
export type FieldTest = { readonly key: string; readonly match: readonly number[] };

/** The fields that a rule's byte matches ask for. */
export function fieldsOf({ matches }: RuleCode): readonly FieldTest[] {
  const fields: FieldTest[] = [];
  for (let i = 0; i < matches.length; i += MATCH_WORDS) {
    const match = matches.slice(i, i + MATCH_WORDS);
    fields.push({ key: match.slice(0, VALUE).join(), match });
  }
  return fields;
}

/** The field, not yet settled, that most of the rules ask for, if they are at least `least`. */
export function commonField(
  codes: readonly RuleCode[],
  settled: readonly FieldTest[],
  least: number,
): FieldTest | null {
  if (codes.length < least) return null;
  const counts = new Map<string, { readonly field: FieldTest; count: number }>();
  for (const code of codes) {
    for (const field of fieldsOf(code)) {
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
      fieldsOf(codes[rule]!)
        .filter(({ key }) => key === field.key)
        .map(({ match }) => match[VALUE]!),
    );
    const [value, ...more] = values;
    if (value === undefined) others.push(rule);
    else if (more.length === 0) byValue.set(value, [...(byValue.get(value) ?? []), rule]); // two values cannot both hold
  }
  const values = [...byValue.keys()];
  const children = values.map((value) => next([...others, ...byValue.get(value)!].sort((a, b) => a - b)));
  const ignored = next(rules);
  const failed = next(others);
  const { factor, shift, probes, slots } = hashTable(values);
  const content = new Int32Array(2 * (slots.length + probes));
  for (const [slot, index] of slots.entries()) {
    if (index >= 0) content.set([values[index]!, children[index]!], 2 * slot);
  }
  const test = [...field.match.slice(0, VALUE), field.match[HEADER]!];
  const head = [...test, ignored, failed, factor, shift, probes];
  if (head.length !== FIELD_SLOTS || head[FIELD_PROBES] !== probes) throw new RangeError("field node: layout");
  return reference(NODE_FIELD, words.append([...head, ...content]));
}

/** A multiplier under which no value lies more than a few slots behind its own; slots hold indices of values or -1. */
function hashTable(values: readonly number[]): { factor: number; shift: number; probes: number; slots: number[] } {
  let bits = Math.max(1, 33 - Math.clz32(values.length));
  for (let factor = 0x9e37_79b1; ; factor = (Math.imul(factor, 5) + 2) | 0 | 1) {
    for (const probes of [1, 2, 4]) {
      const slots = place(values, factor, bits, probes);
      if (slots !== null) return { factor, shift: 32 - bits, probes, slots };
    }
    if (bits < 24) bits++;
  }
}

function place(values: readonly number[], factor: number, bits: number, probes: number): number[] | null {
  const slots = Array.from({ length: (1 << bits) + probes }, () => -1);
  for (const [index, value] of values.entries()) {
    let slot = Math.imul(value, factor) >>> (32 - bits);
    const end = slot + probes;
    while (slot < end && slots[slot] !== -1) slot++;
    if (slot === end) return null;
    slots[slot] = index;
  }
  return slots;
}
