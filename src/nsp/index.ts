// For callers
export type { Changes, ListChanges } from "./changes.js";
export { type ConfigurationFile, ConfigurationFileError, loadConfigurationFile } from "./file.js";
export { type FollowOptions, followConfiguration, type NspUpdate } from "./follow.js";
export { formatRefusal, type Refusal } from "./refusal.js";
export { startNspServer } from "./server.js";
export { NspStore } from "./store.js";
export { watchConfigurationFile } from "./watch-file.js";
