import { logVerbosity, setLogVerbosity } from "@grpc/grpc-js";

/** Keeps the library from writing to standard error on its own account. What it would say also comes as errors. */
export function silenceLibrary(): void {
  setLogVerbosity(logVerbosity.NONE);
}
