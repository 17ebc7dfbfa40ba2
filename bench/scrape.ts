// Question: how much CPU does a scrape of the metrics take, of an instance with 100 streams, 1,000 flows and 1,000
// targets? In fresh namespaces; prints one JSON object, times in ms.
import { measureScrapes } from "../test/harness/footprint.js";
import { LargeInstance } from "../test/harness/large-instance.js";
import { enterFreshNamespaces } from "../test/harness/namespace.js";

const SCRAPES = 20;
const [kind = "following", bin = ""] = process.argv.slice(2);

async function main(): Promise<void> {
  enterFreshNamespaces();
  using instance = await LargeInstance.start(bin, kind === "alone" ? "alone" : "following");
  await instance.sendToAllFlows();
  process.stdout.write(JSON.stringify(await measureScrapes(instance.pids.control, instance.metrics, SCRAPES)));
  process.stderr.write(
    instance.output
      .split("\n")
      .filter((l) => l.startsWith("PROF"))
      .join("\n"),
  );
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    console.error(`bench scrape ${kind}: ${error.stack}`);
    process.exit(1);
  },
);
