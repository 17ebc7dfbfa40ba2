import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { ConfigError } from "#model";
import { checkRegistration, KINDS, type Kind, NspQuery, type QueryFilter, type Registration } from "#nsp";
import { RpcError } from "#rpc";
import { startEmbeddedNsp } from "./embedded-nsp.js";
import { createLog } from "./log.js";
import { findDoubts } from "./nsp-doubts.js";
import { formatRows } from "./nsp-table.js";
import { endWhenReaderGoes, outliveReader } from "./output.js";
import type { Settings } from "./settings.js";
import type { Signals } from "./signals.js";
import { MAX_TIMER_MS, toServerAddress, ValueError } from "./values.js";

const NSP_HELP = `Usage: stateless-lb nsp --insecure --config FILE [--listen ADDRESS]... [--database FILE]
       stateless-lb nsp get|watch --insecure ${KINDS.join("|")}
       stateless-lb nsp register|unregister target --insecure --ip ADDRESS... --identifier N --stream NAME

Without a verb: an NSP server, fed by FILE (docs/configuration-file.md). With one: a client of an NSP server.

Options:
  --config FILE         what the server tells
  --listen ADDRESS      unix:/path or host:port, besides those of the file
  --database FILE       SQLite database where registrations outlive the server, instead of the file's
  --address ADDRESS     server to ask (default: NSM_NSP_SERVICE)
  --trench, --conduit, --stream NAME
                        names that objects must have (default: any; to register: NSM_TRENCH_NAME, NSM_CONDUIT_NAME)
  --frontend            frontends instead of targets
  --ip ADDRESS          of the target, once per family
  --identifier N        of the target in its stream; of a frontend its host name
  --enable              enable the target: register it a second time, for the first one leaves it disabled
  --keep                repeat the registration until a signal, then unregister
  --refresh SECONDS     how often --keep repeats it; well within the server's nsp.entry-timeout (default: 5)
  --timeout SECONDS     how long an answer is waited for (default: 5)
  --json                JSON instead of a table; watch prints one line per answer
  --insecure            plain text, as NSM_NSP_INSECURE=true; nothing else is in this version
`;

/** An option or its value is not right. Exit code 2. */
class UsageError extends Error {
  readonly code = "ERR_PARSE_ARGS_NSP";
}

/** The call cannot be carried out; the message is one line that says why. */
class CommandError extends Error {
  readonly code = "ERR_NSP_COMMAND";
}

/** The server is silent for longer than `--timeout`. */
class NoAnswer extends Error {}

type Values = ReturnType<typeof parse>["values"];

function parse(args: readonly string[]) {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  return parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      config: text,
      listen: { type: "string", multiple: true, default: [] },
      database: text,
      address: text,
      trench: text,
      conduit: text,
      stream: text,
      frontend: flag,
      ip: { type: "string", multiple: true, default: [] },
      identifier: text,
      enable: flag,
      keep: flag,
      refresh: { type: "string", default: "5" },
      timeout: { type: "string", default: "5" },
      json: flag,
      insecure: flag,
      help: { type: "boolean", short: "h", default: false },
    },
  });
}

/** `stateless-lb nsp …`. Returns the exit code. */
export async function runNsp(
  args: readonly string[],
  settings: Settings,
  signals: Pick<Signals, "levelsOf">,
): Promise<number> {
  const { values, positionals } = parse(args);
  if (values.help) {
    process.stdout.write(NSP_HELP);
    return 0;
  }
  if (!values.insecure && !settings.isNspInsecure)
    throw new CommandError("mTLS is not in this version: say --insecure (or NSM_NSP_INSECURE=true) for plain text");
  const [verb, what, ...more] = positionals;
  if (more.length > 0) throw new UsageError(`unexpected argument ${more[0]}`);
  if (verb === undefined) return await serve(values, settings, signals);
  const address = addressOf("--address", values.address ?? settings.nspService);
  using query = new NspQuery({ address, security: "plain-text", isPatient: false });
  try {
    return await ask(query, verb, what, values, settings);
  } catch (error) {
    throw explain(error, address, values);
  }
}

/** A failed call as people understand it. */
function explain(error: unknown, address: string, { timeout }: Values): Error {
  const { status = "", details = "" } = error instanceof RpcError ? error : {};
  if (error instanceof NoAnswer || status === "DEADLINE_EXCEEDED")
    return new CommandError(`no answer from ${address} in ${timeout} s`, { cause: error });
  if (status === "UNAVAILABLE") return new CommandError(`NSP ${address}: ${details}`, { cause: error });
  return error as Error;
}

/** What a client was asked to do. */
async function ask(
  query: NspQuery,
  verb: string,
  what: string | undefined,
  values: Values,
  settings: Settings,
): Promise<number> {
  if (verb === "get" || verb === "watch") return await list(query, verb, what, values);
  if (verb !== "register" && verb !== "unregister")
    throw new UsageError(`unknown command ${verb}; get, watch, register, unregister`);
  if (what !== "target") throw new UsageError(`${verb} ${what ?? ""}: only a target can be registered`);
  const registration = readRegistration(values, settings);
  if (verb === "register" && !values.frontend) checkTarget(registration);
  const deadlineMs = timeoutMsOf(values);
  if (verb === "unregister") await query.unregister(registration, deadlineMs);
  else await register(query, registration, deadlineMs, values, settings);
  return 0;
}

