// Makes the bytes of test/vectors/netlink: runs ip, nft and libnetfilter_queue under strace in a namespace of its own and
// prints one JSON object per message. The `value` of a vector is checked against the command by hand. Needs root, strace,
// and for the queue messages python3 and libnetfilter_queue.so.1 (LD_LIBRARY_PATH will do).
// Usage: node scripts/netlink-vectors.mjs > /tmp/vectors.json
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = mkdtempSync(join(tmpdir(), "netlink-vectors-"));
const kernel = execFileSync("uname", ["-r"], { encoding: "utf8" }).trim();

/** @param {string} command */
const sh = (command) => execFileSync("sh", ["-ec", command], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

/**
 * Buffers of sent or received messages in a trace.
 * @param {string} trace @param {RegExp} call
 */
function buffersOf(trace, call) {
  /** @type {Buffer[]} */
  const buffers = [];
  let isWanted = false;
  let hex = "";
  const finish = () => {
    if (hex !== "") buffers.push(Buffer.from(hex, "hex"));
    hex = "";
  };
  for (const line of trace.split("\n")) {
    const row = /^ \| [0-9a-f]+ {2}(.{49})/.exec(line)?.[1];
    if (row !== undefined) {
      if (isWanted) hex += row.replace(/\s/g, "");
      continue;
    }
    finish();
    if (!line.startsWith(" *")) isWanted = call.test(line);
  }
  finish();
  return buffers;
}

/** The netlink messages of a datagram. @param {Buffer} bytes */
function messagesOf(bytes) {
  const messages = [];
  for (let at = 0; at + 16 <= bytes.length; at += (bytes.readUInt32LE(at) + 3) & ~3) {
    const length = bytes.readUInt32LE(at);
    if (length < 16) break;
    messages.push({ type: bytes.readUInt16LE(at + 4), body: bytes.subarray(at + 16, at + length) });
  }
  return messages;
}

/** @type {object[]} */
const vectors = [];
/**
 * Runs a command under strace and keeps its messages of those types.
 * @param {string} kind @param {string} tool @param {string} command @param {number[]} types
 * @param {"request" | "from-kernel"} direction @param {string} [told] what to call the command
 * @param {boolean} [canBeRefused] a kernel without the feature says no; the request counts
 */
function capture(kind, tool, command, types, direction, told = command, canBeRefused = false) {
  const file = join(folder, "trace");
  const calls = "trace=sendmsg,sendto,recvmsg,recvfrom,recv";
  const options = ["-e", calls, "-e", "write=3,4", "-e", "read=3,4", "-xx", "-o", file];
  const { status, stderr } = spawnSync("strace", [...options, "sh", "-c", `exec ${command}`], { encoding: "utf8" });
  if (status !== 0 && !canBeRefused) throw new Error(`${command}: ${stderr}`);
  const call = direction === "request" ? /^send/ : /^recv/;
  const messages = buffersOf(readFileSync(file, "latin1"), call).flatMap(messagesOf);
  const found = messages.filter(({ type }) => types.includes(type));
  if (found.length === 0) throw new Error(`${command}: no message of type ${types}`);
  for (const [i, { type, body }] of found.entries()) {
    const name = found.length === 1 ? told : `${told}, message ${i + 1}`;
    vectors.push({ kind, name, made: tool, kernel, direction, type, hex: body.toString("hex") });
  }
}

if (process.argv[2] !== "inside") {
  const inside = ["-n", process.execPath, fileURLToPath(import.meta.url), "inside"];
  process.exit(spawnSync("unshare", inside, { stdio: "inherit" }).status ?? 1);
}

const IP = `iproute2 ${/iproute2-([0-9.]+)/.exec(sh("ip -V"))?.[1]}`;
const NFT = `nftables ${/v([0-9.]+)/.exec(sh("nft --version"))?.[1]}`;
sh(`ip link set lo up
  ip link add v0 address 02:00:00:00:00:01 type veth peer name v1 address 02:00:00:00:00:02
  ip link add v2 address 02:00:00:00:00:03 mtu 9000 type veth peer name v3
  ip link set v0 up; ip link set v1 up; ip link set v2 up
  ip addr add 10.1.0.1/16 dev v0; ip addr add fd00::1/64 dev v0 nodad`);
/** @param {string} command @param {string} kind @param {number} type */
const asks = (kind, command, type) => capture(kind, IP, command, [type], "request");
/** @param {string} command @param {string} kind @param {number} type */
const tells = (kind, command, type) => capture(kind, IP, command, [type], "from-kernel");

for (const rule of [
  "priority 20 fwmark 5001 lookup 5001 protocol 90",
  "priority 95 nop protocol 90",
  "priority 2 fwmark 0x1380/0xffffffc0 goto 95 protocol 90",
  "priority 3 goto 95 protocol 90",
  "priority 200 not from 10.0.0.0/8 to 192.0.2.0/24 iif v0 lookup main suppress_prefixlength 0",
  "priority 201 uidrange 1000-2000 ipproto tcp dport 80-90 oif v1 blackhole",
]) {
  asks("rule", `ip rule add ${rule}`, 32);
}
asks("rule", "ip -6 rule add priority 20 fwmark 5001 lookup 77 protocol 90", 32);
asks("rule", "ip rule show", 34);
tells("rule", "ip rule show", 32);
tells("rule", "ip -6 rule show", 32);
asks("rule", "ip rule del priority 20 fwmark 5001 lookup 5001 protocol 90", 33);

for (const route of [
  "replace default via 10.1.0.9 table 5001 proto 90",
  "add 198.51.100.0/24 table 5001 proto 90 nexthop via 10.1.0.9 weight 2 nexthop via 10.1.0.10 dev v0 weight 1",
  "add blackhole 203.0.113.0/24 table 5001 proto 90 metric 7",
  "add unreachable default metric 4278198272 table 5001 proto 90",
  "add 192.0.2.0/24 dev v0 src 10.1.0.1 table 5001 proto 90",
  "add 192.0.2.128/25 via inet6 fd00::9 dev v0 table 5001 proto 90",
]) {
  asks("route", `ip route ${route}`, 24);
}
for (const route of [
  "replace default via fd00::9 table 5001 proto 90",
  "add 2001:db8::/32 table 5001 proto 90 nexthop via fd00::9 nexthop via fd00::a weight 3",
  "add blackhole 2001:db8:1::/48 table 5001 proto 90",
]) {
  asks("route", `ip -6 route ${route}`, 24);
}
asks("route", "ip route show table 5001 proto 90", 26);
tells("route", "ip route show table 5001", 24);
tells("route", "ip -6 route show table 5001", 24);
// The rules above that jump over this priority go first.
sh("ip rule del priority 2; ip rule del priority 3");
sh("ip rule add priority 20 fwmark 5001 lookup 5001; ip -6 rule add priority 19 fwmark 5001 lookup 5001");
for (const command of [
  "ip route get fibmatch 198.18.0.1 mark 5001",
  "ip -6 route get fibmatch 2001:db8:2::1 mark 5001",
]) {
  asks("route", command, 26);
  capture("route", IP, command, [24], "from-kernel", `${command}, answer`);
}
asks("route", "ip route del default via 10.1.0.9 table 5001 proto 90", 25);

asks("link", "ip link show", 18);
tells("link", "ip link show", 16);
asks("address", "ip addr add 192.0.2.1/24 dev v0 label v0:x", 20);
asks("address", "ip addr add 192.0.2.9 peer 192.0.2.10/31 dev v0", 20);
asks("address", "ip addr show", 22);
tells("address", "ip addr show", 20);
asks("address", "ip addr del 192.0.2.1/24 dev v0", 21);

for (const neighbor of [
  "add 10.1.0.9 lladdr 02:00:00:00:00:09 nud permanent dev v0 protocol 90",
  "replace 10.1.0.9 lladdr 02:00:00:00:00:0a nud stale dev v0",
  "change 10.1.0.9 nud probe dev v0",
  "replace 10.1.0.10 dev v0 use",
  "add 10.1.0.11 dev v0 nud failed",
]) {
  asks("neighbor", `ip neigh ${neighbor}`, 28);
}
asks("neighbor", "ip neigh add fd00::9 lladdr 02:00:00:00:00:09 nud reachable router dev v0", 28);
asks("neighbor", "ip neigh show dev v0", 30);
tells("neighbor", "ip neigh show", 28);
asks("neighbor", "ip neigh del 10.1.0.9 dev v0", 29);

/** NFNL_SUBSYS_NFTABLES << 8 and the message. @param {number} message */
const nft = (message) => (10 << 8) | message;
/** @param {string} kind @param {string} command @param {number} message */
const nftAsks = (kind, command, message) => capture(kind, NFT, command, [nft(message)], "request");
nftAsks("nft-table", "nft 'add table inet t'", 0);
nftAsks("nft-set", "nft 'add set inet t ipv4-vips { type ipv4_addr; flags interval; }'", 9);
nftAsks("nft-set", "nft 'add set inet t ipv6-vips { type ipv6_addr; flags interval; }'", 9);
nftAsks("nft-set", "nft 'add map inet t fwmark-verdict { type mark : verdict; }'", 9);
nftAsks("nft-chain", "nft 'add chain inet t nfqlb { type filter hook prerouting priority -5; policy accept; }'", 3);
nftAsks("nft-chain", "nft 'add chain inet t fwmark-5001'", 3);
nftAsks("nft-setelem", "nft 'add element inet t ipv4-vips { 10.0.0.0/31, 255.255.255.255 }'", 12);
nftAsks("nft-setelem", "nft 'add element inet t ipv6-vips { 2001:db8::/64 }'", 12);
nftAsks("nft-setelem", "nft 'add element inet t fwmark-verdict { 5001 : jump fwmark-5001 }'", 12);
nftAsks("nft-rule", "nft 'add rule inet t fwmark-5001 counter comment \"a target\"'", 6);
nftAsks("nft-rule", "nft 'add rule inet t nfqlb ip daddr @ipv4-vips counter drop'", 6);
nftAsks("nft-rule", "nft 'add rule inet t nfqlb meta l4proto ipv6-icmp ip6 daddr @ipv6-vips counter accept'", 6);
nftAsks("nft-rule", "nft 'add rule inet t nfqlb meta mark != 0 meta mark vmap @fwmark-verdict'", 6);
for (const statement of ["queue num 0-3 fanout", "queue num 5"]) {
  const command = `nft 'add rule inet t nfqlb ${statement}'`;
  capture("nft-rule", NFT, command, [nft(6)], "request", command, true);
}
const XT = `iptables ${/v([0-9.]+)/.exec(sh("iptables-nft --version"))?.[1]} (nf_tables)`;
const xt = "iptables-nft -t mangle -A PREROUTING -d 10.0.0.1/32 -j NFQUEUE --queue-balance 0:3 --queue-cpu-fanout";
capture("nft-rule", XT, xt, [nft(6)], "request");
for (const [kind, message] of Object.entries({
  "nft-table": 0,
  "nft-chain": 3,
  "nft-rule": 6,
  "nft-set": 9,
  "nft-setelem": 12,
})) {
  capture(kind, NFT, "nft list ruleset", [nft(message)], "from-kernel");
}
nftAsks("nft-setelem", "nft 'delete element inet t ipv4-vips { 255.255.255.255 }'", 14);
nftAsks("nft-rule", "nft 'flush chain inet t fwmark-5001'", 8);
nftAsks("nft-chain", "nft 'delete chain inet t nfqlb'", 5);
nftAsks("nft-table", "nft 'delete table inet t'", 2);

// Port NAT, reassembly, the path-MTU source rewrite: payload writes with their checksums, connection tracking, wildcards.
nftAsks("nft-table", "nft 'add table inet u'", 0);
nftAsks("nft-set", "nft 'add set inet u v4 { type ipv4_addr; flags interval; }'", 9);
nftAsks("nft-chain", "nft 'add chain inet u snat-local { type route hook output priority -300; policy accept; }'", 3);
nftAsks("nft-chain", "nft 'add chain inet u pre { type filter hook prerouting priority 100; policy drop; }'", 3);
nftAsks("nft-chain", "nft 'add chain inet u pre { policy accept; }'", 3);
nftAsks("nft-chain", "nft 'rename chain inet u pre behind'", 3);
sh("nft 'rename chain inet u behind pre'");
for (const rule of [
  "pre ip daddr @v4 udp dport 80 udp dport set 8080 counter notrack",
  "pre ip daddr @v4 tcp dport 80 tcp dport set 8080 counter notrack",
  "pre ip saddr != @v4 sctp sport 8080 sctp sport set 80",
  'pre iifname "load-balan*" notrack',
  "pre ct state untracked accept",
  "pre icmp type >= 3 icmp type != 8-10 icmp type <= 12 @th,112,16 & 0x1fff == 0 @th,224,16 set 8080",
  "snat-local ip saddr set 192.0.2.1 meta mark set 0",
  "snat-local ip6 saddr set 2001:db8::1",
]) {
  nftAsks("nft-rule", `nft 'add rule inet u ${rule}'`, 6);
}
nftAsks("nft-generation", "nft list table inet u", 16);
for (const [kind, message] of Object.entries({ "nft-chain": 3, "nft-rule": 6, "nft-generation": 15 })) {
  capture(kind, NFT, "nft list table inet u", [nft(message)], "from-kernel");
}
nftAsks("nft-set", "nft 'add set inet u spare { type ipv6_addr; flags interval; }'", 9);
nftAsks("nft-set", "nft 'delete set inet u spare'", 11);

const python = `
import ctypes
q = ctypes.CDLL("libnetfilter_queue.so.1")
q.nfq_open.restype = ctypes.c_void_p
q.nfq_create_queue.restype = ctypes.c_void_p
h = ctypes.c_void_p(q.nfq_open())
handler = ctypes.c_void_p(q.nfq_create_queue(h, 7, None, None))
assert q.nfq_set_queue_maxlen(handler, 2048) >= 0
assert q.nfq_set_mode(handler, 2, 128) >= 0
assert q.nfq_set_queue_flags(handler, 4, 4) >= 0
q.nfq_destroy_queue(handler)
`;
const told = "nfq_create_queue(7), maxlen 2048, mode NFQNL_COPY_PACKET 128, flags NFQA_CFG_F_GSO, nfq_destroy_queue";
const config = [(3 << 8) | 2];
capture("queue-config", "libnetfilter_queue 1.0.5", `/usr/bin/python3 -c '${python}'`, config, "request", told);
rmSync(folder, { recursive: true });
console.log(JSON.stringify(vectors, null, 2));
