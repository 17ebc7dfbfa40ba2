// For callers
export { Decider, type DeciderOptions } from "./decide.js";
export { FragmentTable } from "./fragments.js";
export { OUTCOME, OUTCOME_TEXT } from "./outcome.js";
export { StreamTables } from "./stream-tables.js";
export { TableView } from "./table-view.js";
export { serveQueue, type WorkerReady, type WorkerSettings } from "./worker.js";