async function serve(values: Values, { logLevel }: Settings, signals: Pick<Signals, "levelsOf">): Promise<number> {
  if (values.config === undefined) throw new UsageError("--config FILE is needed");
  outliveReader();
  const log = createLog(logLevel, process.stdout);
  signals.levelsOf(log);
  const { database } = values;
  const listen = values.listen.map((address) => addressOf("--listen", address));
  const server = await startEmbeddedNsp({ path: values.config, listen, database, log });
  if (server.addresses.length === 0) {
    await server.close();
    throw new CommandError("nothing to listen on: nsp.listen in the file, or --listen ADDRESS");
  }
  log.info("NSP serves", { addresses: server.addresses });
  process.on("SIGHUP", server.reload);
  await untilEnd();
  await server.close();
  log.info("end");
  return 0;
}

async function list(query: NspQuery, verb: "get" | "watch", what: string | undefined, values: Values): Promise<number> {
  const kind = KINDS.find((known): known is Kind => known === what);
  if (kind === undefined) throw new UsageError(`${verb} ${what ?? ""}: one of ${KINDS.join(", ")} is needed`);
  const ending = new AbortController();
  let isAnswered = false;
  const late = setTimeout(() => ending.abort(), timeoutMsOf(values));
  if (verb === "watch") {
    void untilEnd().then(() => process.exit(0));
    endWhenReaderGoes();
  }
  for await (const rows of query.watch(kind, toFilter(values), ending.signal)) {
    clearTimeout(late);
    const text = values.json ? `${JSON.stringify(rows, null, verb === "get" ? 2 : 0)}\n` : formatRows(kind, rows);
    process.stdout.write(isAnswered && !values.json ? `\n${text}` : text);
    isAnswered = true;
    if (verb === "get") break;
  }
  if (!isAnswered) throw new NoAnswer();
  return 0;
}

async function register(
  query: NspQuery,
  registration: Registration,
  deadlineMs: number,
  values: Values,
  { nspService }: Settings,
): Promise<void> {
  const address = addressOf("--address", values.address ?? nspService);
  const refreshMs = secondsOf("--refresh", values.refresh);
  const announce = async () => {
    await query.register(registration, deadlineMs);
    if (values.enable) await query.register(registration, deadlineMs);
  };
  await announce();
  for (const doubt of await findDoubts(query, registration, deadlineMs)) process.stderr.write(`warning: ${doubt}\n`);
  if (!values.keep) return;
  const ending = new AbortController();
  void untilEnd().then(() => ending.abort());
  await refresh(announce, refreshMs, ending.signal, (error) => explain(error, address, values).message);
  await query.unregister(registration, deadlineMs);
}

/** Repeats a registration until `signal`; one that fails is told, and the next one may succeed. */
async function refresh(
  announce: () => Promise<void>,
  everyMs: number,
  signal: AbortSignal,
  explained: (error: unknown) => string,
): Promise<void> {
  let told = "";
  const tell = (fault: string) => {
    if (fault !== told)
      process.stderr.write(
        fault === "" ? "registered again\n" : `warning: the registration was not repeated: ${fault}\n`,
      );
    told = fault;
  };
  for (;;) {
    await delay(everyMs, undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    await announce().then(
      () => tell(""),
      (error: unknown) => tell(explained(error)),
    );
  }
}

/** @throws {UsageError} no load balancer would take it */
function checkTarget({ ips, context }: Registration): void {
  try {
    checkRegistration(context["identifier"] ?? "", ips);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const option = error.field === "identifier" ? "--identifier" : "--ip";
    throw new UsageError(`${option} ${error.value}: ${error.rule}`);
  }
}

const timeoutMsOf = ({ timeout }: Values) => secondsOf("--timeout", timeout);

/** @throws {UsageError} `text` is no address of a server */
function addressOf(option: string, text: string): string {
  try {
    return toServerAddress(text);
  } catch (error) {
    if (error instanceof ValueError) throw new UsageError(`${option} ${text}: ${error.message}`);
    throw error;
  }
}

/** In ms. @throws {UsageError} */
function secondsOf(option: string, text: string): number {
  const ms = /^[0-9]+(?:\.[0-9]+)?$/.test(text) ? Number(text) * 1000 : 0;
  if (ms >= 1 && ms <= MAX_TIMER_MS) return ms;
  throw new UsageError(`${option} ${text}: seconds are needed, 0.001..${Math.floor(MAX_TIMER_MS / 1000)}`);
}

function toFilter({ trench = "", conduit = "", stream = "", frontend }: Values): QueryFilter {
  return { trench, conduit, stream, type: frontend ? "frontend" : "default" };
}

function readRegistration(values: Values, { trenchName, conduitName }: Settings): Registration {
  const { ip, identifier, stream, frontend, enable } = values;
  if (ip.length === 0) throw new UsageError("--ip ADDRESS is needed");
  if (identifier === undefined) throw new UsageError("--identifier is needed");
  if (stream === undefined && !frontend) throw new UsageError("--stream NAME is needed");
  const filter = toFilter({ ...values, trench: values.trench ?? trenchName, conduit: values.conduit ?? conduitName });
  return { ...filter, ips: ip, context: { identifier }, isEnabled: enable };
}

function untilEnd(): Promise<void> {
  return new Promise((resolve) => {
    for (const name of ["SIGTERM", "SIGINT", "SIGQUIT"] as const) process.once(name, () => resolve());
  });
}
