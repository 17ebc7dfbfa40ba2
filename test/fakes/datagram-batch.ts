import { type DatagramBatch, type DatagramSocket, RING_EMPTY, RING_OVERRUN, SysError } from "#sys";

const SLOT_BYTES = 64 * 1024;

/** What a socket receives, some datagrams at a time. As with recvmmsg(2), an error behind some is told by the next call. */
export function batchOf(socket: Pick<DatagramSocket, "receive">, slots = 3): DatagramBatch {
  const u8 = new Uint8Array(slots * SLOT_BYTES);
  const lengths: number[] = [];
  let error: unknown = null;
  const receiveOne = (slot: number) => {
    try {
      return socket.receive(u8.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES));
    } catch (thrown) {
      error = thrown;
      return -1;
    }
  };
  return {
    u8,
    slotBytes: SLOT_BYTES,
    start: (slot) => slot * SLOT_BYTES,
    length: (slot) => lengths[slot]!,
    receive: () => {
      let count = 0;
      while (error === null && count < slots) {
        const length = receiveOne(count);
        if (length < 0) break;
        lengths[count++] = length;
      }
      if (count > 0 || error === null) return count === 0 ? RING_EMPTY : count;
      const thrown = error;
      error = null;
      if (thrown instanceof SysError && thrown.errno === "ENOBUFS") return RING_OVERRUN;
      throw thrown;
    },
  };
}
