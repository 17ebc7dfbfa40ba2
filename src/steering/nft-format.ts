import { formatAddress } from "#model";
import type { Element, NftCommand, SetType } from "#netlink/nftables";

const SET_TEXTS = {
  ipv4Interval: "{ type ipv4_addr; flags interval; }",
  ipv6Interval: "{ type ipv6_addr; flags interval; }",
  markToVerdict: "{ type mark : verdict; }",
} as const satisfies Record<SetType, string>;

/** The nft command for a change, without `nft`. @param ruleText what a rule says, in nft's words */
export function formatNftCommand(command: NftCommand, ruleText = ""): string {
  const { table } = command;
  switch (command.kind) {
    case "addTable":
      return `add table inet ${table}`;
    case "deleteTable":
      return `delete table inet ${table}`;
    case "addChain": {
      const { hook } = command;
      const base =
        hook == null ? "" : ` { type ${hook.type} hook ${hook.hook} priority ${hook.priority}; policy accept; }`;
      return `add chain inet ${table} ${command.chain}${base}`;
    }
    case "acceptByDefault":
      return `add chain inet ${table} ${command.chain} { policy accept; }`;
    case "renameChain":
      return `rename chain inet ${table} ${command.chain} ${command.newName}`;
    case "deleteChain":
      return `delete chain inet ${table} ${command.chain}`;
    case "flushChain":
      return `flush chain inet ${table} ${command.chain}`;
    case "addRule":
      return `add rule inet ${table} ${command.chain} ${ruleText} comment "${command.comment}"`;
    case "addSet":
      return `add ${command.type === "markToVerdict" ? "map" : "set"} inet ${table} ${command.set} ${SET_TEXTS[command.type]}`;
    case "deleteSet":
      return `delete set inet ${table} ${command.set}`;
    case "addElements":
      return `add element inet ${table} ${command.set} { ${formatElements(command.elements)} }`;
    case "deleteElements":
      return `delete element inet ${table} ${command.set} { ${formatElements(command.elements)} }`;
  }
}

/** Intervals come as pairs of bounds; one without an end reaches the highest address. */
function formatElements(elements: readonly Element[]): string {
  const parts: string[] = [];
  for (const [i, { key, isEnd, jump, isCatchAll }] of elements.entries()) {
    if (isCatchAll === true) parts.push("*");
    else if (jump !== undefined) parts.push(`${readMark(key)} : jump ${jump}`);
    else if (isEnd !== true) {
      const next = elements[i + 1];
      const last = next?.isEnd === true ? before(next.key) : new Uint8Array(key.length).fill(0xff);
      const [from, to] = [formatGateway(key), formatGateway(last)];
      parts.push(from === to ? from : `${from}-${to}`);
    }
  }
  return parts.join(", ");
}

/** A mark as nftables keys it: host order. */
export function markKey(fwmark: number): Uint8Array {
  return new Uint8Array(new Uint32Array([fwmark]).buffer);
}

/** The mark of such a key. */
export function readMark(key: Uint8Array): number {
  return (key[0]! | (key[1]! << 8) | (key[2]! << 16) | (key[3]! << 24)) >>> 0;
}

/** The address in front of one that is not all zeroes. */
function before(address: Uint8Array): Uint8Array {
  const result = address.slice();
  for (let i = result.length - 1; i >= 0; i--) {
    result[i] = (result[i]! - 1) & 0xff;
    if (result[i] !== 0xff) break;
  }
  return result;
}

/** Text of an address as the kernel gives it, 4 or 16 bytes. */
export function formatGateway(gateway: Uint8Array): string {
  return gateway.length === 4 ? gateway.join(".") : formatAddress(gateway);
}
