import { errnoName } from "#sys";

/** The kernel refused a request. `code` is always `ERR_NETLINK`. */
export class NetlinkError extends Error {
  readonly code = "ERR_NETLINK";
  readonly operation: string;
  /** Symbolic name, for example `EEXIST`. */
  readonly errno: string;
  /** The kernel's own explanation, or "". */
  readonly kernelText: string;
  /** Offset in the request of the attribute that is to blame, or -1. */
  readonly offset: number;

  constructor(operation: string, errno: number | string, kernelText = "", offset = -1) {
    const name = typeof errno === "number" ? errnoName(errno) : errno;
    super(`${operation}: ${name}${kernelText === "" ? "" : ` (${kernelText})`}`);
    this.name = "NetlinkError";
    this.operation = operation;
    this.errno = name;
    this.kernelText = kernelText;
    this.offset = offset;
  }
}

/** The kernel lacks something we need. `code` is always `ERR_UNSUPPORTED`. */
export class UnsupportedError extends Error {
  readonly code = "ERR_UNSUPPORTED";
  readonly feature: string;

  /** @param advice which kernel options give it */
  constructor(feature: string, advice: string) {
    super(`${feature}: not supported by this kernel: ${advice}`);
    this.name = "UnsupportedError";
    this.feature = feature;
  }
}
