/** Rules [from, to) below `limit` in order, each once; of few. */
export function ascending(rules: ArrayLike<number>, from: number, to: number, limit: number): number[] {
  const sorted: number[] = [];
  for (let i = from; i < to; i++) {
    const rule = rules[i]!;
    if (rule >= limit) continue;
    let place = sorted.length;
    while (place > 0 && sorted[place - 1]! > rule) place--;
    if (place > 0 && sorted[place - 1] === rule) continue;
    sorted.push(rule);
    for (let k = sorted.length - 1; k > place; k--) sorted[k] = sorted[k - 1]!;
    sorted[place] = rule;
  }
  return sorted;
}

/** Rules in order, each once; of many. */
export function distinct(rules: Int32Array): number[] {
  const sorted = rules.slice().sort();
  return Array.from(sorted.filter((rule, i) => i === 0 || rule !== sorted[i - 1]));
}

/** Union of two ascending lists, the second perhaps with repetitions. */
export function merge(a: readonly number[], b: readonly number[]): readonly number[] {
  const result: number[] = [];
  let i = 0;
  for (const next of b) {
    while (i < a.length && a[i]! < next) result.push(a[i++]!);
    if (i < a.length && a[i] === next) i++;
    if (result.length === 0 || result[result.length - 1] !== next) result.push(next);
  }
  while (i < a.length) result.push(a[i++]!);
  return result;
}

export function hashOf(rules: ArrayLike<number>): number {
  let hash = rules.length;
  for (let i = 0; i < rules.length; i++) hash = (Math.imul(hash, 0x9e37_79b1) ^ rules[i]!) | 0;
  return hash;
}

export function isEqual(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
