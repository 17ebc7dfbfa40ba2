// For callers
export { populate } from "./populate.js";
export { effectiveSize, MAX_SIZE, primeBelow } from "./prime.js";
// For tests and tools
export { GlibcRandom } from "./random.js";
export { type Rows, rows } from "./rows.js";
