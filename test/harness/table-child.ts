// The other process of the table tests. Arguments: what to do, folder, name.
import { createHash } from "node:crypto";
import { formatFlowRule } from "#flow";
import { populate, rows } from "#maglev";
import {
  CounterFile,
  createStreamTable,
  RECORD,
  RingWriter,
  readFlows,
  StreamTableReader,
  TraceFile,
  TraceWatcher,
  updateFlows,
  updateStreamTable,
} from "#tables";

const [what = "", folder = "", name = "", parity = "0"] = process.argv.slice(2);
const digest = (lookup: Int32Array) =>
  createHash("sha256")
    .update(new Uint8Array(lookup.buffer, lookup.byteOffset, lookup.byteLength))
    .digest("hex");

const roles: Record<string, () => void> = {
  /** A data plane that has begun, has told nothing of itself, and goes no further. */
  begin: () => {
    CounterFile.create(folder, name, 1, "");
    process.send!("begun");
    process.on("disconnect", () => process.exit(0));
  },
  /** Enters an image and never leaves it. */
  hold: () => {
    const reader = new StreamTableReader(folder, name);
    reader.enter();
    process.send!("holding");
    process.on("message", () => reader.leave());
  },
  /** Checks every image it sees against the table that its active targets must have. */
  check: () => {
    const reader = new StreamTableReader(folder, name);
    const known = new Map<string, string>();
    let seen = 0;
    let wrong = 0;
    let isStopping = false;
    process.send!("checking");
    process.once("message", () => {
      isStopping = true;
    });
    const turn = () => {
      for (let i = 0; i < 50; i++) {
        reader.enter();
        const key = reader.active.map((fwmark) => (fwmark < 0 ? 0 : 1)).join("");
        const found = digest(reader.lookup);
        const active = reader.active.slice();
        reader.leave();
        let want = known.get(key);
        if (want === undefined) {
          const lookup = new Int32Array(reader.size);
          populate(lookup, rows(reader.size, active.length), active);
          want = digest(lookup);
          known.set(key, want);
        }
        seen++;
        if (found !== want) wrong++;
      }
      if (isStopping) {
        process.send!(JSON.stringify({ seen, wrong }));
        process.disconnect();
      } else setImmediate(turn);
    };
    turn();
  },
  /** Updates without end. */
  write: () => {
    process.send!("writing");
    for (let i = 0; ; i++) {
      updateStreamTable(folder, name, (active) => {
        active[i % active.length] = active[i % active.length]! < 0 ? 5000 + i : -1;
      });
    }
  },
  /** Takes every second index, one update each. */
  claim: () => {
    for (let i = Number(parity); i < 97; i += 2) {
      updateStreamTable(folder, name, (active) => {
        active[i] = 5000 + i;
      });
    }
    process.disconnect();
  },
  /** Makes the table anew, over and over, and tells when it is done. */
  replace: () => {
    process.once("message", () => {
      for (let i = 0; i < Number(parity); i++) createStreamTable(folder, name, { size: 97, targets: 4, ownFwmark: 0 });
      process.send!("done");
    });
    process.send!("ready");
  },
  /** Tries to become the data plane of each name that it is told; tells whether it is, and stays so. */
  rival: () => {
    const held: CounterFile[] = [];
    process.on("message", (name: string) => {
      try {
        held.push(CounterFile.create(folder, name, 1, "{}"));
        process.send!("owner");
      } catch (error) {
        process.send!((error as Error).message);
      }
    });
    process.send!("ready");
  },
  /** Is the data plane. */
  own: () => {
    const counters = CounterFile.create(folder, name, 2, '{"x":1}');
    counters.block(0).counters[0] = 1;
    counters.block(1).counters[0] = 2;
    counters.block(1).ruleHits[9] = 7;
    counters.setReady();
    process.send!("owning");
    process.on("message", () => counters[Symbol.dispose]());
  },
  /** Tells the flow rules as it reads them, and deletes the first one. */
  flows: () => {
    const { rules } = readFlows(folder, name);
    updateFlows(
      folder,
      name,
      (present) => present.slice(1),
      () => 0,
    );
    process.send!(JSON.stringify(rules.map(({ rule }) => formatFlowRule(rule, 0))));
    process.disconnect();
  },
  /** Watches until it is killed. */
  watch: () => {
    const watcher = new TraceWatcher(folder, name, Number(parity));
    process.send!("watching");
    setInterval(() => watcher.poll(), 1_000);
  },
  /** Owns a trace and writes records without end, every word of the fields below the same number. */
  trace: () => {
    const file = TraceFile.own(folder, name, 1, 1_024);
    const ring = new RingWriter(file.ring(0));
    process.send!("tracing");
    let n = 0;
    const turn = () => {
      for (let i = 0; i < 2_000; i++, n++) {
        const at = ring.next();
        ring.words[at + RECORD.selection] = 2;
        ring.words[at + RECORD.hash] = n;
        ring.setKey(at, new Uint8Array(40).fill(n & 255));
        ring.setPacket(at, new Uint8Array(256).fill(n & 255), 0, 256);
        ring.words[at + RECORD.length] = n;
        ring.commit();
      }
      setImmediate(turn);
    };
    turn();
  },
};
roles[what]!();
