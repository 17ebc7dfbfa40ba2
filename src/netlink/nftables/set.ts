import type { ValueOf } from "#bytes";
import type { elementListAttributes, setAttributes } from "./codecs.js";

const NFT_JUMP = 0xfffffffd; // -3
const NFT_SET_ANONYMOUS = 0x1;
const NFT_SET_INTERVAL = 0x4;
const NFT_SET_MAP = 0x8;
const NFT_SET_ELEM_INTERVAL_END = 1;
const NFT_SET_ELEM_CATCHALL = 2;
const NFT_DATA_VERDICT = 0xffffff00;
/** Key types as the nft tool numbers them; it shows sets by them. */
const TYPE_IPV4_ADDR = 7;
const TYPE_IPV6_ADDR = 8;
const TYPE_MARK = 19;
/** Tells the nft tool to show keys in host order: user data of type 0 (NFTNL_UDATA_SET_KEYBYTEORDER), u32 1. */
const HOST_ORDER_KEY = new Uint8Array([0, 4, 1, 0, 0, 0]);

/** An interval set of addresses, or a map from marks to verdicts. */
export type SetType = "ipv4Interval" | "ipv6Interval" | "markToVerdict";

/**
 * An element: a bound of an interval (`isEnd`: the first address behind it), or a mark that jumps to a chain. `isCatchAll`:
 * it stands for every key that has no element, and has none itself; we make no such one.
 */
export type Element = {
  readonly key: Uint8Array;
  readonly isEnd?: boolean;
  readonly jump?: string;
  readonly isCatchAll?: true;
};

/** A set or map as the kernel lists it; `type` null: of another kind than ours. */
export type ListedSet = { readonly set: string; readonly type: SetType | null };

const SHAPES = {
  ipv4Interval: { flags: NFT_SET_INTERVAL, keyType: TYPE_IPV4_ADDR, keyLength: 4 },
  ipv6Interval: { flags: NFT_SET_INTERVAL, keyType: TYPE_IPV6_ADDR, keyLength: 16 },
  markToVerdict: { flags: NFT_SET_MAP, keyType: TYPE_MARK, keyLength: 4 },
} as const satisfies Record<SetType, object>;

/** The attributes of a set that is to be made. */
export function setFields(type: SetType) {
  const shape = SHAPES[type];
  if (type !== "markToVerdict") return shape;
  return { ...shape, userData: HOST_ORDER_KEY, dataType: NFT_DATA_VERDICT, dataLength: 0 };
}

/** null: a set that the kernel made for a rule (`{ 1, 2 }`), which comes and goes with it. */
export function readSet({ name, flags, keyType, keyLength }: ValueOf<typeof setAttributes>): ListedSet | null {
  const bits = flags ?? 0;
  if ((bits & NFT_SET_ANONYMOUS) !== 0) return null;
  const known = Object.entries(SHAPES).find(
    ([, shape]) => shape.flags === bits && shape.keyType === keyType && shape.keyLength === keyLength,
  );
  return { set: name ?? "", type: (known?.[0] as SetType | undefined) ?? null };
}

/** The attributes of elements. */
export function elementFields(elements: readonly Element[]) {
  return elements.map(({ key, isEnd, jump, isCatchAll }) => {
    if (isCatchAll === true) return { flags: NFT_SET_ELEM_CATCHALL };
    return {
      key: { value: key },
      ...(jump === undefined ? {} : { data: { verdict: { code: NFT_JUMP, chain: jump } } }),
      ...(isEnd === true ? { flags: NFT_SET_ELEM_INTERVAL_END } : {}),
    };
  });
}

/** Elements in the kernel's order. */
export function readElements({ elements = [] }: ValueOf<typeof elementListAttributes>): readonly Element[] {
  return elements.map(({ key, data, flags }) => ({
    key: key?.value ?? new Uint8Array(0),
    isEnd: ((flags ?? 0) & NFT_SET_ELEM_INTERVAL_END) !== 0,
    ...(((flags ?? 0) & NFT_SET_ELEM_CATCHALL) !== 0 ? { isCatchAll: true } : {}),
    ...(data?.verdict?.chain === undefined || data.verdict.code !== NFT_JUMP ? {} : { jump: data.verdict.chain }),
  }));
}
