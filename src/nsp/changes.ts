import type { Configuration, Flow, Stream, Target, Vip } from "#model";
import { compareText } from "./list-reader.js";

/** What differs between two lists; `changed` has the new values of objects with the same name or identifier. */
export type ListChanges<T> = {
  readonly added: readonly T[];
  readonly changed: readonly T[];
  readonly removed: readonly T[];
};

/** What differs between two configurations. */
export type Changes = {
  readonly isConduitChanged: boolean;
  readonly vips: ListChanges<Vip>;
  readonly streams: ListChanges<Stream>;
  readonly flows: ListChanges<Flow>;
  readonly targets: ListChanges<Target>;
  /** Whether nothing differs. */
  readonly isEmpty: boolean;
};

const NONE = { added: [], changed: [], removed: [] };

export const byName = (a: { readonly name: string }, b: { readonly name: string }) => compareText(a.name, b.name);
export const byIdentifier = (a: Target, b: Target) => a.identifier - b.identifier;
const inStream =
  <T extends { readonly stream: string }>(compare: (a: T, b: T) => number) =>
  (a: T, b: T) =>
    compareText(a.stream, b.stream) || compare(a, b);

/** Compares by identity: the reader keeps an object as long as it says the same. `last` null is an empty configuration. */
export function changesBetween(last: Configuration | null, next: Configuration): Changes {
  const changes = {
    isConduitChanged: last?.conduit !== next.conduit,
    vips: between(last?.vips, next.vips, byName),
    streams: between(last?.streams, next.streams, byName),
    flows: between(last?.flows, next.flows, inStream<Flow>(byName)),
    targets: between(last?.targets, next.targets, inStream(byIdentifier)),
  };
  const lists = [changes.vips, changes.streams, changes.flows, changes.targets];
  const isEmpty = (list: ListChanges<unknown>) =>
    list.added.length === 0 && list.changed.length === 0 && list.removed.length === 0;
  return { ...changes, isEmpty: !changes.isConduitChanged && lists.every(isEmpty) };
}

/** Both lists are in the order of `compare`. */
function between<T>(last: readonly T[] = [], next: readonly T[], compare: (a: T, b: T) => number): ListChanges<T> {
  if (last === next) return NONE;
  const added: T[] = [];
  const changed: T[] = [];
  const removed: T[] = [];
  let i = 0;
  let j = 0;
  while (i < last.length || j < next.length) {
    const order = i === last.length ? 1 : j === next.length ? -1 : compare(last[i]!, next[j]!);
    if (order < 0) removed.push(last[i++]!);
    else if (order > 0) added.push(next[j++]!);
    else if (last[i++] !== next[j++]) changed.push(next[j - 1]!);
  }
  return { added, changed, removed };
}
