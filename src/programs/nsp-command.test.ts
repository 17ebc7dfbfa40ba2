import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { afterAll, afterEach, expect, onTestFinished, test, vi } from "vitest";
import { NspStage, storeOf } from "../../test/harness/nsp.js";
import { runNsp } from "./stateless-lb/nsp-command.js";
import { readSettings } from "./stateless-lb/settings.js";

const stage = new NspStage();
afterEach(() => stage.clear());
afterAll(() => stage.remove());

const FILE = `
trench: { name: demo }
conduits: [ { name: load-balancer } ]
vips: [ { name: v4, address: 10.0.0.1/32 } ]
streams: [ { name: web, conduit: load-balancer, max-targets: 10 } ]
flows: [ { name: http, stream: web, protocols: [tcp], vips: [v4] } ]
targets: [ { stream: web, identifier: 1, ips: [172.16.0.11/24] } ]
`;

/** What the command prints on standard error, with what it ends. */
async function run(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  let printed = "";
  const take = vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    printed += String(text);
    return true;
  });
  try {
    return {
      code: await runNsp(args, readSettings({ NSM_NSP_INSECURE: "true", ...env }), { levelsOf: () => {} }),
      printed,
    };
  } finally {
    take.mockRestore();
  }
}

/** Arguments of a registration. */
const register = (address: string, identifier: string, ip: string, ...more: string[]) => {
  const target = ["--identifier", identifier, "--ip", ip, "--stream", "web"];
  return ["register", "target", "--address", address, ...target, ...more];
};

test.each([
  ["bad", "3", "--ip bad: not an IPv4 or IPv6 address"],
  ["172.16.0.13/33", "3", "--ip 172.16.0.13/33: length out of range, 0..32"],
  ["172.16.0.13", "zero", "--identifier zero: a whole number 1..10000 is needed"],
  ["172.16.0.13", "0", "--identifier 0: a whole number 1..10000 is needed"],
])("a target that no load balancer would take is not registered: %s, %s", async (ip, identifier, message) => {
  await expect(run(register("unix:/nowhere", identifier, ip))).rejects.toThrowError(
    expect.objectContaining({ message, code: expect.stringMatching(/^ERR_PARSE_ARGS/) }),
  );
});

test("a registration that will have no effect is told: stream, identifier, a target of the file", async () => {
  const address = stage.address();
  await stage.serve(storeOf(FILE), address);
  const demo = ["--trench", "demo"];
  expect(await run(register(address, "3", "172.16.0.13", ...demo))).toEqual({ code: 0, printed: "" });
  const elsewhere = await run(register(address, "3", "172.16.0.13"));
  expect(elsewhere.printed).toMatch(
    /^warning: the server has no stream web of conduit load-balancer, trench default: .*--trench/,
  );
  const above = await run(register(address, "99", "172.16.0.99", ...demo));
  expect(above.printed).toMatch(/^warning: identifier 99 is above 10, the most of stream web/);
  const taken = await run(register(address, "1", "172.16.0.10", ...demo));
  expect(taken.printed).toMatch(/^warning: the server does not list this target; has its configuration file one/);
});

test("a server that cannot be reached is told at once with what the system says, a silent one after the time-out", async () => {
  const nobody = stage.address();
  const refused = `NSP ${nobody}: connect ENOENT ${nobody.slice("unix:".length)}`;
  await expect(run(["get", "targets", "--address", nobody])).rejects.toThrow(refused);
  await expect(run(register(nobody, "3", "172.16.0.13"))).rejects.toThrow(refused);
  const silent = createServer().listen(0, "127.0.0.1");
  onTestFinished(() => void silent.close());
  await once(silent, "listening");
  const address = `127.0.0.1:${(silent.address() as AddressInfo).port}`;
  const message = `no answer from ${address} in 0.2 s`;
  const target = register(address, "3", "172.16.0.13", "--timeout", "0.2");
  await expect(run(["get", "targets", "--address", address, "--timeout", "0.2"])).rejects.toThrow(message);
  await expect(run(target)).rejects.toThrow(message);
});

test.each([
  [["--timeout", "0"], "--timeout 0: seconds are needed, 0.001..2147483"],
  [["--timeout", "9999999"], "--timeout 9999999: seconds are needed, 0.001..2147483"],
  [["--address", "foo:99999"], "--address foo:99999: unix:/path or host:port, port 1..65535 is needed"],
])("an option that cannot be meant is refused: %s", async (args, message) => {
  const refused = expect.objectContaining({ message: expect.stringContaining(message), code: "ERR_PARSE_ARGS_NSP" });
  await expect(run(["get", "targets", "--address", "unix:/nowhere", ...args])).rejects.toThrowError(refused);
});

test("an address that nobody can listen on is refused before anything is read", async () => {
  await expect(run(["--config", "/nowhere", "--listen", "foo"])).rejects.toThrow(
    "--listen foo: unix:/path or host:port",
  );
});
