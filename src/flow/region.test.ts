import { expect, test } from "vitest";
import { parsePrefix } from "#model";
import { ItemGatherer } from "./prefix-items.js";
import { mappedPart, type PrefixList, prefixList } from "./prefix-list.js";
import { listWithin, nestedSpans, type Region, withSpans } from "./region.js";

const listOf = (text: string) => mappedPart(prefixList(text.split(",").map(parsePrefix)))!;

function itemsOf(lists: readonly PrefixList[]) {
  return new ItemGatherer(new Map()).gather([...lists.keys()], 4, (rule) => lists[rule]!, "any").items;
}

test("a span is the outermost of three prefixes with many rules, and one item stands for it", () => {
  const many = (prefix: string) => [listOf(prefix), listOf(prefix), listOf(prefix)];
  const lists = [
    ...["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24"].flatMap(many), // within each other
    ...["20.0.0.0/8", "20.1.0.0/16", "20.2.0.0/16"].flatMap(many), // two deep
    ...["30.0.0.0/8", "30.1.0.0/16", "30.1.1.0/24"].map(listOf), // of one rule each
  ];
  const items = itemsOf(lists);
  expect(nestedSpans(items, 2)).toEqual([{ from: 0, to: 9 }]);
  expect(nestedSpans(items, 3)).toEqual([]);
  const joined = withSpans(items, nestedSpans(items, 2));
  expect([joined.count, joined.rules[0], joined.bits[0], joined.rules[1]]).toEqual([13, -1, 104, items.rules[9]]);
  expect(joined.common[1]).toBe(items.common[9]);
});

test("a span has the many rules for a third of its items at least", () => {
  const nested = ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24"].flatMap((prefix) => [listOf(prefix), listOf(prefix)]);
  const others = Array.from({ length: 13 }, (_, i) => listOf(`10.2.${i}.1/32`));
  expect(nestedSpans(itemsOf([...nested, ...others.slice(0, 12)]), 1)).toEqual([{ from: 0, to: 18 }]);
  expect(nestedSpans(itemsOf([...nested, ...others]), 1)).toEqual([]);
});

test("of a rule's prefixes those within a region are left, or null where one contains all of it", () => {
  const [word] = listOf("10.16.0.0/12").words.slice(3);
  const region: Region = { id: 0, dimension: 0, words: [0, 0, 0xffff, word!], bits: 108, known: new Map() };
  const within = (text: string) => listWithin(listOf(text), region);
  const bitsOf = (text: string) => [...(within(text)?.bits ?? [])];
  expect(bitsOf("10.15.255.255/32,10.16.0.0/32,10.17.0.0/16,10.31.255.255/32,10.32.0.0/16")).toEqual([128, 112, 128]);
  expect(bitsOf("10.16.0.0/13,10.24.0.0/13")).toEqual([109, 109]);
  expect(bitsOf("10.0.0.0/13,10.32.0.0/13")).toEqual([]);
  for (const around of ["10.16.0.0/12", "10.0.0.0/8", "9.0.0.0/8,10.0.0.0/11,11.0.0.0/8"])
    expect(within(around)).toBeNull();
  expect(listWithin(null, region)).toBeNull();
});
