// For callers
export { type QueueOptions, QueueSocket } from "./config.js";
export { PacketBatch } from "./packet-batch.js";
export { parseQueueStates, type QueueState, QueueStateReader, readQueueStates } from "./state.js";
export { dropUpTo, VerdictBuffer } from "./verdict-buffer.js";
export { WakeUp } from "./wake-up.js";
