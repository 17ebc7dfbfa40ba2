import type { Configuration, Flow, Stream, Target, Vip } from "#model";
import { ConfigError } from "#model";
import { byIdentifier, byName } from "./changes.js";
import { readFlow, readFrontend, readStream, readTarget, readVip } from "./convert.js";
import { type ReadConduit, readConduit } from "./convert-conduit.js";
import { DistinctRules } from "./distinct-rules.js";
import { compareText, ListReader } from "./list-reader.js";
import { type Refusal, toRefusal } from "./refusal.js";
import { equalBytes, splitList } from "./wire.js";

/** What is known of one stream besides itself. */
export type StreamParts = { readonly flows: ListReader<Flow>; readonly targets: ListReader<Target> };

/** What all answers together say. Every part is the same object as before when it says the same. */
export type Whole = {
  readonly configuration: Configuration;
  readonly frontends: readonly string[];
  readonly refusals: readonly Refusal[];
};

/**
 * What an NSP has told of one conduit. Every list has a key, by which its answers are taken and saved: `conduit`,
 * `vips`, `streams`, `frontends`, and `flows/STREAM` and `targets/STREAM` for every stream.
 */
export class Knowledge {
  readonly #isVipNeeded: boolean;
  #conduit: ReadConduit | null = null;
  #conduitBytes: Uint8Array | null = null;
  readonly #vips = new ListReader<Vip>({ decode: readVip, compare: byName, toDuplicate: (vip) => twice("VIP", vip) });
  readonly #streams: ListReader<Stream>;
  readonly #frontends = new ListReader<string>({
    decode: readFrontend,
    compare: compareText,
    toDuplicate: () => null,
  });
  readonly #parts = new Map<string, StreamParts>();
  readonly #maxTargets = new Map<string, number>();
  #isWhole = false;
  #last: Whole | null = null;
  readonly #distinctRules = new DistinctRules();
  readonly #flat = { flows: new Flat<Flow>(), targets: new Flat<Target>(), refusals: new Flat<Refusal>() };

  constructor(conduitName: string, isVipNeeded: boolean) {
    this.#isVipNeeded = isVipNeeded;
    this.#streams = new ListReader<Stream>({
      decode: (bytes) => readStream(bytes, conduitName),
      compare: byName,
      toDuplicate: (stream) => twice("stream", stream),
    });
  }

  get streams(): readonly Stream[] {
    return this.#streams.list.values;
  }

  /**
   * Puts an answer in force.
   * @returns whether it says anything new; an answer for a stream that is gone does not
   * @throws {MalformedAnswer} nothing was changed
   */
  take(key: string, answer: Uint8Array): boolean {
    if (key === "conduit") return this.#takeConduit(answer);
    const reader = this.#reader(key);
    if (reader === undefined) return false;
    const wasKnown = reader.isKnown;
    const last = reader.list;
    const isNew = reader.read(answer) !== last || !wasKnown;
    if (isNew && key === "streams") this.#fitParts();
    return isNew;
  }

  /** Whether an answer for a list was read. */
  isHeard(key: string): boolean {
    return this.#reader(key)?.isKnown === true;
  }

  /** Whether a list is empty, or was never heard. */
  isEmpty(key: string): boolean {
    const reader = this.#reader(key);
    return reader === undefined || reader.bytes === null || splitList(reader.bytes).length === 0;
  }

  /** The answers in force. */
  answers(): ReadonlyMap<string, Uint8Array> {
    const keys = ["vips", "streams", "frontends", ...[...this.#parts.keys()].flatMap(keysOf)];
    const answers = new Map(this.#conduitBytes === null ? [] : [["conduit", this.#conduitBytes]]);
    for (const key of keys) {
      const bytes = this.#reader(key)?.bytes;
      if (bytes) answers.set(key, bytes);
    }
    return answers;
  }

  /** Keys of the lists that `whole` waits for. */
  missing(): readonly string[] {
    const keys = ["vips", "streams", "frontends", ...this.streams.flatMap(({ name }) => keysOf(name))];
    const unknown = keys.filter((key) => !this.isHeard(key));
    return this.#conduit === null ? ["conduit", ...unknown] : unknown;
  }

  /**
   * Everything as one value. null until every list has been heard once, so that a start never acts on half a
   * configuration; from then on a new stream is left out until its own lists have been heard.
   */
  whole(): Whole | null {
    const conduit = this.#conduit;
    if (conduit === null || !this.#vips.isKnown || !this.#streams.isKnown || !this.#frontends.isKnown) return null;
    const heard = this.streams.filter(({ name }) => isHeard(this.#parts.get(name)));
    if (!this.#isWhole && heard.length < this.streams.length) return null;
    this.#isWhole = true;
    const parts = heard.map(({ name }) => this.#parts.get(name)!);
    const distinct = this.#distinctRules.of(this.#flat.flows.of(parts.map(({ flows }) => flows.list.values)));
    const configuration: Configuration = {
      conduit: conduit.conduit,
      vips: this.#vips.list.values,
      streams: heard.length === this.streams.length ? this.streams : heard,
      flows: distinct.flows,
      targets: this.#flat.targets.of(parts.map(({ targets }) => targets.list.values)),
    };
    const lists = [
      this.#vips,
      this.#streams,
      this.#frontends,
      ...parts.flatMap(({ flows, targets }) => [flows, targets]),
    ];
    const listed = lists.map(({ list }) => list.refusals);
    const refusals = this.#flat.refusals.of([conduit.refusals, ...listed, distinct.refusals]);
    const last = this.#last;
    const isSame =
      last !== null &&
      Object.entries(configuration).every(([k, v]) => last.configuration[k as keyof Configuration] === v);
    const whole = {
      configuration: isSame ? last.configuration : configuration,
      frontends: this.#frontends.list.values,
      refusals,
    };
    this.#last = whole;
    return whole;
  }

  /** Any other number of conduits than one changes nothing, as in the reference. */
  #takeConduit(answer: Uint8Array): boolean {
    const [bytes, more] = splitList(answer);
    if (bytes === undefined || more !== undefined) return false;
    if (this.#conduitBytes !== null && equalBytes(this.#conduitBytes, answer)) return false;
    const conduit = readConduit(bytes);
    this.#conduitBytes = answer;
    if (JSON.stringify(conduit) === JSON.stringify(this.#conduit)) return false;
    this.#conduit = conduit;
    return true;
  }

  #reader(
    key: string,
  ): ListReader<Vip> | ListReader<Stream> | ListReader<string> | StreamParts[keyof StreamParts] | undefined {
    if (key === "vips") return this.#vips;
    if (key === "streams") return this.#streams;
    if (key === "frontends") return this.#frontends;
    const slash = key.indexOf("/");
    const parts = this.#parts.get(key.slice(slash + 1));
    return key.startsWith("flows/") ? parts?.flows : parts?.targets;
  }

  #fitParts(): void {
    const names = new Set(this.streams.map(({ name }) => name));
    for (const name of this.#parts.keys()) if (!names.has(name)) this.#parts.delete(name);
    this.#maxTargets.clear();
    for (const { name, maxTargets } of this.streams) {
      this.#maxTargets.set(name, maxTargets);
      const parts = this.#parts.get(name);
      if (parts === undefined) this.#parts.set(name, this.#createParts(name));
      else parts.targets.settle(); // its maxTargets may have changed
    }
  }

  #createParts(stream: string): StreamParts {
    return {
      flows: new ListReader<Flow>({
        decode: (bytes) => readFlow(bytes, stream, this.#isVipNeeded),
        compare: byName,
        toDuplicate: (flow) => twice("flow", flow, stream),
      }),
      targets: new ListReader<Target>({
        decode: (bytes) => readTarget(bytes, stream),
        compare: byIdentifier,
        check: (target) => this.#checkIdentifier(target),
        toDuplicate: ({ identifier, addresses }) => {
          const error = new ConfigError("identifier", String(identifier), "used twice");
          return toRefusal("target", addresses.join(","), stream, error);
        },
      }),
    };
  }

  #checkIdentifier({ identifier, addresses, stream }: Target): Refusal | null {
    const maxTargets = this.#maxTargets.get(stream) ?? 0;
    if (identifier >= 1 && identifier <= maxTargets) return null;
    const error = new ConfigError("identifier", String(identifier), `a whole number 1..${maxTargets} is allowed`);
    return toRefusal("target", addresses.join(","), stream, error);
  }
}

/** The keys of a stream's lists. */
export const keysOf = (stream: string): readonly [flows: string, targets: string] => [
  `flows/${stream}`,
  `targets/${stream}`,
];

function isHeard(parts: StreamParts | undefined): boolean {
  return parts?.flows.isKnown === true && parts.targets.isKnown;
}

function twice(kind: Refusal["kind"], { name }: { readonly name: string }, stream = ""): Refusal {
  return toRefusal(kind, name, stream, new ConfigError("name", name, "used twice"));
}

/** Lists one after the other; the same array as long as the lists are. */
class Flat<T> {
  #lists: readonly (readonly T[])[] = [];
  #all: readonly T[] = [];

  of(lists: readonly (readonly T[])[]): readonly T[] {
    if (lists.length === this.#lists.length && lists.every((list, i) => list === this.#lists[i])) return this.#all;
    this.#lists = lists;
    this.#all = lists.flat();
    return this.#all;
  }
}
