// Thread of one queue: everything it does is in `serveQueue`. A fault ends the thread; its starter sees the error.
import { parentPort, workerData } from "node:worker_threads";
import { serveQueue, type WorkerSettings } from "#dataplane";

const { settings, stop } = workerData as { settings: WorkerSettings; stop: Int32Array };
serveQueue(settings, stop, () => parentPort?.postMessage(null));
