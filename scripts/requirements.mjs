// Which test shows what was asked for: test/requirements.json lists ids, titles of tests carry them.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** @typedef {{ elsewhere?: string, title?: string }} More */
/** @typedef {[id: string, about?: string, more?: More]} Requirement */
/** @typedef {{ file: string, title: string }} Title */

/**
 * Titles in the test files below these folders. Of test.each it is the literal behind the table: `)("…"`.
 * @param {string} root @returns {Title[]}
 */
function titlesIn(root) {
  const start = /(?:\btest(?:\.\w+)?\(|\)\()\s*("(?:[^"\\\n]|\\.)*")/g;
  return ["src", "test"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".test.ts"))
      .toSorted()
      .flatMap((path) => {
        const file = `${folder}/${path}`;
        const matches = readFileSync(join(root, file), "utf8").matchAll(start);
        return [...matches].map(([, literal = '""']) => ({ file, title: JSON.parse(literal) }));
      }),
  );
}

/**
 * An id stands with others in front of a title's first colon; a phrase anywhere in it.
 * @param {Requirement} requirement @param {Title[]} titles
 */
function shownBy([id, , { title: phrase } = {}], titles) {
  if (phrase !== undefined) return titles.filter(({ title }) => title.includes(phrase));
  return titles.filter(({ title }) => title.split(":")[0]?.split(", ").includes(id));
}

/** @param {string} root @returns {{ text: string, problems: string[] }} the tables as Markdown, and ids that nothing shows */
export function requirementTables(root) {
  /** @type {Record<string, Requirement[]>} */
  const groups = JSON.parse(readFileSync(join(root, "test/requirements.json"), "utf8"));
  const titles = titlesIn(root);
  /** @type {string[]} */
  const problems = [];
  const row = (/** @type {Requirement} */ requirement) => {
    const [id, about = "", { elsewhere } = {}] = requirement;
    const found = shownBy(requirement, titles);
    if (found.length === 0 && elsewhere === undefined)
      problems.push(`test/requirements.json: ${id}: no test's title carries it`);
    const tests = found.map(({ file, title }) => `\`${file}\`: ${title.replaceAll("|", "\\|")}`);
    return `| ${id} | ${about} | ${elsewhere ?? tests.join("<br>")} |`;
  };
  const tables = Object.entries(groups).map(
    ([group, requirements]) => `| ${group} | | shown by |\n|---|---|---|\n${requirements.map(row).join("\n")}\n`,
  );
  return { text: tables.join("\n"), problems };
}
