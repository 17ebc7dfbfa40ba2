// For callers

// For tests and tools
export { LoopCounters } from "./counters.js";
export { Decider, type DeciderOptions } from "./decide.js";
export { createFragmentMemory, type FragmentMemory, FragmentSweeper } from "./fragment-memory.js";
export { type Fragments, soloFragments } from "./fragments.js";
export { IdleRelease } from "./idle-release.js";
export { OUTCOME, OUTCOME_TEXT } from "./outcome.js";
export { QuotedFragments } from "./quoted-fragments.js";
export { RuleView } from "./rule-view.js";
export { runLoop } from "./run.js";
export { StreamTables } from "./stream-tables.js";
export { TableView } from "./table-view.js";
export { TraceTap } from "./trace-tap.js";
export { serveQueue, type TunDevice, type WorkerSettings } from "./worker.js";
