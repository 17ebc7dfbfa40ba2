import { advice, type Check, fault, ok, unknown } from "./doctor-check.js";

/** What a kernel has unless somebody changed it. */
const DEFAULTS = { gc_thresh2: 512, gc_thresh3: 1_024 } as const;

/**
 * Whether the kernel's neighbor table has room for every target. It is one for all network namespaces of the machine, and
 * its sysctls are seen in the first one only: a pod has to ask its host. Beyond gc_thresh3 a new neighbor is refused, and
 * packets to it are lost; beyond gc_thresh2 entries that are five seconds old may go, and their neighbors are asked anew
 * (neigh_forced_gc, net/core/neighbour.c, v6.18).
 * @param read the text of a sysctl, or null
 */
export function checkNeighborTables(
  addresses: readonly string[],
  read: (path: string) => string | null,
): readonly Check[] {
  return ([4, 6] as const).flatMap((family) => {
    const targets = new Set(addresses.filter((address) => address.includes(":") === (family === 6))).size;
    return targets === 0 ? [] : [checkTable(family, targets, read)];
  });
}

function checkTable(family: 4 | 6, targets: number, read: (path: string) => string | null): Check {
  const what = `neighbor table, IPv${family}`;
  const name = (key: keyof typeof DEFAULTS) => `net.ipv${family}.neigh.default.${key}`;
  const at = (key: keyof typeof DEFAULTS) => read(`/proc/sys/${name(key).replaceAll(".", "/")}`);
  const room = 4 * 2 ** Math.ceil(Math.log2(targets));
  const mend = `on the host: sysctl -w ${name("gc_thresh3")}=${room} ${name("gc_thresh2")}=${room / 2}`;
  const [most, comfortable] = [at("gc_thresh3"), at("gc_thresh2")];
  const count = `${targets} targets`;
  if (most === null || comfortable === null) {
    if (targets <= DEFAULTS.gc_thresh2 / 2) return ok(what, `${count}; any kernel has room for them`);
    return unknown(
      what,
      `${count}, and the host's limit is not seen from here; ${DEFAULTS.gc_thresh3} unless set`,
      mend,
    );
  }
  const found = `${count}, at most ${most} neighbors on this machine (gc_thresh3), ${comfortable} kept (gc_thresh2)`;
  if (targets >= Number(most)) return fault(what, `${found}: packets to some are lost`, mend);
  return targets > Number(comfortable)
    ? advice(what, `${found}: some are asked anew all the time`, mend)
    : ok(what, found);
}
