// For callers

export { exchangeNames, renameUnlessTaken } from "./exchange.js";
export { bindInet, connectInet, sendInet } from "./inet.js";
export { errnoName, SysError, sleepMicroseconds, watchReadable } from "./libc.js";
export { isRangeLocked, tryLockRange, unlockRange } from "./lock.js";
export { MappedFile, type Memory } from "./memory.js";
export { releaseFreedMemory, releaseProgramPages } from "./memory-release.js";
export { CLONE_NEWNET, CLONE_NEWNS, enterNamespace, inNetworkNamespaceOf, unshare } from "./namespace.js";
export { hasLargeReceiveOffload } from "./offload.js";
export { exitAtOnce, watchProcess } from "./process.js";
export {
  type DatagramBatch,
  DatagramRing,
  ReceiveRing,
  RING_EMPTY,
  RING_OVERRUN,
  SendBlock,
  SendRing,
} from "./ring.js";
export {
  AF_INET,
  AF_INET6,
  AF_NETLINK,
  AF_PACKET,
  AF_UNIX,
  closeDescriptor,
  type DatagramSocket,
  getSocketOption,
  MSG_DONTWAIT,
  MSG_WAITFORONE,
  NETLINK_EXT_ACK,
  NETLINK_GET_STRICT_CHK,
  NETLINK_NO_ENOBUFS,
  NetlinkSocket,
  openSocket,
  raiseReceiveBuffer,
  raiseSendBuffer,
  SO_RCVBUF,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOCK_STREAM,
  SOL_NETLINK,
  SOL_SOCKET,
  setReceiveTimeout,
  setSocketOption,
} from "./socket.js";
export { Stopwatch } from "./stopwatch.js";
export { interfaceIndex, interfaceMtu, openTun } from "./tun.js";
export { connectAbstract, listenAbstract, listenerOf, peerCredentials } from "./unix.js";
