// The settings as text: for --help, for docs/settings.md and for --print-config.
import { maskVariable } from "./secrets.js";
import { type Kind, type Origin, type Settings, VARIABLES, type Variable } from "./settings.js";
import { formatDuration } from "./values.js";

const ALL = Object.entries(VARIABLES) as readonly (readonly [keyof Settings, Variable])[];

/** The variables as text, for `--help`. */
export function describeVariables(): string {
  const width = Math.max(...ALL.map(([, { name }]) => name.length));
  return ALL.map(([, { name, kind, default: fallback, meaning, alternative }]) => {
    const more = alternative === undefined ? "" : `; if unset, ${alternative} is read`;
    const head = `  ${name.padEnd(width)}  ${kind.padEnd(8)}  ${fallback === "" ? "(empty)" : fallback}`;
    return `${head}\n  ${" ".repeat(width)}  ${meaning}${more}\n`;
  }).join("");
}

/** The variables as a table of docs/settings.md. */
export function settingsTable(): string {
  const rows = ALL.map(([, { name, kind, default: fallback, meaning, alternative }]) => {
    const more = alternative === undefined ? "" : ` (else \`${alternative}\`)`;
    return `| \`${name}\`${more} | ${kind} | ${fallback === "" ? "" : `\`${fallback}\``} | ${meaning} |\n`;
  });
  return `| variable | type | default | meaning |\n|---|---|---|---|\n${rows.join("")}`;
}

/** What is in force, a line per variable: name, value, where it came from. Credentials are masked. */
export function printSettings(settings: Settings, origins: Readonly<Record<string, Origin>>): string {
  const rows = ALL.map(([key, { name, kind }]) => {
    const origin = origins[key] ?? "default";
    const value = maskVariable(name, formatSetting(kind, settings[key]));
    const from =
      origin === "default" ? "default" : `environment${origin.variable === name ? "" : ` (${origin.variable})`}`;
    return [name, value === "" ? '""' : value, from] as const;
  });
  const width = (column: 0 | 1) => Math.max(...rows.map((row) => row[column].length));
  const [first, second] = [width(0), width(1)];
  return rows.map(([name, value, from]) => `${name.padEnd(first)}  ${value.padEnd(second)}  ${from}\n`).join("");
}

/** What is in force by variable, for the log. Credentials are masked. */
export function settingsByName(settings: Settings): Readonly<Record<string, string>> {
  return Object.fromEntries(
    ALL.map(([key, { name, kind }]) => [name, maskVariable(name, formatSetting(kind, settings[key]))]),
  );
}

function formatSetting(kind: Kind, value: unknown): string {
  if (kind === "duration") return formatDuration(value as number);
  if (kind !== "queues") return String(value);
  const { first, last } = value as { readonly first: number; readonly last: number };
  return first === last ? String(first) : `${first}:${last}`;
}
