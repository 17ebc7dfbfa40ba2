import { expect, test } from "vitest";
import { help, readRequest, usage } from "./stateless-lb/command-line.js";
import { explainFailure } from "./stateless-lb/failure.js";
import { FlagError, parseFlags } from "./stateless-lb/go-flags.js";
import { readSettings } from "./stateless-lb/settings.js";

const specs = [
  { name: "x", kind: "bool", help: "a switch" },
  { name: "file", kind: "string", value: "FILE", help: "a file" },
] as const;
const parse = (...args: readonly string[]) => {
  const { values, rest } = parseFlags("p", specs, args);
  return { ...Object.fromEntries(values), rest };
};

test("flags are read as Go's flag package reads them", () => {
  expect(parse("-x", "--file", "a")).toEqual({ x: "true", file: "a", rest: [] });
  expect(parse("--x=F", "-file=b=c")).toEqual({ x: "false", file: "b=c", rest: [] });
  expect(parse("-x", "word", "-file", "a")).toEqual({ x: "true", rest: ["word", "-file", "a"] });
  expect(parse("-x", "--", "-file")).toEqual({ x: "true", rest: ["-file"] });
  expect(parse("-", "-x")).toEqual({ rest: ["-", "-x"] });
  const problem = (...args: readonly string[]) => expect(() => parse(...args));
  problem("-y").toThrow("flag provided but not defined: -y");
  problem("--y=1").toThrow("flag provided but not defined: -y");
  problem("-file").toThrow("flag needs an argument: -file");
  problem("-x=maybe").toThrow('invalid boolean value "maybe" for -x: parse error');
  problem("---x").toThrow("bad flag syntax: ---x");
  problem("-=x").toThrow("bad flag syntax: -=x");
});

test("version comes before debug, debug before help; -h is the usage list", () => {
  expect(readRequest(["--help", "-debug", "--version"]).kind).toBe("version");
  expect(readRequest(["--help", "-debug"]).kind).toBe("debug");
  expect(readRequest(["-help", "--print-config"]).kind).toBe("help");
  expect(readRequest(["-h"]).kind).toBe("usage");
  expect(readRequest(["--version=false"])).toEqual({ kind: "serve", config: undefined, isDryRun: false });
  expect(readRequest(["-config", "f", "--dry-run"])).toEqual({ kind: "serve", config: "f", isDryRun: true });
  expect(usage()).toMatch(/^Usage of stateless-lb:\n {2}-config FILE\n {4}\t/);
  expect(help()).toMatch(/^\nstateless-lb --\n {2}\S.*\n {2}\S.*\n {2}\S.*\n/);
  expect(help()).toContain("NSM_GRPC_KEEPALIVE_TIME");
});

test("exit codes: 2 for what cannot be read, 1 for everything else", () => {
  const codeOf = (error: unknown) => explainFailure(error).code;
  const settingsError = (env: Record<string, string>) => {
    try {
      return readSettings(env);
    } catch (error) {
      return error;
    }
  };
  expect(codeOf(settingsError({ NSM_DIAL_TIMEOUT: "5" }))).toBe(2);
  expect(codeOf(settingsError({ NSM_NFQUEUE: "a" }))).toBe(1);
  expect(codeOf(new FlagError("x"))).toBe(2);
  expect(explainFailure(Object.assign(new Error("bind: EPERM"), { code: "ERR_SYS" }))).toEqual({
    text: expect.stringMatching(/^bind: EPERM: CAP_NET_ADMIN is needed: [^\n]*$/),
    code: 1,
  });
});
