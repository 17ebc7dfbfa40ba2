import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ROOT } from "../harness/bundled.js";
import { clientAddress, type Family, VIPS } from "../harness/flows.js";
import { crc32c, icmpError, sctp, sctpInUdp, udp } from "../harness/packets.js";
import { BALANCE, targetRoutes } from "../harness/recipe.js";
import { shell, Wire } from "../harness/wire.js";

const TARGETS = 4;
const FAMILIES = [4, 6] as const;
const SCTP_PORT = 7_000;
const ENCAP_PORT = 9_899;
const ASSOCIATIONS = 24;
/** INIT, and chunks of an association that is up: DATA, SACK, HEARTBEAT. */
const CHUNKS = [{ type: 1 }, { type: 0, tag: 77 }, { type: 3, tag: 77 }, { type: 4, tag: 77 }];
let wire: Wire;

beforeAll(async () => {
  wire = await Wire.open(TARGETS);
  shell(`${targetRoutes(TARGETS)}
    ${BALANCE}
    nfqlb init
    nfqlb activate 101 102 103 104`);
});

afterAll(() => wire.close());

/** Association i on its path from one of the client's addresses. */
const path = (association: number, client: number, family: Family) => ({
  source: clientAddress(client, family),
  destination: VIPS[family],
  sourcePort: 20_000 + association * 13,
  destinationPort: SCTP_PORT,
});

/** Each association's paths: two addresses of a family, and one of the other: SCTP may mix them. */
const paths = (association: number, family: Family) => [
  path(association, 10 + association, family),
  path(association, 300 + association, family),
  path(association, 500 + association, family === 4 ? 6 : 4),
];

/** For each association and each of its paths, the targets that its packets came to; `make` gives the packets of a path. */
async function targetsPerPath(
  family: Family,
  make: (ports: ReturnType<typeof path>) => readonly Uint8Array[],
): Promise<number[][][]> {
  const plan = Array.from({ length: ASSOCIATIONS }, (_, i) => paths(i, family).map(make));
  const packets = plan.flat(2);
  const { targets, outcomes } = await wire.deliver(packets, packets.length);
  expect(outcomes).toEqual({ forwarded: packets.length });
  const rest = [...targets];
  return plan.map((one) => one.map((packetsOfPath) => [...new Set(rest.splice(0, packetsOfPath.length))]));
}

const plain = (ports: ReturnType<typeof path>) => CHUNKS.map((chunk) => sctp(ports, chunk));
const encapsulated = (ports: ReturnType<typeof path>) =>
  CHUNKS.map((chunk, i) => sctpInUdp(ports, [ENCAP_PORT + i, ENCAP_PORT], chunk)); // NAT may change the outer source port

test("the checksum of the packets made here is CRC-32C", () => {
  expect(crc32c(new TextEncoder().encode("123456789"))).toBe(0xe3069283); // the algorithm's published check value
});

test.each(FAMILIES)("hash mode 1, IPv%i: all paths of an association reach one target", async (family) => {
  await wire.serve("lb --hash_mode=1");
  const reached = await targetsPerPath(family, plain);
  for (const onPaths of reached) expect(new Set(onPaths.flat()).size).toBe(1);
  expect(new Set(reached.flat(2)).size).toBe(TARGETS);
});

test.each(FAMILIES)(
  "O9, hash mode 0, IPv%i: a path keeps its target, an association's paths are spread",
  async (family) => {
    await wire.serve("lb --hash_mode=0");
    const reached = await targetsPerPath(family, plain);
    for (const onPath of reached.flat()) expect(onPath).toHaveLength(1);
    expect(reached.filter((onPaths) => new Set(onPaths.flat()).size > 1).length).toBeGreaterThan(ASSOCIATIONS / 2);
    const { source, sourcePort, destination, destinationPort } = path(0, 10, family);
    const end = (address: string, port: number) => (family === 4 ? `${address}:${port}` : `[${address}]:${port}`);
    const nfqlb = ["fwmark", "--shm=nfqlb", "--proto=sctp", "--hash_mode=0"];
    nfqlb.push(`--src=${end(source, sourcePort)}`, `--dst=${end(destination, destinationPort)}`);
    const answer = execFileSync(join(ROOT, "bin", "nfqlb"), nfqlb, { encoding: "utf8" });
    expect(reached[0]![0]).toEqual([(JSON.parse(answer) as { fwmark: number }).fwmark - 101]);
  },
);

