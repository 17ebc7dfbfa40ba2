import { addressOf, libc } from "./libc.js";
import { AF_INET, closeDescriptor, openSocket, SOCK_DGRAM } from "./socket.js";

/** include/uapi/linux/sockios.h and ethtool.h (v6.18). */
const SIOCETHTOOL = 0x8946;
const ETHTOOL_GFLAGS = 0x25;
const ETH_FLAG_LRO = 1 << 15;
const IFNAMSIZ = 16;
/** `struct ifreq` (LP64, 40 bytes): ifr_name @0, ifr_data @16, a pointer to `struct ethtool_value` { u32 cmd, u32 data }. */
const IFREQ_BYTES = 40;

/**
 * Whether a device puts received packets together in a way that forwarding must not see (large receive offload). False
 * also for a device that does not tell.
 */
export function hasLargeReceiveOffload(name: string): boolean {
  const value = new Uint32Array([ETHTOOL_GFLAGS, 0]);
  const request = new Uint8Array(IFREQ_BYTES);
  request.set(new TextEncoder().encode(name).subarray(0, IFNAMSIZ - 1));
  new DataView(request.buffer).setBigUint64(IFNAMSIZ, BigInt(addressOf(value)), true);
  const fd = openSocket(AF_INET, SOCK_DGRAM, 0);
  const isTold = libc.ioctl(fd, SIOCETHTOOL, request) === 0;
  closeDescriptor(fd);
  return isTold && (value[1]! & ETH_FLAG_LRO) !== 0;
}
