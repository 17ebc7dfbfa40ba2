import { renameSync } from "node:fs";
import { fromBinary } from "@bufbuild/protobuf";
import type Libsql from "libsql";
import { TargetSchema } from "./gen/nsp/v1/model_pb.js";
import type { TargetStorage } from "./store.js";

/** Layout of the tables, in the database's `user_version`. */
const VERSION = 1;

export type TargetDatabase = TargetStorage & Disposable;

/** A database that cannot be used; the message names the file and says why. */
class DatabaseError extends Error {
  readonly code = "ERR_CONFIG";
}

/**
 * Opens the SQLite database where registered targets outlive the process, and makes it where it is missing. Writes are
 * in the file when they return and survive the end of the process at any moment; what the last seconds before a power
 * cut wrote may be lost (WAL with synchronous=NORMAL). One process per database. The library is loaded here and not
 * before: it takes 13 ms and some 10 MiB.
 * @param onDamaged the file was no database: it was renamed to the given name and a new one begun
 * @throws {DatabaseError} no right, no place, in use, of another version
 */
export async function openTargetDatabase(
  path: string,
  onDamaged: (renamedTo: string) => void,
): Promise<TargetDatabase> {
  const { default: Database } = await import("libsql");
  try {
    return open(new Database(path));
  } catch (error) {
    const { code } = error as { code?: string };
    if (code !== "SQLITE_NOTADB" && code !== "SQLITE_CORRUPT") throw toDatabaseError(path, error);
  }
  const aside = `${path}.damaged`;
  try {
    renameSync(path, aside);
    onDamaged(aside);
    return open(new Database(path));
  } catch (error) {
    throw toDatabaseError(path, error);
  }
}

function toDatabaseError(path: string, error: unknown): DatabaseError {
  const { message, code } = error as { message: string; code?: string };
  const hint = code === "SQLITE_BUSY" ? " (another process has it open)" : "";
  return new DatabaseError(`database ${path}: ${message}${hint}`, { cause: error });
}

function open(database: Libsql.Database): TargetDatabase {
  try {
    return prepare(database);
  } catch (error) {
    database.close();
    throw error;
  }
}

function prepare(database: Libsql.Database): TargetDatabase {
  database.exec("PRAGMA locking_mode = EXCLUSIVE");
  database.exec("PRAGMA journal_mode = WAL");
  database.exec("PRAGMA synchronous = NORMAL");
  const { user_version: version } = database.prepare("PRAGMA user_version").get() as { user_version: number };
  if (version > VERSION) throw new Error(`written by a newer program, version ${version}`);
  database.exec(`BEGIN IMMEDIATE;
    CREATE TABLE IF NOT EXISTS targets (key TEXT PRIMARY KEY, message BLOB NOT NULL) WITHOUT ROWID;
    PRAGMA user_version = ${VERSION};
    COMMIT`);
  const all = database.prepare("SELECT message FROM targets ORDER BY key");
  const put = database.prepare(
    "INSERT INTO targets (key, message) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET message = excluded.message",
  );
  const remove = database.prepare("DELETE FROM targets WHERE key = ?");
  return {
    load: () => {
      const rows = all.all() as { readonly message: ArrayBuffer }[];
      return rows.map(({ message }) => fromBinary(TargetSchema, new Uint8Array(message)));
    },
    put: (key, message) => {
      put.run(key, Buffer.from(message));
    },
    delete: (key) => {
      remove.run(key);
    },
    [Symbol.dispose]: () => {
      // The library keeps the file open until its statements are collected; the lock must not last that long.
      database.exec("PRAGMA journal_mode = DELETE; PRAGMA locking_mode = NORMAL; SELECT count(*) FROM targets");
      database.close();
    },
  };
}
