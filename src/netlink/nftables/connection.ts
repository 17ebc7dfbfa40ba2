import { concat } from "#bytes";
import type { DatagramSocket } from "#sys";
import { DUMP_ATTEMPTS, NetlinkConnection, type Room } from "../connection.js";
import { NetlinkError } from "../error.js";
import { eachMessage, MESSAGE_HEADER_BYTES, type Message, typeAt as messageTypeAt } from "../message.js";
import { NETLINK_NETFILTER, openNetlink, subscribe } from "../open.js";
import { decodeChain, type ListedChain } from "./chain.js";
import {
  elementListAttributes,
  generationAttributes,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
  NFT_MSG_GETCHAIN,
  NFT_MSG_GETGEN,
  NFT_MSG_GETRULE,
  NFT_MSG_GETSET,
  NFT_MSG_GETSETELEM,
  NFT_MSG_GETTABLE,
  NFT_MSG_NEWGEN,
  NFT_MSG_NEWRULE,
  nfgenmsg,
  ruleAttributes,
  setAttributes,
  tableAttributes,
} from "./codecs.js";
import { NFPROTO_INET, type NftCommand, toRequests } from "./command.js";
import { type RuleCounter, readRuleCounter } from "./counter-list.js";
import { decodeRule, type ListedRule } from "./rule.js";
import { type Element, type ListedSet, readElements, readSet } from "./set.js";

const NFPROTO_UNSPEC = 0;
const NFNLGRP_NFTABLES = 7;
const NEW_RULE = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWRULE;

