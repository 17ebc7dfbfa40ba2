import { type ChildProcess, spawn } from "node:child_process";
import { createInterface, type Interface } from "node:readline";
import type { Host } from "./namespace.js";

/** A helper program inside a host: one JSON command per line in, one JSON line out. */
export class Agent {
  readonly #child: ChildProcess;
  readonly #lines: Interface;
  readonly #waiting: ((answer: Record<string, unknown>) => void)[] = [];

  private constructor(host: Host, file: string, args: readonly string[]) {
    const command = ["-t", String(host.pid), "-n", process.execPath, file, ...args];
    this.#child = spawn("nsenter", command, { stdio: ["pipe", "pipe", "inherit"] });
    this.#lines = createInterface({ input: this.#child.stdout! });
    this.#lines.on("line", (line) => this.#waiting.shift()?.(JSON.parse(line) as Record<string, unknown>));
    this.#child.on("exit", () => {
      for (const wake of this.#waiting.splice(0)) wake({ error: `${file} ended` });
    });
  }

  /** Starts the program and waits until it is ready. */
  static async start(host: Host, file: string, ...args: string[]): Promise<Agent> {
    const agent = new Agent(host, file, args);
    const answer = await agent.#next();
    if (answer["ready"] !== true) throw new Error(`${file} did not start`);
    return agent;
  }

  /** @throws {Error} the command failed inside */
  async ask<T>(command: object): Promise<T> {
    if (this.#child.exitCode !== null) throw new Error("the agent has ended");
    const answer = this.#next();
    this.#child.stdin!.write(`${JSON.stringify(command)}\n`);
    const result = await answer;
    if (typeof result["error"] === "string") throw new Error(result["error"]);
    return result as T;
  }

  /** Sends a command that has no answer. */
  tell(command: object): void {
    this.#child.stdin!.write(`${JSON.stringify(command)}\n`);
  }

  #next(): Promise<Record<string, unknown>> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  close(): void {
    this.#child.stdin!.end();
  }
}
