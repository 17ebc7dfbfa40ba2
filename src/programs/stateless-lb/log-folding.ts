/** How long lines of one kind are counted together. */
const WINDOW_MS = 10_000;
/** Different lines of one kind that a window lets through; a thousand targets that fail at once are not a thousand lines. */
const MOST_DISTINCT = 20;

export type Severity = "debug" | "info" | "warning" | "error" | "critical";

/** A line as the log's callers know it. */
export type LogLine = {
  readonly severity: Severity;
  readonly message: string;
  readonly data: Readonly<Record<string, unknown>>;
};

type Window = {
  readonly seen: Set<string>;
  folded: number;
  last: LogLine | null;
  readonly timer: NodeJS.Timeout;
  readonly startMs: number;
};

/**
 * Folds lines that repeat. Lines are of one kind when severity, message and the `class` and `subsystem` of their data are
 * equal. In ten seconds from the first of a kind the same line passes once, and at most twenty different ones; what does
 * not pass is counted, and told at the end of the window in one line: the last of them, with `repeated`.
 */
export class LogFolding {
  readonly #write: (line: LogLine) => void;
  readonly #windows = new Map<string, Window>();

  constructor(write: (line: LogLine) => void) {
    this.#write = write;
  }

  add(line: LogLine): void {
    const kind = JSON.stringify([line.severity, line.message, line.data["class"], line.data["subsystem"]]);
    const text = JSON.stringify(line.data, (_key, value: unknown) =>
      typeof value === "bigint" ? String(value) : value,
    );
    const window = this.#windows.get(kind);
    if (window === undefined) {
      const timer = setTimeout(() => this.#close(kind), WINDOW_MS).unref();
      this.#windows.set(kind, { seen: new Set([text]), folded: 0, last: null, timer, startMs: performance.now() });
    } else if (window.seen.has(text) || window.seen.size >= MOST_DISTINCT) {
      window.folded++;
      window.last = line;
      return;
    } else window.seen.add(text);
    this.#write(line);
  }

  /** Tells what is still counted; for the end of the program, and before the level changes. */
  flush(): void {
    for (const kind of this.#windows.keys()) this.#close(kind);
  }

  #close(kind: string): void {
    const window = this.#windows.get(kind)!;
    clearTimeout(window.timer);
    this.#windows.delete(kind);
    const { last, folded, startMs } = window;
    if (last === null) return;
    this.#write({
      ...last,
      data: { ...last.data, repeated: folded, seconds: Math.round((performance.now() - startMs) / 1_000) },
    });
  }
}
