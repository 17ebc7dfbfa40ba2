// Vitest reporter: lists what was skipped and why, and closes the log with the one line that log readers look for.

/** @typedef {import("vitest/node").TestModule} TestModule */

export default class ClosingLine {
  /** @param {readonly TestModule[]} modules @param {readonly unknown[]} errors */
  onTestRunEnd(modules, errors) {
    let passed = 0;
    let failed = errors.length;
    let skipped = 0;
    for (const module of modules) {
      if (module.state() === "failed" && [...module.children.allTests("failed")].length === 0) failed++;
      for (const test of module.children.allTests()) {
        const result = test.result();
        if (result.state === "passed") passed++;
        else if (result.state === "failed") failed++;
        else {
          skipped++;
          console.log(`skipped: ${test.fullName}${"note" in result && result.note ? ` (${result.note})` : ""}`);
        }
      }
    }
    console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
  }
}
