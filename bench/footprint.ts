// Question: how much memory do control plane and data plane take together with 100 streams, 1,000 flows and 1,000
// targets, and how much CPU while nothing happens, and for a scrape of the metrics? One kind per process, in fresh
// namespaces. Prints one JSON object.
import { measureFootprint, measureScrapes } from "../test/harness/footprint.js";
import { LargeInstance } from "../test/harness/large-instance.js";
import { enterFreshNamespaces } from "../test/harness/namespace.js";

const SECONDS = 30;
const SCRAPES = 20;
const [kind = "following", bin = ""] = process.argv.slice(2);

async function main(): Promise<void> {
  enterFreshNamespaces();
  using instance = await LargeInstance.start(bin, kind === "alone" ? "alone" : "following");
  await instance.sendToAllFlows(); // every queue, rule and table has been used
  const { control, data } = instance.pids;
  const footprint = await measureFootprint(control, data, SECONDS);
  process.stdout.write(JSON.stringify({ ...footprint, ...(await measureScrapes(control, instance.metrics, SCRAPES)) }));
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    console.error(`bench footprint ${kind}: ${error.stack}`);
    process.exit(1);
  },
);
