// Capture files: packets, or packets and then one clear error; where the strict reader takes all, so do we, and the same.
import { type CapturedPacket, readCapture } from "../../../src/programs/nfqlb/capture.js";
import { readCapturePlainly } from "../../oracle/captures.js";
import { captureInput } from "../capture-input.js";
import { differ, type TargetMaker } from "../target.js";

export const capturesTarget: TargetMaker = () => {
  const seen = { whole: 0, refused: 0, "taken although it is wrong": 0, packets: 0 };
  return {
    seen,
    generate: (random) => ({ settings: [], parts: [captureInput(random)] }),
    check({ parts }) {
      const file = parts[0] ?? new Uint8Array(0);
      const got: CapturedPacket[] = [];
      let refusal: string | null = null;
      try {
        for (const packet of readCapture(file)) got.push(packet);
      } catch (error) {
        if ((error as { code?: string }).code !== "ERR_COMMAND") throw error;
        refusal = (error as Error).message;
      }
      if (refusal !== null && !/^(capture file|not a capture file)[^\n]+$/.test(refusal)) return `error: ${refusal}`;
      if (got.some(({ n }, i) => n !== i + 1)) return `packets are numbered ${got.map(({ n }) => n).join()}`;
      const size = got.reduce((sum, { bytes }) => sum + bytes.length, 0);
      if (size > file.length) return `${size} bytes of packets in a file of ${file.length}`;
      const want = readCapturePlainly(file);
      seen.packets += got.length;
      if (want.isWhole) seen.whole++;
      else if (refusal === null) seen["taken although it is wrong"]++;
      else seen.refused++;
      if (want.isWhole && refusal !== null) return `refused: ${refusal}`;
      const packets = got.map(({ etherType, bytes, missing }) => ({
        etherType,
        bytes: Buffer.from(bytes).toString("hex"),
        missing,
      }));
      // What the strict reader saw before the file went wrong is there; we may go on, with less strictness.
      return differ("packets", packets.slice(0, want.packets.length), want.packets);
    },
  };
};