test.each(FAMILIES)(
  "lb --sctp_encap, IPv%i: SCTP in UDP goes where the same association goes without UDP",
  async (family) => {
    await wire.serve(`lb --sctp_encap=${ENCAP_PORT}`);
    const inUdp = await targetsPerPath(family, encapsulated);
    for (const onPaths of inUdp) expect(new Set(onPaths.flat()).size).toBe(1);
    expect(await targetsPerPath(family, plain)).toEqual(inUdp);
    // An error about an answer, which has the encapsulation port as its source.
    const errors = Array.from({ length: ASSOCIATIONS }, (_, i) => {
      const { source, sourcePort, destination } = path(i, 10 + i, family);
      const answer = { source: destination, destination: source, sourcePort: SCTP_PORT, destinationPort: sourcePort };
      const quoted = sctpInUdp(answer, [ENCAP_PORT, ENCAP_PORT + 5], { type: 0, tag: 5 });
      const router = { source: clientAddress(700, family), destination };
      return icmpError(router, family === 4 ? 3 : 2, family === 4 ? 4 : 0, 1400, quoted);
    });
    const { targets } = await wire.deliver(errors, errors.length);
    expect(targets).toEqual(inUdp.map((onPaths) => onPaths[0]![0]));
    // Without the encapsulation port it is UDP like any other: by addresses and UDP ports.
    const other = await targetsPerPath(family, (ports) => [sctpInUdp(ports, [ENCAP_PORT, ENCAP_PORT + 1])]);
    expect(other.filter((onPaths) => new Set(onPaths.flat()).size > 1).length).toBeGreaterThan(ASSOCIATIONS / 2);
  },
);

test.each(FAMILIES)(
  "flowlb udpencap, IPv%i: one flow takes SCTP with and without UDP, and nothing else",
  async (family) => {
    await wire.serve("flowlb --hash_mode=1");
    shell(`nfqlb flow-set --name=sctp --target=nfqlb --protocols=sctp --dports=${SCTP_PORT} --udpencap=${ENCAP_PORT} \
    --dsts=${VIPS[4]}/32,${VIPS[6]}/128`);
    const inUdp = await targetsPerPath(family, encapsulated);
    for (const onPaths of inUdp) expect(new Set(onPaths.flat()).size).toBe(1);
    expect(await targetsPerPath(family, plain)).toEqual(inUdp);
    const others = Array.from({ length: 10 }, (_, i) => [
      sctp({ ...path(i, i, family), destinationPort: SCTP_PORT + 1 }),
      sctpInUdp({ ...path(i, i, family), destinationPort: SCTP_PORT + 1 }, [ENCAP_PORT, ENCAP_PORT]),
      udp({ ...path(i, i, family), destinationPort: SCTP_PORT }, [1, 2, 3, 4]),
    ]).flat();
    expect((await wire.deliver(others, 0)).outcomes).toEqual({ noFlow: others.length });
    const counts = JSON.parse(shell("nfqlb flow-list")) as { name: string; matches_count: number }[];
    const packets = ASSOCIATIONS * 3 * CHUNKS.length;
    // The helper counts what came in UDP, the flow what it took: half of that in UDP.
    expect(counts.map(({ name, matches_count }) => [name, matches_count])).toEqual([
      ["#sctp", packets + 10],
      ["sctp", 2 * packets],
    ]);
    shell("nfqlb flow-delete --name=sctp");
  },
);
