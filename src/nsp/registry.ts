import { clone, toBinary } from "@bufbuild/protobuf";
import { matchesTargetGroup } from "./filter.js";
import { type Target, Target_Status, Target_Type, TargetSchema } from "./gen/nsp/v1/model_pb.js";

/** A registered target, never changed but replaced. `bytes` are the message, as it is sent and stored. */
export type Entry = { readonly target: Target; readonly bytes: Uint8Array };

/** Targets of one stream and type. */
type Group = { readonly sample: Target; readonly entries: Map<string, Entry> };

/** Targets by key, grouped so that a filter doesn't have to look at every one. */
export class TargetGroups {
  readonly #groups = new Map<string, Group>();
  readonly #byKey = new Map<string, Group>();

  get size(): number {
    return this.#byKey.size;
  }

  has(key: string): boolean {
    return this.#byKey.has(key);
  }

  get(key: string): Entry | undefined {
    return this.#byKey.get(key)?.entries.get(key);
  }

  set(key: string, entry: Entry): void {
    const name = groupOf(entry.target);
    const group = this.#groups.get(name) ?? { sample: entry.target, entries: new Map<string, Entry>() };
    this.#groups.set(name, group);
    this.#byKey.set(key, group);
    group.entries.set(key, entry);
  }

  delete(key: string): boolean {
    const group = this.#byKey.get(key);
    if (group === undefined) return false;
    this.#byKey.delete(key);
    group.entries.delete(key);
    if (group.entries.size === 0) this.#groups.delete(groupOf(group.sample));
    return true;
  }

  clear(): void {
    this.#groups.clear();
    this.#byKey.clear();
  }

  /** All that a watch's filter lets pass, with their keys. */
  *matching(filter: Target): Generator<readonly [key: string, entry: Entry]> {
    for (const { sample, entries } of this.#groups.values()) {
      if (!matchesTargetGroup(filter, sample)) continue;
      for (const pair of entries) {
        const isWanted = filter.status === Target_Status.ANY || filter.status === pair[1].target.status;
        if (isWanted) yield pair;
      }
    }
  }

  *[Symbol.iterator](): Generator<readonly [key: string, entry: Entry]> {
    for (const { entries } of this.#groups.values()) yield* entries;
  }
}

export function toEntry(target: Target): Entry {
  return { target, bytes: toBinary(TargetSchema, target) };
}

/** A copy with another status. */
export function withStatus(target: Target, status: Target_Status): Target {
  const copy = clone(TargetSchema, target);
  copy.status = status;
  return copy;
}

/** Identity of a target as in the reference: addresses, type and stream. */
export function keyOf({ ips, type, stream }: Target): string {
  const conduit = stream?.conduit;
  return `${ips.join(";")}-${type}-${stream?.name ?? ""}.${conduit?.name ?? ""}.${conduit?.trench?.name ?? ""}`;
}

/** Stream and identifier of a target, which only one can have at a time; null for one without. */
export function placeOf(target: Target): string | null {
  const identifier = Number.parseInt(target.context["identifier"] ?? "", 10);
  return target.type === Target_Type.FRONTEND || Number.isNaN(identifier) ? null : `${identifier} ${groupOf(target)}`;
}

function groupOf({ type, stream }: Target): string {
  return JSON.stringify([type, stream?.name, stream?.conduit?.name, stream?.conduit?.trench?.name]);
}
