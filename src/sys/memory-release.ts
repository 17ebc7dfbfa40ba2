import { readFileSync } from "node:fs";
import koffi from "koffi";
import { lastErrno, libc, SysError } from "./libc.js";

const MADV_DONTNEED = 4;

/** malloc_trim(3): glibc gives what was freed back to the kernel, of all arenas. null where the C library has no such thing. */
const mallocTrim = (() => {
  try {
    return koffi.load(null).func("int malloc_trim(size_t)");
  } catch {
    return null; // musl
  }
})();

/** Gives memory that this process has freed back to the kernel. Some ms at most. */
export function releaseFreedMemory(): void {
  mallocTrim?.(0);
}

/**
 * Takes the pages of programs and libraries out of this process's page table (madvise(2), MADV_DONTNEED): those that are
 * in use come back by a page fault each, from the page cache, those that only the start needed stay away. Mappings that
 * can be written to, or of which this process has pages of its own (relocations), are left alone.
 */
export function releaseProgramPages(): void {
  for (const { start, length } of readOnlyMappings()) {
    if (libc.madvise(BigInt(start), length, MADV_DONTNEED) === 0) continue;
    const error = new SysError("madvise", lastErrno(), "program pages");
    // Another thread has unmapped it since: the loader its cache of names, when a library comes with the first look-up of a host.
    if (error.errno !== "ENOMEM") throw error;
  }
}

/** Mappings of files that are as they are in the file. */
function readOnlyMappings(): readonly { readonly start: number; readonly length: number }[] {
  const found: { start: number; length: number; isClean: boolean }[] = [];
  let isFile = false;
  for (const line of readFileSync("/proc/self/smaps", "latin1").split("\n")) {
    const match = /^([0-9a-f]+)-([0-9a-f]+) r-.p [0-9a-f]+ \S+ ([0-9]+) /.exec(line);
    if (match !== null && match[3] !== "0") {
      const start = Number.parseInt(match[1]!, 16);
      found.push({ start, length: Number.parseInt(match[2]!, 16) - start, isClean: false });
      isFile = true;
    } else if (/^[0-9a-f]+-/.test(line)) isFile = false;
    else if (isFile && line.startsWith("Anonymous:")) found.at(-1)!.isClean = line.endsWith(" 0 kB");
  }
  return found.filter(({ isClean }) => isClean);
}
