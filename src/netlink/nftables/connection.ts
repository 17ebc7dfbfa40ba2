import { concat } from "#bytes";
import type { DatagramSocket } from "#sys";
import { NetlinkConnection, type Request } from "../connection.js";
import { NetlinkError, UnsupportedError } from "../error.js";
import { NLM_F_APPEND, NLM_F_CREATE } from "../message.js";
import { NETLINK_NETFILTER, openNetlink, subscribe } from "../open.js";
import {
  chainAttributes,
  elementListAttributes,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
  NFT_MSG_DELCHAIN,
  NFT_MSG_DELRULE,
  NFT_MSG_DELSETELEM,
  NFT_MSG_DELTABLE,
  NFT_MSG_GETRULE,
  NFT_MSG_GETSET,
  NFT_MSG_GETSETELEM,
  NFT_MSG_NEWCHAIN,
  NFT_MSG_NEWRULE,
  NFT_MSG_NEWSET,
  NFT_MSG_NEWSETELEM,
  NFT_MSG_NEWTABLE,
  nfgenmsg,
  ruleAttributes,
  setAttributes,
  tableAttributes,
} from "./codecs.js";
import { compatQueue, type Expression, nativeQueue } from "./expressions.js";

const NFPROTO_UNSPEC = 0;
const NFPROTO_INET = 1;
const NF_ACCEPT = 1;
const NFT_JUMP = 0xfffffffd; // -3
const NFT_SET_INTERVAL = 0x4;
const NFT_SET_MAP = 0x8;
const NFT_SET_ELEM_INTERVAL_END = 1;
const NFT_DATA_VERDICT = 0xffffff00;
const HOOKS = { prerouting: 0, output: 3, postrouting: 4 } as const;
/** Key types as the nft tool numbers them; it shows sets by them. */
const TYPE_IPV4_ADDR = 7;
const TYPE_IPV6_ADDR = 8;
const TYPE_MARK = 19;
/** Tells the nft tool to show keys in host order: user data of type 0 (NFTNL_UDATA_SET_KEYBYTEORDER), u32 1. */
const HOST_ORDER_KEY = new Uint8Array([0, 4, 1, 0, 0, 0]);
const NFNLGRP_NFTABLES = 7;

/** A change, as data; all tables are of family inet. */
export type NftCommand =
  | { readonly kind: "addTable" | "deleteTable"; readonly table: string }
  | {
      readonly kind: "addChain";
      readonly table: string;
      readonly chain: string;
      readonly hook?: keyof typeof HOOKS;
      readonly priority?: number;
    }
  | { readonly kind: "deleteChain" | "flushChain"; readonly table: string; readonly chain: string }
  | {
      readonly kind: "addRule";
      readonly table: string;
      readonly chain: string;
      readonly expressions: readonly Expression[];
      readonly comment: string;
    }
  | { readonly kind: "addSet"; readonly table: string; readonly set: string; readonly type: SetType }
  | {
      readonly kind: "addElements" | "deleteElements";
      readonly table: string;
      readonly set: string;
      readonly elements: readonly Element[];
    };

/** An interval set of addresses, or a map from marks to verdicts. */
export type SetType = "ipv4Interval" | "ipv6Interval" | "markToVerdict";

/** An element: a bound of an interval (`isEnd`: the first address behind it), or a mark that jumps to a chain. */
export type Element = { readonly key: Uint8Array; readonly isEnd?: boolean; readonly jump?: string };

/** A rule as the kernel lists it. */
export type ListedRule = {
  readonly chain: string;
  readonly comment: string;
  readonly expressions: readonly { readonly name: string; readonly data: Uint8Array }[];
};

/** nf_tables of the network namespace it was opened in; synchronous. */
export class NftConnection implements Disposable {
  readonly #connection: NetlinkConnection;
  readonly #socket: DatagramSocket;

  /** @param socket is closed with the connection */
  constructor(socket: DatagramSocket = openNetlink(NETLINK_NETFILTER)) {
    this.#connection = new NetlinkConnection(socket);
    this.#socket = socket;
  }

