// Checks the import arrows of docs/architecture.md: imports go from a floor to a lower one, never sideways, never up;
// each outside dependency has a home; only `sys` calls the system.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

/** Room → floor. */
export const floors = {
  sys: 0,
  bytes: 0,
  model: 0,
  maglev: 0,
  packet: 1,
  netlink: 1,
  rpc: 1,
  flow: 2,
  tables: 3,
  availability: 3,
  steering: 3,
  nsp: 3,
  dataplane: 4,
  control: 4,
  programs: 5,
};

/** Room → rooms it must not see although they lie lower ("must not know" of the design). */
const blind = {
  packet: ["sys"],
  flow: ["sys", "netlink", "rpc"],
  tables: ["netlink", "rpc"],
  steering: ["packet", "rpc", "flow"],
  availability: ["netlink", "packet", "tables"],
  nsp: ["netlink", "packet"],
  dataplane: ["rpc", "steering", "nsp"],
  control: ["packet", "netlink"],
};

/** Outside package → rooms that may import it. */
const homes = {
  koffi: ["sys"],
  "@grpc/grpc-js": ["rpc"],
  "@bufbuild/protobuf": ["rpc", "nsp", "availability"],
  libsql: ["nsp"],
  yaml: ["nsp"],
  pino: ["programs"],
};

/** @param {string} folder @returns {string[]} */
const filesBelow = (folder) =>
  readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));

const problems = [];
for (const file of filesBelow(join(root, "src"))) {
  const path = relative(join(root, "src"), file);
  const room = /** @type {keyof typeof floors} */ (path.split("/")[0]);
  if (!(room in floors)) problems.push(`${path}: no room named ${room}`);
  const isTest = path.endsWith(".test.ts");
  const text = readFileSync(file, "utf8");
  for (const match of text.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)) {
    const target = match[1] ?? "";
    const report = (/** @type {string} */ why) => problems.push(`${path}: imports ${target}: ${why}`);
    if (target.startsWith("#")) {
      const other = /** @type {keyof typeof floors} */ (target.slice(1).split("/")[0]);
      if (!(other in floors)) report("no such room");
      else if (other === room && target === `#${room}`) report("own door; import the file");
      else if (other !== room && floors[other] >= floors[room])
        report(`floor ${floors[other]} from floor ${floors[room]}`);
      else if (!isTest && blind[/** @type {keyof typeof blind} */ (room)]?.includes(other))
        report(`${room} must not know ${other}`);
    } else if (target.startsWith("..")) {
      const isInside = join(dirname(path), target).split("/")[0] === room;
      if (!isInside && !isTest) report("leaves its room");
    } else if (!target.startsWith(".") && !target.startsWith("node:") && !isTest) {
      const name = Object.keys(homes).find((home) => target === home || target.startsWith(`${home}/`));
      const allowed = name === undefined ? [] : homes[/** @type {keyof typeof homes} */ (name)];
      if (!allowed.includes(room)) report(`${target} has no home in ${room}`);
    }
  }
}
for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exit(1);
