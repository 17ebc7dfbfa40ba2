import type { ReadStream, WriteStream } from "node:tty";

const ESCAPE = "\u001b[";
const ENTER = `${ESCAPE}?1049h${ESCAPE}?25l`; // alternate screen, no cursor
const LEAVE = `${ESCAPE}?25h${ESCAPE}?1049l`;
const HOME = `${ESCAPE}H`;
const ERASE_LINE = `${ESCAPE}K`;
const ERASE_BELOW = `${ESCAPE}J`;
const INVERSE = `${ESCAPE}7m`;
const NORMAL = `${ESCAPE}0m`;

/** A whole-screen view on a terminal; what was there before comes back with `[Symbol.dispose]`. */
export class Terminal implements Disposable {
  readonly #output: WriteStream;
  readonly #input: ReadStream | null;
  readonly #onData = (chunk: Buffer): void => {
    for (const key of chunk.toString("latin1")) this.#onKey(key);
  };
  readonly #onResize: () => void;
  readonly #onKey: (key: string) => void;

  /**
   * @param input keys are read from here if it is a terminal
   * @param on.key called for each key, Ctrl-C among them as U+0003
   * @param on.resize the size has changed
   */
  constructor(
    output: WriteStream,
    input: ReadStream,
    on: { readonly key: (key: string) => void; readonly resize: () => void },
  ) {
    this.#output = output;
    this.#input = input.isTTY ? input : null;
    this.#onKey = on.key;
    this.#onResize = on.resize;
    output.write(ENTER);
    output.on("resize", this.#onResize);
    this.#input?.setRawMode(true).on("data", this.#onData).resume();
  }

  get columns(): number {
    return this.#output.columns;
  }

  get rows(): number {
    return this.#output.rows;
  }

  /** Shows these lines in place of what is there, in one write and without erasing first: nothing flickers. */
  draw(lines: readonly { readonly text: string; readonly isHeading: boolean }[]): void {
    const { columns } = this;
    const text = lines.map((line) =>
      line.isHeading ? `${INVERSE}${line.text.padEnd(columns)}${NORMAL}` : `${line.text}${ERASE_LINE}`,
    );
    this.#output.write(`${HOME}${text.join("\r\n")}${ERASE_BELOW}`);
  }

  [Symbol.dispose](): void {
    this.#output.off("resize", this.#onResize);
    this.#input?.off("data", this.#onData).setRawMode(false).pause();
    this.#output.write(LEAVE);
  }
}