  /** Applies all commands or none. @throws {NetlinkError} that names the command the kernel refused */
  transaction(commands: readonly NftCommand[]): void {
    if (commands.length === 0) return;
    const mark = (type: number) => ({
      type,
      flags: 0,
      body: nfgenmsg.encode({ family: NFPROTO_UNSPEC, version: 0, resourceId: NFNL_SUBSYS_NFTABLES }, ""),
    });
    this.#connection.batch(mark(NFNL_MSG_BATCH_BEGIN), commands.map(toRequest), mark(NFNL_MSG_BATCH_END));
  }

  /** The rules of a table, or null when there is no such table. */
  rules(table: string): readonly ListedRule[] | null {
    const messages = this.#dump("NFT_MSG_GETRULE", NFT_MSG_GETRULE, ruleAttributes.encode({ table }, ""));
    if (messages === null) return null;
    return messages.map((body) => {
      const rule = ruleAttributes.decode(body, "nfgenmsg");
      return {
        chain: rule.chain ?? "",
        comment: readComment(rule.userData),
        expressions: (rule.expressions ?? []).map(({ name, data }) => ({
          name: name ?? "",
          data: data ?? new Uint8Array(0),
        })),
      };
    });
  }

  /** Names of a table's sets and maps, or null when there is no such table. */
  sets(table: string): readonly string[] | null {
    const messages = this.#dump("NFT_MSG_GETSET", NFT_MSG_GETSET, setAttributes.encode({ table }, ""));
    return messages?.map((body) => setAttributes.decode(body, "nfgenmsg").name ?? "") ?? null;
  }

  /** The elements of a set or map, in the kernel's order. @throws {NetlinkError} ENOENT */
  elements(table: string, set: string): readonly Element[] {
    const body = elementListAttributes.encode({ table, set }, "");
    const messages = this.#dump(`NFT_MSG_GETSETELEM ${table} ${set}`, NFT_MSG_GETSETELEM, body) ?? [];
    return messages.flatMap((message) =>
      (elementListAttributes.decode(message, "nfgenmsg").elements ?? []).map(({ key, data, flags }) => ({
        key: key?.value ?? new Uint8Array(0),
        isEnd: ((flags ?? 0) & NFT_SET_ELEM_INTERVAL_END) !== 0,
        ...(data?.verdict?.chain === undefined ? {} : { jump: data.verdict.chain }),
      })),
    );
  }

  /**
   * How this kernel can queue packets: tried in a transaction that always fails at its last command, so nothing stays.
   * The chain has no hook on purpose: when a hook is taken away, as that failure would do, the kernel drops every packet
   * that waits in any NFQUEUE of the namespace (nf_queue_nf_hook_drop, net/netfilter/nf_queue.c, v6.18).
   * @throws {UnsupportedError} neither way
   */
  probeQueue(): "native" | "compat" {
    const range = { first: 0, last: 0, isFanout: false };
    const table = `probe-${process.pid}`;
    const isAccepted = (expression: Expression) => {
      const chain = { table, chain: "probe" };
      try {
        this.transaction([
          { kind: "addTable", table },
          { kind: "addChain", ...chain },
          { kind: "addRule", ...chain, expressions: [expression], comment: "" },
          { kind: "deleteChain", table, chain: "there-is-no-such-chain" },
        ]);
        return true;
      } catch (error) {
        if (!(error instanceof NetlinkError)) throw error;
        if (error.operation.includes("there-is-no-such-chain")) return true;
        if (error.errno === "EPERM") throw error;
        return false;
      }
    };
    if (isAccepted(nativeQueue(range))) return "native";
    if (isAccepted(compatQueue(range))) return "compat";
    const advice = "it needs CONFIG_NFT_QUEUE, or CONFIG_NFT_COMPAT and CONFIG_NETFILTER_XT_TARGET_NFQUEUE";
    throw new UnsupportedError("nftables queue statement", advice);
  }

