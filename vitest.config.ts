import { defineConfig } from "vitest/config";

// Two projects: `unit` needs nothing; `netns` enters namespaces of its own (so: forks, one process per file, one file
// at a time, because packet tests share two cores with their own traffic).
export default defineConfig({
  test: {
    reporters: ["default", "./scripts/closing-line.mjs"],
    pool: "forks",
    testTimeout: 20_000,
    projects: [
      { extends: true, test: { name: "unit", include: ["src/**/*.test.ts", "test/{compliance,fuzz}/**/*.test.ts"] } },
      {
        extends: true,
        test: {
          name: "netns",
          include: ["test/netns/**/*.test.ts", "test/e2e/**/*.test.ts"],
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
