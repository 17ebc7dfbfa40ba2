// For callers
export type { Changes, ListChanges } from "./changes.js";
export { checkRegistration } from "./convert.js";
export { openTargetDatabase, type TargetDatabase } from "./database.js";
export { type ConfigurationFile, ConfigurationFileError, loadConfigurationFile } from "./file.js";
export { type FollowOptions, followConfiguration, type NspUpdate } from "./follow.js";
export { configurationOf } from "./from-file.js";
export { KINDS, type Kind, NspQuery, type QueryFilter, type Registration, type Row } from "./query.js";
export { formatRefusal, type Refusal } from "./refusal.js";
export { startNspServer } from "./server.js";
export { NspStore } from "./store.js";
export { fileSignature, watchConfigurationFile } from "./watch-file.js";
