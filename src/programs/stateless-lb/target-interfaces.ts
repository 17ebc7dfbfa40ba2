import type { Settings } from "./settings.js";

/** So many characters of the service's name begin the names of its interfaces. */
const INTERFACE_PREFIX_LENGTH = 10;

/** How names of interfaces to targets begin; null: nothing says so. */
export function targetInterfaces({
  interfacePrefix,
  serviceName,
}: Pick<Settings, "interfacePrefix" | "serviceName">): string | null {
  return interfacePrefix || serviceName.slice(0, INTERFACE_PREFIX_LENGTH) || null;
}
