import { RingWriter, SELECTION, type TraceFile } from "#tables";

/** nfqlb's log levels; what is above the one in force is not printed. */
export const LOG_LEVEL = { warning: 4, notice: 5, info: 6, debug: 7 } as const;

/**
 * Log of the data plane's main thread: lines on standard error up to the level in force, which `nfqlb loglevel` changes
 * while we run, and records for those who watch.
 */
export class PlaneLog {
  readonly #file: TraceFile;
  readonly #ring: RingWriter;
  readonly #print: (line: string) => void;

  /** @param file whose last ring only this thread writes */
  constructor(file: TraceFile, print: (line: string) => void) {
    this.#file = file;
    this.#ring = new RingWriter(file.ring(file.rings - 1));
    this.#print = print;
  }

  /** A line, without line end. */
  log(level: keyof typeof LOG_LEVEL, line: string): void {
    if (this.#file.level < LOG_LEVEL[level]) return;
    this.#print(`${line}\n`);
    this.#record(SELECTION.log, LOG_LEVEL[level], line);
  }

  /** A change of the flow rules: for those who watch them, and a line at level info. */
  flowsChanged(line: string): void {
    this.log("info", line);
    this.#record(SELECTION["flow-conf"], LOG_LEVEL.info, line);
  }

  #record(selection: number, level: number, line: string): void {
    if ((this.#file.mask & selection) !== 0) this.#ring.writeMessage(selection, level, Date.now(), line);
  }
}
