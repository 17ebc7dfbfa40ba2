import { type AttributesValue, attr, attributes, message, raw, struct, text, u8, u32, type ValueOf } from "#bytes";
import { afOf, type Family, familyOf } from "./family.js";

export const RTM_NEWRULE = 32;
export const RTM_DELRULE = 33;
export const RTM_GETRULE = 34;

const FR_ACT_TO_TBL = 1;
const FR_ACT_GOTO = 2;
const FR_ACT_NOP = 3;
const FIB_RULE_INVERT = 2;
/** What FRA_SUPPRESS_PREFIXLEN says when nothing is suppressed; the kernel always tells it. */
const SUPPRESSES_NOTHING = 0xffffffff;
const WHOLE_MARK = 0xffffffff;
/** The header has one byte for the table; a larger number stands in FRA_TABLE alone. */
const HEADER_TABLE_LIMIT = 256;

/** `struct fib_rule_hdr`, include/uapi/linux/fib_rules.h (v6.18). 12 bytes. */
const ruleHeader = struct("fib_rule_hdr", {
  family: u8,
  destinationLength: u8,
  sourceLength: u8,
  tos: u8,
  table: u8,
  res1: u8,
  res2: u8,
  action: u8,
  flags: u32,
});

/** In the order of the kernel's own dump (fib_nl_fill_rule, net/core/fib_rules.c, v6.18). */
const declared = {
  table: attr(15, u32),
  suppressPrefixLength: attr(14, u32),
  protocol: attr(21, u8),
  inputInterface: attr(3, text),
  outputInterface: attr(17, text),
  priority: attr(6, u32),
  fwmark: attr(10, u32),
  fwmask: attr(16, u32),
  goto: attr(4, u32),
  destination: attr(1, raw),
  source: attr(2, raw),
};

/** `FRA_*`, same file. FRA_FWMARK is host order; NFQA_MARK is not. */
const ruleAttributes = attributes("FRA", declared);
export const ruleMessage = message(ruleHeader, ruleAttributes);
type RuleAttributes = AttributesValue<typeof declared>;

/** An entry of `ip rule`. */
export type Rule = {
  readonly family: Family;
  readonly priority: number;
  readonly fwmark: number | null;
  /** Mask of the mark, 0xffffffff = the whole. */
  readonly fwmask: number;
  /** A number (FR_ACT_*) for what we never make: blackhole, unreachable, prohibit. */
  readonly action: "table" | "goto" | "nop" | number;
  /** Routing table of action `table`. */
  readonly table: number;
  /** Priority to go on at, of action `goto`. */
  readonly goto: number | null;
  /** Routing protocol number: who made it. */
  readonly protocol: number;
  /** What else decides whether the rule holds, as the kernel told it; absent for a rule that looks at the mark at most. */
  readonly selectors?: RuleSelectors;
};

/** Selectors besides the fwmark: prefixes, interfaces, DSCP, ports, uids …, and `not`. Only good to be compared and sent back. */
type RuleSelectors = {
  readonly header: Pick<ValueOf<typeof ruleHeader>, "destinationLength" | "sourceLength" | "tos" | "flags">;
  readonly attributes: Omit<RuleAttributes, "goto" | "priority" | "fwmark" | "fwmask" | "table" | "protocol">;
};

const ACTIONS: ReadonlyMap<number, Rule["action"]> = new Map([
  [FR_ACT_TO_TBL, "table"],
  [FR_ACT_GOTO, "goto"],
  [FR_ACT_NOP, "nop"],
]);

const ACTION_NUMBERS = { table: FR_ACT_TO_TBL, goto: FR_ACT_GOTO, nop: FR_ACT_NOP } as const;

/** The rule in a message's body, or null when it is of another family (multicast routing). @throws {DecodeError} */
export function decodeRule(body: Uint8Array): Rule | null {
  const { header, attributes: found } = ruleMessage.decode(body, "");
  const family = familyOf(header.family);
  if (family === null) return null;
  const selectors = selectorsOf(header, found);
  return {
    family,
    priority: found.priority ?? 0,
    fwmark: found.fwmark ?? (found.fwmask === undefined ? null : 0), // the kernel leaves a mark of 0 out
    fwmask: found.fwmask ?? WHOLE_MARK,
    action: ACTIONS.get(header.action) ?? header.action,
    table: found.table ?? header.table,
    goto: found.goto ?? null,
    protocol: found.protocol ?? 0,
    ...(selectors === null ? {} : { selectors }),
  };
}

/** Attributes that are fields of a rule. */
const FIELDS = new Set(["goto", "priority", "fwmark", "fwmask", "table", "protocol"]);

function selectorsOf(
  { destinationLength, sourceLength, tos, flags }: ValueOf<typeof ruleHeader>,
  found: RuleAttributes,
): RuleSelectors | null {
  const header = { destinationLength, sourceLength, tos, flags: flags & FIB_RULE_INVERT };
  const others = Object.entries(found).filter(
    ([key, value]) => !FIELDS.has(key) && !(key === "suppressPrefixLength" && value === SUPPRESSES_NOTHING),
  );
  const isPlain = others.length === 0 && Object.values(header).every((value) => value === 0);
  return isPlain ? null : { header, attributes: Object.fromEntries(others) };
}

/** Body of RTM_NEWRULE and RTM_DELRULE; for a deletion every field of the listed rule is named, so no other one goes. */
export function encodeRule(rule: Rule): Uint8Array {
  const { family, priority, fwmark, fwmask, action, table, goto: target, protocol, selectors } = rule;
  return ruleMessage.encode(
    {
      header: {
        ...emptyHeader(family),
        ...selectors?.header,
        table: action === "table" && table < HEADER_TABLE_LIMIT ? table : 0,
        action: typeof action === "number" ? action : ACTION_NUMBERS[action],
      },
      attributes: {
        ...selectors?.attributes,
        goto: target ?? undefined,
        priority,
        fwmark: fwmark ?? undefined,
        table: action === "table" ? table : undefined,
        fwmask: fwmark === null ? undefined : fwmask,
        protocol,
      },
    },
    "",
  );
}

/** Body of RTM_GETRULE: all rules of a family. */
export function ruleQuery(family: Family): Uint8Array {
  return ruleMessage.encode({ header: emptyHeader(family), attributes: {} }, "");
}

function emptyHeader(family: Family) {
  return {
    family: afOf(family),
    destinationLength: 0,
    sourceLength: 0,
    tos: 0,
    table: 0,
    res1: 0,
    res2: 0,
    action: 0,
    flags: 0,
  };
}

/** The rule in a line, for messages. */
export function describeRule({ family, priority, fwmark, action, table, goto: target }: Rule): string {
  const match = fwmark === null ? "all" : `fwmark ${fwmark}`;
  const where = action === "table" ? ` ${table}` : target === null ? "" : ` ${target}`;
  return `IPv${family} ${priority}: ${match} ${action}${where}`;
}
