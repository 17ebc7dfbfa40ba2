import { closeSync, fstatSync, ftruncateSync, openSync, unlinkSync } from "node:fs";
import { check, lastErrno, libc, SysError, viewAt } from "./libc.js";

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

/** Bytes handed around together with a DataView of the very same bytes. */
export type Memory = { readonly u8: Uint8Array; readonly view: DataView };

/**
 * A file mapped with MAP_SHARED: all processes that map it see the same bytes. The descriptor stays open (locks hang on
 * it) until `[Symbol.dispose]`, which also unmaps; views made from `buffer` must not be used afterwards (SIGSEGV).
 */
export class MappedFile implements Memory {
  readonly fd: number;
  /** The file's name, for messages; whoever renames it sets it. */
  path: string;
  readonly length: number;
  readonly buffer: ArrayBuffer;
  readonly u8: Uint8Array;
  readonly view: DataView;
  readonly #address: number;
  #isOpen = true;

  private constructor(path: string, fd: number, length: number, isWritable: boolean) {
    const protection = isWritable ? PROT_READ | PROT_WRITE : PROT_READ;
    this.#address = check("mmap", Number(libc.mmap(null, length, protection, MAP_SHARED, fd, 0)), path);
    this.fd = fd;
    this.path = path;
    this.length = length;
    this.buffer = viewAt(this.#address, length);
    this.u8 = new Uint8Array(this.buffer);
    this.view = new DataView(this.buffer);
  }

  /**
   * Creates `path` exclusively (EEXIST if it is there) with `length` zero bytes, and maps it writable.
   * @param reservedBytes takes the memory for so many of the first bytes now, see {@link reserve}
   * @throws {SysError} ENOSPC; there is no file then
   */
  static create(path: string, length: number, { reservedBytes = 0 } = {}): MappedFile {
    const fd = openSync(path, "wx+", 0o600);
    return closeOnError(fd, () => {
      try {
        ftruncateSync(fd, length);
        if (reservedBytes > 0) allocate(fd, 0, 0, reservedBytes, path);
        return new MappedFile(path, fd, length, true);
      } catch (error) {
        unlinkSync(path);
        throw error;
      }
    });
  }

  /**
   * Maps an existing file in its present size. Writing to a read-only mapping is fatal (SIGSEGV).
   * @throws the ENOENT, EACCES … of open(2); {SysError} when mapping fails, EINVAL for an empty file.
   */
  static open(path: string, { isWritable = false } = {}): MappedFile {
    const fd = openSync(path, isWritable ? "r+" : "r");
    return closeOnError(fd, () => new MappedFile(path, fd, fstatSync(fd).size, isWritable));
  }

  /**
   * Takes the memory for some bytes of the file now: a page that the file system has no room for when it is touched ends
   * the process (SIGBUS). @throws {SysError} ENOSPC
   */
  reserve(offset: number, length: number): void {
    allocate(this.fd, 0, offset, length, this.path);
  }

  /** Gives the memory of whole pages within some bytes back; they read as zeros then. */
  release(offset: number, length: number): void {
    allocate(this.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length, this.path);
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    check("munmap", libc.munmap(BigInt(this.#address), this.length), this.path);
    closeSync(this.fd);
  }
}

/** File systems that cannot do it (EOPNOTSUPP) are taken as they are. */
function allocate(fd: number, mode: number, offset: number, length: number, path: string): void {
  if (libc.fallocate(fd, mode, offset, length) === 0) return;
  const error = new SysError("fallocate", lastErrno(), path);
  if (error.errno !== "EOPNOTSUPP") throw error;
}

function closeOnError(fd: number, make: () => MappedFile): MappedFile {
  try {
    return make();
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
