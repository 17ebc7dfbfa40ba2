/**
 * The parts of a packet that were seen, as a list of spans [from, to) in units of 8 bytes, sorted, apart from each other
 * (those that touch or overlap are one). It lies in `words` at `at`: total length or 0 while unknown, number of spans or
 * {@link LOST}, then the spans as from << 16 | to. What RFC 815 calls holes are the gaps between them.
 */
const TOTAL = 0;
const COUNT = 1;
const SPANS = 2;

/** The list cannot tell any more: too many gaps, or fragments that contradict each other. */
const LOST = -1;

/** Words of a list for `spans` spans. */
export const spanWords = (spans: number) => SPANS + spans;

/** Makes the list empty. */
export function clearSpans(words: Int32Array, at: number): void {
  words[at + TOTAL] = 0;
  words[at + COUNT] = 0;
}

/**
 * Notes that [from, to) was seen; `isLast`: the packet ends at `to`. Duplicates and overlaps are welcome. A fragment
 * behind the packet's end, two different ends, or more than `capacity` spans make the list useless for good.
 * @returns true when everything from 0 to the packet's end was seen
 */
export function addSpan(
  words: Int32Array,
  at: number,
  capacity: number,
  from: number,
  to: number,
  isLast: boolean,
): boolean {
  if (words[at + COUNT] === LOST) return false;
  const total = words[at + TOTAL]!;
  if (total !== 0 && (isLast ? to !== total : to > total)) return lose(words, at);
  if (from < to && !merge(words, at, capacity, from, to)) return lose(words, at);
  const count = words[at + COUNT]!;
  if (isLast) {
    words[at + TOTAL] = to;
    if (count > 0 && (words[at + SPANS + count - 1]! & 0xffff) > to) return lose(words, at);
  }
  return count === 1 && words[at + TOTAL] !== 0 && words[at + SPANS] === words[at + TOTAL];
}

function lose(words: Int32Array, at: number): boolean {
  words[at + COUNT] = LOST;
  return false;
}

/** Puts a span in its place and joins it with those that it touches. @returns false when there is no room */
function merge(words: Int32Array, at: number, capacity: number, from: number, to: number): boolean {
  const spans = at + SPANS;
  const count = words[at + COUNT]!;
  let first = 0;
  while (first < count && (words[spans + first]! & 0xffff) < from) first++;
  let behind = first;
  let joinedFrom = from;
  let joinedTo = to;
  while (behind < count && words[spans + behind]! >> 16 <= to) {
    joinedFrom = Math.min(joinedFrom, words[spans + behind]! >> 16);
    joinedTo = Math.max(joinedTo, words[spans + behind]! & 0xffff);
    behind++;
  }
  const newCount = count + 1 - (behind - first);
  if (newCount > capacity) return false;
  words.copyWithin(spans + first + 1, spans + behind, spans + count);
  words[spans + first] = (joinedFrom << 16) | joinedTo;
  words[at + COUNT] = newCount;
  return true;
}
