// For callers
export { type QueueOptions, QueueSocket } from "./config.js";
export { PacketBatch } from "./packet-batch.js";
export { VerdictBuffer } from "./verdict-buffer.js";
