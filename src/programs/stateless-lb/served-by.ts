import { StartError } from "./failure.js";
import type { PublicServicesOptions } from "./public-services.js";
import type { Settings } from "./settings.js";
import { toListenAddress } from "./values.js";

/**
 * What is served, and where.
 * @param isAlone started with `--config`
 * @throws {StartError} plain text was not asked for
 */
export function servedBy(
  settings: Settings,
  env: NodeJS.ProcessEnv,
  isAlone: boolean,
): Pick<PublicServicesOptions, "healthAddress" | "availabilityAddress" | "metricsPort"> {
  // Alone several instances may run on a machine, so there only what is asked for by name is served.
  const address = (name: string, url: string) => (isAlone && env[name] === undefined ? "" : toListenAddress(url));
  const availabilityAddress = address("NSM_SOCKET", settings.socket);
  if (availabilityAddress !== "" && !settings.isSocketInsecure) {
    throw new StartError(
      'mTLS on NSM_SOCKET is not in this version: set NSM_SOCKET_INSECURE=true for plain text, or NSM_SOCKET="" to serve nothing',
    );
  }
  return {
    healthAddress: address("NSM_HEALTH_SOCKET", settings.healthSocket),
    availabilityAddress,
    metricsPort: settings.isMetricsEnabled ? settings.metricsPort : null,
  };
}
