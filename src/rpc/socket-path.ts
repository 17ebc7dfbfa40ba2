import { existsSync, lstatSync, unlinkSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import { socketPathFault } from "#model";

/**
 * Makes a path free to listen on: a socket that an earlier process left is removed. Never anything else: neither a file
 * that is no socket, nor a socket that somebody listens on.
 * @throws {Error} that says which of the two it is, or that the path is too long, or that the folder is missing, which the
 *   system would call EACCES
 */
export async function clearSocketPath(path: string): Promise<void> {
  const fault = socketPathFault(`unix:${path}`);
  if (fault !== null) throw new Error(`${path}: ${fault}`);
  if (!existsSync(dirname(path))) throw new Error(`${path}: there is no folder ${dirname(path)}`);
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw new Error(`${path}: is there and is no socket`);
  if (await isListenedOn(path)) throw new Error(`${path}: another process listens there`);
  unlinkSync(path);
}

function isListenedOn(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const settle = (isAlive: boolean) => {
      socket.destroy();
      resolve(isAlive);
    };
    const socket = connect(path, () => settle(true));
    socket.on("error", ({ code }: NodeJS.ErrnoException) => settle(code === "EAGAIN")); // its backlog is full
  });
}
