/** A text for a terminal: names and reasons come from others, and may hold control characters. Line ends stay. */
export function printable(text: string): string {
  return text.replace(/[^\P{Cc}\n]/gu, "?");
}
