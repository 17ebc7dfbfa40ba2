import { closeSync, openSync, readdirSync, readFileSync, readSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

const PAGE_BYTES = 4_096;
const KIB = 1_024;

/** Resident memory of one process in bytes, as `smaps_rollup` has it (proc_pid_smaps(5)). */
export type Resident = {
  readonly rss: number;
  /** As rss, but a page that n processes of the machine have mapped counts as 1/n of one. */
  readonly pss: number;
  /** Memory of its own: heaps, stacks, pages of files that it wrote to privately. */
  readonly anonymous: number;
  /** Pages of files, shared memory among them; whoever has the same file mapped has the same pages. */
  readonly file: number;
};

/** @throws ENOENT, ESRCH the process is gone */
export function readResident(pid: number): Resident {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const bytes = (name: string) => Number(new RegExp(`^${name}: +(\\d+) kB`, "m").exec(text)?.[1]) * KIB;
  const rss = bytes("Rss");
  const anonymous = bytes("Anonymous");
  return { rss, pss: bytes("Pss"), anonymous, file: rss - anonymous };
}

/**
 * Memory that processes have resident together, in bytes, each page counted once: everybody's anonymous memory, and the
 * union of the pages of files that any of them has in its page table. So it holds whoever else on the machine has the
 * same files mapped. `images` are what of it lies in shared memory (tmpfs), the rest of the files are programs and
 * libraries.
 */
export function residentTogether(pids: readonly number[]): {
  readonly bytes: number;
  readonly images: number;
  readonly programs: number;
} {
  const programs = new Set<string>();
  const images = new Set<string>();
  for (const pid of pids) {
    for (const page of filePages(pid)) (page.isImage ? images : programs).add(page.key);
  }
  const anonymous = pids.reduce((sum, pid) => sum + readResident(pid).anonymous, 0);
  const [imageBytes, programBytes] = [images.size * PAGE_BYTES, programs.size * PAGE_BYTES];
  return { bytes: anonymous + imageBytes + programBytes, images: imageBytes, programs: programBytes };
}

/** Pages of files in a process's page table: `present` and `file-page or shared-anon` of /proc/PID/pagemap. */
function* filePages(pid: number): Generator<{ readonly key: string; readonly isImage: boolean }> {
  const pagemap = openSync(`/proc/${pid}/pagemap`, "r");
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, "utf8").split("\n")) {
      const match = /^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) (\S+) (\d+) *(.*)$/.exec(line);
      if (match === null || match[5] === "0") continue;
      const [, start = "", end = "", offset = "", device = "", inode = "", path = ""] = match;
      const first = Number.parseInt(start, 16) / PAGE_BYTES;
      const count = Number.parseInt(end, 16) / PAGE_BYTES - first;
      const entries = new BigUint64Array(count);
      readSync(pagemap, entries, 0, count * 8, first * 8);
      const firstPage = Number.parseInt(offset, 16) / PAGE_BYTES;
      for (const [i, entry] of entries.entries()) {
        const isPresent = ((entry >> 63n) & 1n) === 1n;
        const isOfFile = ((entry >> 61n) & 1n) === 1n;
        if (isPresent && isOfFile)
          yield { key: `${device} ${inode} ${firstPage + i}`, isImage: path.startsWith("/dev/shm/") };
      }
    }
  } finally {
    closeSync(pagemap);
  }
}

/** CPU time of each thread of a process in ns, by thread id (proc_pid_schedstat). */
export function threadTimes(pid: number): ReadonlyMap<number, number> {
  const threads = readdirSync(`/proc/${pid}/task`).map(Number);
  return new Map(
    threads.map((thread) => {
      const text = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8");
      return [thread, Number(text.split(" ")[0])];
    }),
  );
}

const MIB = 1_024 * 1_024;

/** What two processes need together while nothing happens; memory in MiB, CPU in percent of a core. */
export type Footprint = {
  readonly togetherMib: number;
  readonly imagesMib: number;
  readonly programsMib: number;
  readonly controlRssMib: number;
  readonly dataRssMib: number;
  readonly controlAnonymousMib: number;
  readonly dataAnonymousMib: number;
  readonly pssMib: number;
  readonly controlCpu: number;
  readonly dataCpu: number;
  readonly seconds: number;
};

/** Waits until both have given back what their start needed, then looks for `seconds` seconds: memory at the end, CPU in all. */
export async function measureFootprint(control: number, data: number, seconds: number): Promise<Footprint> {
  await settled([control, data]);
  const [controlBefore, dataBefore, startMs] = [cpuNs(control), cpuNs(data), performance.now()];
  await delay(seconds * 1_000);
  const percentOf = (ns: number) => ns / 1e4 / (performance.now() - startMs);
  const [controlCpu, dataCpu] = [percentOf(cpuNs(control) - controlBefore), percentOf(cpuNs(data) - dataBefore)];
  const [one, other] = [readResident(control), readResident(data)];
  const { bytes, images, programs } = residentTogether([control, data]);
  return {
    togetherMib: bytes / MIB,
    imagesMib: images / MIB,
    programsMib: programs / MIB,
    controlRssMib: one.rss / MIB,
    dataRssMib: other.rss / MIB,
    controlAnonymousMib: one.anonymous / MIB,
    dataAnonymousMib: other.anonymous / MIB,
    pssMib: (one.pss + other.pss) / MIB,
    controlCpu,
    dataCpu,
    seconds,
  };
}

/** CPU time of one scrape after the other in ms, all threads, garbage collected meanwhile too; and the text's length. */
export type Scrapes = { readonly scrapeCpuMs: readonly number[]; readonly scrapeBytes: number };

/** Waits until the start is over, then scrapes `count` times, some 0.6 s apart. What the process does at rest is in it. */
export async function measureScrapes(pid: number, url: string, count: number): Promise<Scrapes> {
  await settled([pid]);
  const scrapeCpuMs: number[] = [];
  let scrapeBytes = 0;
  for (let i = 0; i < count; i++) {
    const before = cpuNs(pid);
    const text = await (await fetch(url)).text();
    scrapeBytes = text.length;
    await delay(AFTER_SCRAPE_MS);
    scrapeCpuMs.push((cpuNs(pid) - before) / 1e6);
    await delay(BETWEEN_SCRAPES_MS);
  }
  return { scrapeCpuMs, scrapeBytes };
}

/** Helper threads collect garbage beyond the answer. */
const AFTER_SCRAPE_MS = 100;
const BETWEEN_SCRAPES_MS = 500;

const cpuNs = (pid: number) => [...threadTimes(pid).values()].reduce((sum, ns) => sum + ns, 0);

/** A start is over when the pages of node that it needed were given back, and memory has stood still since. */
async function settled(pids: readonly number[]): Promise<void> {
  const endMs = performance.now() + SETTLE_DEADLINE_MS;
  const rss = () => pids.map((pid) => readResident(pid).rss);
  for (let before = rss(), stood = 0; performance.now() < endMs; ) {
    await delay(1_000);
    const now = rss();
    const areBack = pids.every((pid) => residentTogether([pid]).programs < SETTLED_PROGRAM_BYTES);
    stood = areBack && now.every((bytes, i) => Math.abs(bytes - before[i]!) < MIB) ? stood + 1 : 0;
    if (stood === 3) return;
    before = now;
  }
  throw new Error(`memory has not settled in ${SETTLE_DEADLINE_MS} ms`);
}

/** A node that has just started has some 44 MiB of itself and its libraries in its page table. */
const SETTLED_PROGRAM_BYTES = 34 * MIB;
const SETTLE_DEADLINE_MS = 60_000;
