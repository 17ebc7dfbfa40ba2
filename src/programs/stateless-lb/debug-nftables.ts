import { describeExpression, type Element, type ListedChain, NftConnection } from "#netlink/nftables";
import { orNull } from "./debug-system.js";
import { addressText } from "./reachability.js";

/** Our tables, and those that the reference makes; an older run may have left some. */
const TABLES = ["meridio-nfqlb", "meridio-metrics", "meridio-defrag", "meridio-nat"];

/** Contents of our nftables tables; null: the kernel does not tell, which needs CAP_NET_ADMIN. */
export function readNftables(): readonly object[] | null {
  return orNull(() => {
    using nft = new NftConnection();
    const chains = nft.chains();
    return TABLES.flatMap((table) =>
      readTable(
        nft,
        table,
        chains.filter((chain) => chain.table === table),
      ),
    );
  });
}

function readTable(nft: NftConnection, table: string, chains: readonly ListedChain[]): readonly object[] {
  const rules = nft.rules(table);
  const sets = nft.sets(table);
  if (rules === null || sets === null) return [];
  const ofChain = (name: string) => rules.filter(({ chain }) => chain === name);
  return [
    {
      family: "inet",
      name: table,
      chains: chains.map(({ chain, hook, isAccepting }) => ({
        name: chain,
        rules: ofChain(chain).map(({ comment, expressions }) => ({
          comment,
          expressions: expressions.map((one) => ({ name: one.name, ...describeExpression(one) })),
        })),
        hook,
        policy: hook === null ? null : isAccepting ? "accept" : "drop",
      })),
      sets: sets.map(({ set }) => ({ name: set, elements: nft.elements(table, set).map(elementText) })),
    },
  ];
}

/** An address (where an interval ends: the first one behind it), or a mark and where it jumps. */
function elementText({ key, isEnd, jump }: Element): string {
  if (jump !== undefined) return `${new DataView(key.buffer, key.byteOffset).getUint32(0, true)} : jump ${jump}`;
  return isEnd === true ? `end ${addressText(key)}` : addressText(key);
}
