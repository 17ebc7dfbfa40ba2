import { hashAddresses, hashKey, Packet, parse } from "#packet";
import { type Command, CommandError, numberOption, regionName } from "./command.js";
import { openTable } from "./table-commands.js";
import { parseEndpoint, parsePortProtocol, tuplePacket } from "./tuple.js";

const UDP = 17;

/** `nfqlb fwmark`: hash, positions and fwmark of a tuple, as one JSON object in upstream's spelling. */
export const FWMARK_COMMAND: Command = {
  name: "fwmark",
  summary: "Print the hash of a tuple and, with --shm, the fwmark it gets",
  options: [
    { name: "shm", kind: "value", help: "Name of the table (shared memory)" },
    { name: "proto", kind: "value", help: "tcp, udp or sctp; without it only the addresses are hashed" },
    { name: "src", kind: "value", isRequired: true, help: "Source, a.b.c.d:port or [v6]:port" },
    { name: "dst", kind: "value", isRequired: true, help: "Destination, a.b.c.d:port or [v6]:port" },
    { name: "hash_mode", kind: "value", default: "1", help: "1 = SCTP on its ports only, else on the whole tuple" },
  ],
  run(options, io) {
    const hashMode = numberOption(options, "hash_mode", 1, 0, 65_535);
    const name = options.values.has("shm") ? regionName(options, "shm", "") : null;
    const proto = options.values.get("proto");
    const protocol = proto === undefined ? null : parsePortProtocol(proto);
    const tuple = tuplePacket(
      protocol ?? UDP,
      parseEndpoint(options.values.get("src")!),
      parseEndpoint(options.values.get("dst")!),
    );
    const packet = new Packet();
    const rc = parse(tuple.bytes, 0, tuple.bytes.length, tuple.etherType, 0, packet);
    if (rc < 0) throw new CommandError(`tuple cannot be hashed (${rc})`);
    const hash = protocol === null ? hashAddresses(packet) : hashKey(packet, hashMode);
    if (name === null) {
      io.out(`{ "hash": ${hash} }\n`);
      return 0;
    }
    const table = openTable(io, name);
    const lookupIndex = hash % table.size;
    const activeIndex = table.lookup[lookupIndex]!;
    const fwmark = activeIndex < 0 ? -1 : table.active[activeIndex]!;
    io.out(`{ "hash": ${hash}, "lookupindex": ${lookupIndex}, "activeindex": ${activeIndex}, "fwmark": ${fwmark} }\n`);
    return 0;
  },
};
