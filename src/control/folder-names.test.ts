import { mkdtempSync, renameSync, rmSync, unlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { FolderNames } from "./folder-names.js";

const folder = mkdtempSync(join(tmpdir(), "folder-names-"));
afterAll(() => rmSync(folder, { recursive: true }));

const at = (name: string) => join(folder, name);

test("names that come, go or change are seen at once, also several times within a tick of the kernel's clock", () => {
  const names = new FolderNames(folder);
  expect([...names.read()]).toEqual([]);
  for (let i = 0; i < 100; i++) {
    writeFileSync(at(`new-${i}`), "");
    expect([...names.read()]).toEqual([`new-${i}`]);
    renameSync(at(`new-${i}`), at("other"));
    expect([...names.read()]).toEqual(["other"]);
    unlinkSync(at("other"));
    expect([...names.read()]).toEqual([]);
  }
});

test("a folder that has not changed for a while is not read again", () => {
  writeFileSync(at("kept"), "");
  const names = new FolderNames(folder);
  utimesSync(folder, new Date(), new Date(Date.now() - 1_000));
  const first = names.read();
  expect([...first]).toEqual(["kept"]);
  expect(names.read()).toBe(first);
  expect(() => new FolderNames(at("missing")).read()).toThrow("ENOENT");
});
