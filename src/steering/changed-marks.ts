/** Objects each of which belongs to one mark. One that is the same object says the same. */
export type MarkedList<T> = { readonly items: readonly T[]; readonly markOf: (item: T) => number };

/**
 * For which marks something has to be worked out that follows, mark by mark, from two lists of objects: those of which an
 * object came or went since the last time, and those for which something was to be done then. The others are as they
 * were, and were as they shall be.
 */
export class ChangedMarks {
  /** Of the last work that was done, and of the one that is looked at. */
  #last: Lists | null = null;
  #now: Lists | null = null;
  #open: ReadonlySet<number> = new Set();

  /**
   * @param frame what the work depends on besides; by another text all marks are changed
   * @returns null: all
   */
  look<A, B>(a: MarkedList<A>, b: MarkedList<B>, frame = ""): ReadonlySet<number> | null {
    const last = this.#last;
    this.#now = { a: a.items, b: b.items, frame };
    if (last === null || last.frame !== frame) return null;
    const marks = new Set(this.#open);
    addChanged(last.a as readonly A[], a, marks);
    addChanged(last.b as readonly B[], b, marks);
    return marks;
  }

  /** The work is done; work that was broken off is not. @param open for these marks something is to be done */
  done(open: Iterable<number>): void {
    this.#last = this.#now;
    this.#open = new Set(open);
  }
}

type Lists = { readonly a: readonly unknown[]; readonly b: readonly unknown[]; readonly frame: string };

/** Adds the marks of objects that are in only one of two lists. Costs little where what differs stands close together. */
function addChanged<T>(before: readonly T[], { items, markOf }: MarkedList<T>, marks: Set<number>): void {
  if (before === items) return;
  const shorter = Math.min(before.length, items.length);
  let start = 0;
  while (start < shorter && before[start] === items[start]) start++;
  let end = 0; // from the back
  while (end < shorter - start && before[before.length - 1 - end] === items[items.length - 1 - end]) end++;
  const gone = new Set(before.slice(start, before.length - end));
  for (let i = start; i < items.length - end; i++) if (!gone.delete(items[i]!)) marks.add(markOf(items[i]!));
  for (const item of gone) marks.add(markOf(item));
}