  #dump(operation: string, message: number, attributes: Uint8Array): readonly Uint8Array[] | null {
    const body = concat([nfgenmsg.encode({ family: NFPROTO_INET, version: 0, resourceId: 0 }, ""), attributes]);
    try {
      const messages = this.#connection.dump(operation, (NFNL_SUBSYS_NFTABLES << 8) | message, body);
      return messages.map((one) => one.body.subarray(nfgenmsg.size));
    } catch (error) {
      if (error instanceof NetlinkError && error.errno === "ENOENT") return null;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

/** Calls `onChange` when any nftables object changed, or changes may have been missed. */
export function watchNftables(onChange: () => void): () => void {
  return subscribe(NETLINK_NETFILTER, [NFNLGRP_NFTABLES], onChange, onChange);
}

function toRequest(command: NftCommand): Request {
  const request = (message: number, flags: number, attributes: Uint8Array, what: string): Request => ({
    type: (NFNL_SUBSYS_NFTABLES << 8) | message,
    flags,
    body: concat([nfgenmsg.encode({ family: NFPROTO_INET, version: 0, resourceId: 0 }, ""), attributes]),
    operation: `nftables ${command.kind} ${command.table}${what}`,
  });
  const { table } = command;
  switch (command.kind) {
    case "addTable":
      return request(NFT_MSG_NEWTABLE, NLM_F_CREATE, tableAttributes.encode({ name: table, flags: 0 }, ""), "");
    case "deleteTable":
      return request(NFT_MSG_DELTABLE, 0, tableAttributes.encode({ name: table }, ""), "");
    case "addChain": {
      const { chain, hook, priority } = command;
      const base =
        hook === undefined
          ? {}
          : { hook: { hook: HOOKS[hook], priority: priority ?? 0 }, policy: NF_ACCEPT, type: "filter" };
      return request(
        NFT_MSG_NEWCHAIN,
        NLM_F_CREATE,
        chainAttributes.encode({ table, name: chain, ...base }, ""),
        ` ${chain}`,
      );
    }
    case "deleteChain":
      return request(
        NFT_MSG_DELCHAIN,
        0,
        chainAttributes.encode({ table, name: command.chain }, ""),
        ` ${command.chain}`,
      );
    case "flushChain":
      return request(
        NFT_MSG_DELRULE,
        0,
        ruleAttributes.encode({ table, chain: command.chain }, ""),
        ` ${command.chain}`,
      );
    case "addRule": {
      const { chain, expressions, comment } = command;
      const fields = { table, chain, expressions, ...(comment === "" ? {} : { userData: writeComment(comment) }) };
      return request(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, ruleAttributes.encode(fields, ""), ` ${chain}`);
    }
    case "addSet":
      return request(
        NFT_MSG_NEWSET,
        NLM_F_CREATE,
        setAttributes.encode({ table, name: command.set, id: 1, ...setFields(command.type) }, ""),
        ` ${command.set}`,
      );
    default: {
      const { set, elements, kind } = command;
      const fields = {
        table,
        set,
        elements: elements.map(({ key, isEnd, jump }) => ({
          key: { value: key },
          ...(jump === undefined ? {} : { data: { verdict: { code: NFT_JUMP, chain: jump } } }),
          ...(isEnd === true ? { flags: NFT_SET_ELEM_INTERVAL_END } : {}),
        })),
      };
      const message = kind === "addElements" ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM;
      return request(
        message,
        kind === "addElements" ? NLM_F_CREATE : 0,
        elementListAttributes.encode(fields, ""),
        ` ${set}`,
      );
    }
  }
}

function setFields(type: SetType) {
  if (type === "markToVerdict") {
    const key = { keyType: TYPE_MARK, keyLength: 4, userData: HOST_ORDER_KEY };
    return { flags: NFT_SET_MAP, ...key, dataType: NFT_DATA_VERDICT, dataLength: 0 };
  }
  const is4 = type === "ipv4Interval";
  return { flags: NFT_SET_INTERVAL, keyType: is4 ? TYPE_IPV4_ADDR : TYPE_IPV6_ADDR, keyLength: is4 ? 4 : 16 };
}

/** Comment as the nft tool keeps it: user data of type 0 (NFTNL_UDATA_RULE_COMMENT), length, text with a zero byte. */
function writeComment(comment: string): Uint8Array {
  const bytes = new TextEncoder().encode(`${comment}\0`);
  return concat([new Uint8Array([0, bytes.length]), bytes]);
}

function readComment(userData: Uint8Array | undefined): string {
  if (userData === undefined || userData.length < 2 || userData[0] !== 0) return "";
  return new TextDecoder().decode(userData.subarray(2, 2 + userData[1]!)).replace(/\0.*$/, "");
}
