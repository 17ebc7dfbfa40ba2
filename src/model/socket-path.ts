/** Longest path or abstract name of a unix socket: `sun_path` has 108 bytes, one of them a zero. node cuts what is longer. */
export const MAX_UNIX_NAME_BYTES = 107;

/** Why an address `unix:/path` (or `unix:///path`) cannot be one of a socket, or null; also of one that is no unix address. */
export function socketPathFault(address: string): string | null {
  const path = /^unix:(?:\/\/)?(.+)$/s.exec(address)?.[1] ?? "";
  const bytes = Buffer.byteLength(path);
  return bytes > MAX_UNIX_NAME_BYTES
    ? `the path of a unix socket has at most ${MAX_UNIX_NAME_BYTES} bytes, this one ${bytes}`
    : null;
}
