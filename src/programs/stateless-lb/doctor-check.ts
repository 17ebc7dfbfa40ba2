/** What a look at one thing came to. */
export type Check = {
  /** What was looked at. */
  readonly what: string;
  /** `fault`: packets are lost or nothing works; `advice`: works, but not well; `unknown`: could not be seen. */
  readonly verdict: "ok" | "advice" | "fault" | "unknown";
  readonly found: string;
  /** How it can be mended; empty when nothing has to be. */
  readonly mend: string;
};

export const ok = (what: string, found: string): Check => ({ what, verdict: "ok", found, mend: "" });
export const advice = (what: string, found: string, mend: string): Check => ({ what, verdict: "advice", found, mend });
export const fault = (what: string, found: string, mend: string): Check => ({ what, verdict: "fault", found, mend });
export const unknown = (what: string, found: string, mend: string): Check => ({
  what,
  verdict: "unknown",
  found,
  mend,
});
