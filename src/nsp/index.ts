// For callers
// For tests and tools
export { type ConfigurationFile, ConfigurationFileError, loadConfigurationFile, parseConfiguration } from "./file.js";
export { startNspServer } from "./server.js";
export { NspStore } from "./store.js";
export { watchConfiguration } from "./watch.js";
export { watchConfigurationFile } from "./watch-file.js";
