import type { Settings } from "./settings.js";
import { parseInterfacePrefix } from "./values.js";

/** So many characters of the service's name begin the names of its interfaces. */
const INTERFACE_PREFIX_LENGTH = 10;

/** How names of interfaces to targets begin. @throws {ValueError} no name of an interface begins so */
export function targetInterfaces({
  interfacePrefix,
  serviceName,
}: Pick<Settings, "interfacePrefix" | "serviceName">): string {
  return parseInterfacePrefix(interfacePrefix || Array.from(serviceName).slice(0, INTERFACE_PREFIX_LENGTH).join(""));
}
