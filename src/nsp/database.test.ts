import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { afterAll, expect, test } from "vitest";
import { openTargetDatabase } from "./database.js";
import { TargetSchema } from "./gen/nsp/v1/model_pb.js";

const folder = mkdtempSync(join(tmpdir(), "nsp-database-"));
afterAll(() => rmSync(folder, { recursive: true }));
const never = () => expect.unreachable();
const target = (ip: string) => create(TargetSchema, { ips: [ip], context: { identifier: "1" }, status: 1 });

test("targets come back after a close as they were put, replaced or deleted", async () => {
  const path = join(folder, "a.db");
  const database = await openTargetDatabase(path, never);
  expect(database.load()).toEqual([]);
  for (const key of ["a", "b", "c"]) database.put(key, toBinary(TargetSchema, target("10.0.0.1")));
  database.put("b", toBinary(TargetSchema, target("10.0.0.2")));
  database.delete("c");
  database.delete("never there");
  database[Symbol.dispose]();
  using again = await openTargetDatabase(path, never);
  expect(again.load()).toEqual([target("10.0.0.1"), target("10.0.0.2")]);
});

test("a database that another has open is refused", async () => {
  const path = join(folder, "b.db");
  using first = await openTargetDatabase(path, never);
  first.put("a", new Uint8Array());
  await expect(openTargetDatabase(path, never)).rejects.toThrow(/b\.db: .*locked.*another process has it open/);
});

test("a file that is no database is put aside and a new one begun", async () => {
  const path = join(folder, "c.db");
  writeFileSync(path, "no database at all, ".repeat(500));
  const renamed: string[] = [];
  using database = await openTargetDatabase(path, (to) => renamed.push(to));
  expect(renamed).toEqual([`${path}.damaged`]);
  expect(existsSync(`${path}.damaged`)).toBe(true);
  expect(database.load()).toEqual([]);
});

test("a place that cannot be written, and a newer layout, are refused with the file's name", async () => {
  await expect(openTargetDatabase("/nowhere/at/all.db", never)).rejects.toThrow(/^database \/nowhere\/at\/all\.db: /);
  const path = join(folder, "d.db");
  const { default: Database } = await import("libsql");
  const newer = new Database(path);
  newer.exec("PRAGMA user_version = 9");
  newer.close();
  await expect(openTargetDatabase(path, never)).rejects.toThrow("written by a newer program, version 9");
});
