import { isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from "yaml";

/** Aliases that a file may expand to; more is an attack or an accident. */
const MAX_ALIASES = 100;
export const MAX_FILE_BYTES = 16 << 20;

/** One fault of a file; line 0 is the file as a whole. */
export type Fault = { readonly line: number; readonly key: string; readonly value: string; readonly reason: string };

/** A YAML node with its place, and the list where faults are gathered. */
export class Reader {
  readonly faults: Fault[];
  readonly path: string;
  readonly #node: Node | null;
  readonly #lines: LineCounter;
  readonly #parentLine: number;

  private constructor(node: Node | null, path: string, lines: LineCounter, faults: Fault[], parentLine: number) {
    this.#node = node;
    this.path = path;
    this.#lines = lines;
    this.faults = faults;
    this.#parentLine = parentLine;
  }

  /** Parses a file's text; what is wrong with it as YAML becomes faults. */
  static parse(text: string): Reader {
    const lines = new LineCounter();
    const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, version: "1.2", schema: "core" });
    const faults = document.errors.map(({ code, message, pos }): Fault => {
      const isSecond = code === "MULTIPLE_DOCS"; // the library advises to call another function of it
      const reason = isSecond
        ? "a second document begins here; a file holds one"
        : message.split("\n")[0]!.replace(/ at line .*$/, "");
      return { line: lines.linePos(pos[0]).line, key: "", value: "", reason };
    });
    try {
      document.toJS({ maxAliasCount: MAX_ALIASES });
    } catch (error) {
      if (faults.length === 0) faults.push({ line: 1, key: "", value: "", reason: (error as Error).message });
    }
    return new Reader(faults.length === 0 ? document.contents : null, "", lines, faults, 1);
  }

  get line(): number {
    const range = this.#node?.range;
    return range ? this.#lines.linePos(range[0]).line : this.#parentLine;
  }

  get isPresent(): boolean {
    return this.#node !== null && !(isScalar(this.#node) && this.#node.value === null);
  }

  /** Notes a fault of this node. */
  fault(reason: string, value: string = this.#shown()): void {
    this.faults.push({ line: this.line, key: this.path, value, reason });
  }

  /** The entries of a mapping, by key; unknown keys, and anything that is no mapping, are faults. */
  fields<K extends string>(known: readonly K[]): Record<K, Reader> {
    const found = new Map<string, Reader>();
    if (this.isPresent && !isMap(this.#node)) this.fault("a mapping is needed here");
    for (const { key, value } of isMap(this.#node) ? this.#node.items : []) {
      const name = String(isScalar(key) ? key.value : key);
      const keyLine = isScalar(key) && key.range ? this.#lines.linePos(key.range[0]).line : this.line;
      const child = this.#child(value as Node | null, name, keyLine);
      if (known.some((one) => one === name)) found.set(name, child);
      else
        this.faults.push({
          line: keyLine,
          key: child.path,
          value: "",
          reason: `unknown key; allowed: ${known.join(", ")}`,
        });
    }
    const fields = known.map((name) => [name, found.get(name) ?? this.#child(null, name, this.line)] as const);
    return Object.fromEntries(fields) as Record<K, Reader>;
  }

  /** The items of a sequence; nothing is an empty one. */
  items(): readonly Reader[] {
    if (!this.isPresent) return [];
    if (!isSeq(this.#node)) {
      this.fault("a list is needed here");
      return [];
    }
    return this.#node.items.map(
      (item, i) => new Reader(item as Node | null, `${this.path}[${i}]`, this.#lines, this.faults, this.line),
    );
  }

  /** Text; numbers are taken as they are written. A missing one is a fault unless there is a fallback. */
  text(fallback?: string): string {
    if (!this.isPresent) {
      if (fallback === undefined) this.fault("is missing", "");
      return fallback ?? "";
    }
    if (isScalar(this.#node) && (typeof this.#node.value === "string" || typeof this.#node.value === "number")) {
      return this.#node.source ?? String(this.#node.value);
    }
    this.fault("a text is needed here");
    return "";
  }

  /** A whole number in `min`…`max`. */
  number(min: number, max: number, fallback?: number): number {
    if (!this.isPresent && fallback !== undefined) return fallback;
    const text = this.text();
    if (!this.isPresent) return min;
    const value = /^-?[0-9]{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    this.fault(`a whole number ${min}..${max} is needed`);
    return fallback ?? min;
  }

  /** `true` or `false`. */
  flag(fallback: boolean): boolean {
    if (!this.isPresent) return fallback;
    if (isScalar(this.#node) && typeof this.#node.value === "boolean") return this.#node.value;
    this.fault("true or false is needed");
    return fallback;
  }

  #child(node: Node | null, name: string, parentLine: number): Reader {
    return new Reader(node, this.path === "" ? name : `${this.path}.${name}`, this.#lines, this.faults, parentLine);
  }

  #shown(): string {
    if (isScalar(this.#node)) return String(this.#node.source ?? this.#node.value).slice(0, 80);
    return this.#node === null ? "" : this.#node.toString().split("\n")[0]!.slice(0, 80);
  }
}
