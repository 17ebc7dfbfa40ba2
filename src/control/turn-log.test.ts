import { expect, test } from "vitest";
import type { Failure, Plan, Step } from "#steering";
import { RetryWatch } from "./retries.js";
import { type Log, TurnLog } from "./turn-log.js";

const route = (table: number): Step => ({ kind: "replaceRoute", family: 4, table, gateway: "192.168.77.5" });
const nft: Step = { kind: "nft", commands: [], text: ["add table inet x"] };
const plan = (...additions: Step[]): Plan => ({ additions, vips: [], removals: [] });
const failure = (step: Step, fwmark: number | null, message: string): Failure => ({
  step,
  errno: "ENETUNREACH",
  message,
  fwmark,
});

test("a pending target that is tried again for ever is told once, and again when the reason changes", () => {
  const lines: string[] = [];
  const take = (severity: string) => (message: string) => void lines.push(`${severity} ${message}`);
  const log: Log = {
    trace: () => {},
    debug: take("debug"),
    info: take("info"),
    warning: take("warning"),
    error: take("error"),
  };
  const turns = new TurnLog(log);
  const retries = new RetryWatch();
  const turn = (done: Plan, failed: readonly Failure[], changes: readonly string[] = []) => {
    turns.work(done, changes, { kernel: [], tables: [], storms: [] }, 0, { failed, repeated: retries.turn(failed) });
    return lines.splice(0);
  };
  const pending = failure(route(5_002), 5_002, "ip route replace …: ENETUNREACH");
  expect(turn(plan(route(5_002)), [pending])).toEqual(["info reconciled"]);
  for (let i = 0; i < 3; i++) expect(turn(plan(route(5_002)), [pending])).toEqual([]);
  expect(turn(plan(route(5_002), route(5_003)), [pending])).toEqual(["info reconciled"]);
  expect(turn(plan(route(5_002)), [pending], ["table tshm-web"])).toEqual(["info reconciled"]);
  const another = failure(route(5_002), 5_002, "ip route replace …: EINVAL");
  expect(turn(plan(route(5_002)), [another])).toEqual(["info reconciled"]);
  expect(turn(plan(), [])).toEqual([]);
  expect(turn(plan(route(5_002)), [pending])).toEqual(["info reconciled"]); // it was whole in between
  const refused = failure(nft, null, "nft …: ENOMEM");
  expect(turn(plan(nft), [refused])).toEqual(["info reconciled"]);
  expect(turn(plan(nft), [refused])).toEqual(["debug tried again in vain"]);
});
