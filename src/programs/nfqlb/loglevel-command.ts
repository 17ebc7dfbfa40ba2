import { TraceFile } from "#tables";
import { type Command, shmFolder, wholeNumber } from "./command.js";
import { TRACE } from "./names.js";
import { LOG_LEVEL } from "./plane-log.js";

/** `nfqlb loglevel`: the level in force; a data plane that runs follows a new one at once. */
export const LOGLEVEL_COMMAND: Command = {
  name: "loglevel",
  summary: "Print the data plane's log level, or set it: 4 warning, 5 notice, 6 info, 7 debug",
  positionals: "[level]",
  options: [],
  run({ positionals }, io) {
    using trace = TraceFile.openOrCreate(shmFolder(io.env), TRACE);
    const [level] = positionals;
    if (level !== undefined) trace.level = wholeNumber("loglevel", level, 0, LOG_LEVEL.debug);
    io.out(`loglevel=${trace.level}\n`);
    return 0;
  },
};
