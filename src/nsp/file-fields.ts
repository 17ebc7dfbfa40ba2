import { parsePrefix } from "#model";
import type { Reader } from "./yaml-reader.js";

// What the objects of a configuration file have in common.

/** A name; of what is wrong with it a fault is made. */
export function nameOf(reader: Reader): string {
  const name = reader.text();
  if (reader.isPresent && !/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(name)) {
    reader.fault("a name has 1..128 letters, digits, '.', '_', '-' and begins with a letter or digit");
  }
  return name;
}

/** Reads a list of named objects; a name that stands twice is a fault. */
export function byName<T extends { name: string }>(list: Reader, read: (item: Reader) => T): Map<string, T> {
  const found = new Map<string, T>();
  for (const item of list.items()) {
    const object = read(item);
    if (found.has(object.name)) item.fault("this name is used twice", object.name);
    found.set(object.name, object);
  }
  return found;
}

/** Text that a parser accepts, else a fault with what is allowed. */
export function checked(reader: Reader, parse: (text: string) => unknown, allowed: string): string {
  const text = reader.text();
  if (!reader.isPresent) return text;
  try {
    parse(text);
  } catch {
    reader.fault(`not valid; ${allowed}`);
  }
  return text;
}

/** The object that a name refers to; a dangling reference is a fault. */
export function resolve<T>(reader: Reader, objects: ReadonlyMap<string, T>, what: string): T | null {
  const name = reader.text();
  const object = objects.get(name);
  if (object === undefined && reader.isPresent) {
    reader.fault(`there is no such ${what}; there are: ${[...objects.keys()].slice(0, 10).join(", ") || "none"}`);
  }
  return object ?? null;
}

/** The objects that a list of names refers to. */
export function resolveAll<T>(list: Reader, objects: ReadonlyMap<string, T>, what: string): T[] {
  return list.items().flatMap((item) => resolve(item, objects, what) ?? []);
}

export const prefix = (reader: Reader) =>
  checked(reader, parsePrefix, "address/length, for example 10.0.0.1/32 or 2001:db8::1/128");
