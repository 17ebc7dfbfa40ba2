import { attr, attributes, be16, be32, message, struct, u8, type ValueOf } from "#bytes";

/** `struct nfgenmsg`, include/uapi/linux/netfilter/nfnetlink.h (v6.18); res_id is the queue's number. */
const header = struct("nfgenmsg", { family: u8, version: u8, resourceId: be16 });

/** `struct nfqnl_msg_config_cmd` and `…_params`, include/uapi/linux/netfilter/nfnetlink_queue.h (v6.18). */
const command = struct("nfqnl_msg_config_cmd", { command: u8, pad: u8, protocolFamily: be16 });
const parameters = struct("nfqnl_msg_config_params", { copyRange: be32, copyMode: u8 });

/** `NFQA_CFG_*`, same file. */
const configAttributes = attributes("NFQA_CFG", {
  command: attr(1, command),
  parameters: attr(2, parameters),
  maxPackets: attr(3, be32),
  mask: attr(4, be32),
  flags: attr(5, be32),
});

/** NFQNL_MSG_CONFIG. */
export const configMessage = message(header, configAttributes);
export type ConfigMessage = ValueOf<typeof configMessage>;