/** nf_tables of the network namespace it was opened in; synchronous. */
export class NftConnection implements Disposable {
  readonly #connection: NetlinkConnection;
  readonly #socket: DatagramSocket;
  /** Of the last listing, per table: rules by their bytes. Decoding thousands of them is what a reading costs. */
  readonly #rules = new Map<string, ReadonlyMap<string, ListedRule>>();

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
    this.#connection.batch(mark(NFNL_MSG_BATCH_BEGIN), commands.flatMap(toRequests), mark(NFNL_MSG_BATCH_END));
  }

  /** Number of the last change of anything in nf_tables, u32: while it stays, so does everything that can be listed. */
  generation(): number {
    const body = nfgenmsg.encode({ family: NFPROTO_UNSPEC, version: 0, resourceId: 0 }, "");
    const answer = this.#connection.get("NFT_MSG_GETGEN", (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN, body);
    return generationAttributes.decode(answer.subarray(nfgenmsg.size), "nfgenmsg").id ?? 0;
  }

  /** The tables of family inet by name, with their NFT_TABLE_F_*: 1 dormant, 2 and 4 somebody's own. */
  tableFlags(): ReadonlyMap<string, number> {
    const messages = this.#dump("NFT_MSG_GETTABLE", NFT_MSG_GETTABLE, new Uint8Array(0)) ?? [];
    const tables = messages.map((body) => tableAttributes.decode(body, "nfgenmsg"));
    return new Map(tables.map(({ name = "", flags = 0 }) => [name, flags]));
  }

  /** The chains of all tables of family inet. */
  chains(): readonly ListedChain[] {
    return (this.#dump("NFT_MSG_GETCHAIN", NFT_MSG_GETCHAIN, new Uint8Array(0)) ?? []).map(decodeChain);
  }

  /** The rules of a table, or null when there is no such table. One listed before, and as it was, is the same object. */
  rules(table: string): readonly ListedRule[] | null {
    const messages = this.#dump("NFT_MSG_GETRULE", NFT_MSG_GETRULE, ruleAttributes.encode({ table }, ""));
    const known = this.#rules.get(table);
    const listed = new Map(
      messages?.map((body) => {
        const bytes = Buffer.from(body.buffer, body.byteOffset, body.length).toString("latin1"); // the handle makes it unique
        return [bytes, known?.get(bytes) ?? decodeRule(body)];
      }),
    );
    this.#rules.set(table, listed);
    return messages === null ? null : [...listed.values()];
  }

  /**
   * Tells the counters of a table's rules, one per rule that has any; none when there is no such table. A rule comes again
   * when the kernel calls the dump inconsistent and it is asked for again.
   */
  counters(table: string, onCounter: (counter: RuleCounter) => void): void {
    const [type, body] = dumpRequest(NFT_MSG_GETRULE, ruleAttributes.encode({ table }, ""));
    const visit = ({ bytes, words }: Room, length: number) => {
      const datagram = Buffer.from(bytes.buffer, bytes.byteOffset, length);
      eachMessage(words, length, (at, messageLength) => {
        if (messageTypeAt(words, at) !== NEW_RULE) return;
        const counter = readRuleCounter(datagram, at + MESSAGE_HEADER_BYTES + nfgenmsg.size, at + messageLength);
        if (counter !== null) onCounter(counter);
      });
    };
    for (let attempt = 0; attempt < DUMP_ATTEMPTS; attempt++) {
      const isConsistent = orNone(() => this.#connection.walk("NFT_MSG_GETRULE", type, body, visit)) ?? true;
      if (isConsistent) return;
    }
    throw new NetlinkError("NFT_MSG_GETRULE", "EINTR", `dump interrupted ${DUMP_ATTEMPTS} times`);
  }

  /** A table's sets and maps that have a name of their own, or null when there is no such table. */
  sets(table: string): readonly ListedSet[] | null {
    const messages = this.#dump("NFT_MSG_GETSET", NFT_MSG_GETSET, setAttributes.encode({ table }, ""));
    return messages?.flatMap((body) => readSet(setAttributes.decode(body, "nfgenmsg")) ?? []) ?? null;
  }

  /** The elements of a set or map, in the kernel's order; none when there is no such set. */
  elements(table: string, set: string): readonly Element[] {
    const body = elementListAttributes.encode({ table, set }, "");
    const messages = this.#dump(`NFT_MSG_GETSETELEM ${table} ${set}`, NFT_MSG_GETSETELEM, body) ?? [];
    return messages.flatMap((message) => readElements(elementListAttributes.decode(message, "nfgenmsg")));
  }

  #dump(operation: string, message: number, attributes: Uint8Array): readonly Uint8Array[] | null {
    const [type, body] = dumpRequest(message, attributes);
    const messages = orNone(() => this.#connection.dump(operation, type, body));
    return messages?.map((one) => one.body.subarray(nfgenmsg.size)) ?? null;
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

/** Type and body of the request for a dump of objects of family inet. */
function dumpRequest(message: number, attributes: Uint8Array): readonly [type: number, body: Uint8Array] {
  const header = nfgenmsg.encode({ family: NFPROTO_INET, version: 0, resourceId: 0 }, "");
  return [(NFNL_SUBSYS_NFTABLES << 8) | message, concat([header, attributes])];
}

/** null: there is no such table or set. */
function orNone<T>(ask: () => T): T | null {
  try {
    return ask();
  } catch (error) {
    if (error instanceof NetlinkError && error.errno === "ENOENT") return null;
    throw error;
  }
}

/**
 * Calls `onChange` when any nftables object changed, after each transaction, with its generation as in
 * {@link NftConnection.generation}; null: changes may have been missed.
 * @param receiveBufferBytes what may wait while the event loop is busy
 */
export function watchNftables(onChange: (generation: number | null) => void, receiveBufferBytes?: number): () => void {
  const onMessages = (messages: readonly Message[]) => {
    for (const { type, body } of messages) {
      if (type !== ((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWGEN)) continue; // it follows what the transaction changed
      onChange(generationAttributes.decode(body.subarray(nfgenmsg.size), "nfgenmsg").id ?? null);
    }
  };
  return subscribe(NETLINK_NETFILTER, [NFNLGRP_NFTABLES], onMessages, () => onChange(null), receiveBufferBytes);
}
