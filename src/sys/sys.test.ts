import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, onTestFinished, test } from "vitest";
import {
  closeDescriptor,
  connectAbstract,
  isRangeLocked,
  listenAbstract,
  listenerOf,
  MappedFile,
  NetlinkSocket,
  raiseReceiveBuffer,
  SO_RCVBUF,
  SOL_SOCKET,
  setSocketOption,
  tryLockRange,
  unlockRange,
  watchProcess,
} from "./index.js";

const folder = mkdtempSync(join(tmpdir(), "sys-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("MappedFile: two mappings of one file see each other's writes", () => {
  using writer = MappedFile.create(join(folder, "shared"), 4096);
  using reader = MappedFile.open(join(folder, "shared"));
  writer.view.setUint32(8, 0xdeadbeef, true);
  expect(reader.view.getUint32(8, true)).toBe(0xdeadbeef);
  expect(reader.length).toBe(4096);
});

test("MappedFile: creating what is there and opening what is not are refused by name", () => {
  using _first = MappedFile.create(join(folder, "once"), 64);
  expect(() => MappedFile.create(join(folder, "once"), 64)).toThrow(/EEXIST.*once/);
  expect(() => MappedFile.open(join(folder, "never"))).toThrow(/ENOENT.*never/);
});

test("MappedFile: memory is taken and given back for a part of a file", () => {
  const shm = mkdtempSync("/dev/shm/sys-");
  onTestFinished(() => rmSync(shm, { recursive: true }));
  using file = MappedFile.create(join(shm, "part"), 1 << 20, { reservedBytes: 8_192 });
  const taken = () => statSync(file.path).blocks * 512;
  expect(taken()).toBe(8_192);
  file.reserve(65_536, 4_096);
  file.u8[65_536] = 7;
  expect(taken()).toBe(12_288);
  file.release(4_096, 1 << 19);
  expect(taken()).toBe(4_096);
  expect(file.u8[65_536]).toBe(0);
  expect(() => file.reserve(0, 2 ** 42)).toThrow(/ENOSPC|EFBIG/);
});

test("range locks exclude two descriptors of one process and end with the descriptor", () => {
  using first = MappedFile.create(join(folder, "lock"), 64);
  {
    using second = MappedFile.open(join(folder, "lock"), { isWritable: true });
    expect(tryLockRange(second.fd, 8, 4)).toBe(true);
    expect(tryLockRange(first.fd, 8, 4)).toBe(false);
    expect(tryLockRange(first.fd, 12, 4)).toBe(true);
    expect(isRangeLocked(first.fd, 8, 4)).toBe(true);
    unlockRange(first.fd, 12, 4);
  }
  expect(isRangeLocked(first.fd, 8, 4)).toBe(false);
});

test("NetlinkSocket: receive gives -1 after its time-out, a closed socket an error", () => {
  const socket = new NetlinkSocket(0, { receiveTimeoutMs: 1 });
  expect(socket.portId).toBeGreaterThan(0);
  expect(socket.receive(new Uint8Array(64))).toBe(-1);
  socket[Symbol.dispose]();
  expect(() => socket.send(new Uint8Array(16))).toThrowError(
    expect.objectContaining({ code: "ERR_SYS", errno: "EBADF", syscall: "sendto" }),
  );
});

test("watchProcess: null for a process that does not exist", () => {
  expect(watchProcess(2 ** 22 - 1, () => {})).toBeNull();
});

test("a socket option that is no int is refused: cut to 32 bits it would be another one, a negative buffer among them", () => {
  using socket = new NetlinkSocket(0);
  expect(() => raiseReceiveBuffer(socket.fd, 2 ** 31)).toThrow(RangeError);
  for (const value of [2 ** 31, 2 ** 32, -(2 ** 31) - 1, 0.5, Number.NaN]) {
    expect(() => setSocketOption(socket.fd, SOL_SOCKET, SO_RCVBUF, value)).toThrow(RangeError);
  }
});

test("an abstract unix name is one socket's, tells its process, and is free when that is closed", () => {
  const name = `sys-test-${process.pid}`;
  expect(listenerOf(name)).toBeNull();
  const fd = listenAbstract(name);
  expect(() => listenAbstract(name)).toThrow(/bind @sys-test.*EADDRINUSE/);
  for (let i = 0; i < 2_000; i++) listenerOf(name); // nobody takes them off the queue: asking must not wait then
  expect(listenerOf(name)).toBeNull();
  closeDescriptor(fd);
  expect(() => connectAbstract(name)).toThrow(/ECONNREFUSED/);
  const again = listenAbstract(name);
  expect(listenerOf(name)).toBe(process.pid);
  closeDescriptor(again);
});
