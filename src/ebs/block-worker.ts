/**
 * A block thread (block-threads.ts): a transport of its own, and the tries at blocks that the main thread
 * posts, in memory that both share. Signing and SHA-256 are done here. It knows nothing of the SDK, retries
 * or deadlines; an abort comes as a message and ends the job like any other end.
 */
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import { BLOCK_SIZE } from "../common/sizes.js";
import { createTransport } from "../http/create.js";
import { CurlTransport } from "../http/curl/curl-transport.js";
import { sendBlockRequest } from "./block-request.js";
import type {
  BlockJob,
  FromThread,
  JobEnd,
  ThreadSetup,
  ToThread,
} from "./block-thread-messages.js";
import { Signer } from "./signature.js";
import { packFailure } from "./try-failure.js";

const port = parentPort as MessagePort;
const { settings } = workerData as ThreadSetup;
const transport = createTransport(settings, { ownsThread: true });
const memories: SharedArrayBuffer[] = [];
const aborts = new Map<number, AbortController>();
let ends: JobEnd[] = [];
let signer: Signer | undefined;

const CLOSE_DELAY_MS = 10;

function say(message: FromThread): void {
  port.postMessage(message);
}

/** Posts the ends of one turn of the event loop together: a tick comes after all its promises. */
function end(how: JobEnd): void {
  aborts.delete(how.id);
  if (ends.push(how) > 1) return;
  process.nextTick(() => {
    say({ kind: "ends", ends });
    ends = [];
  });
}

function run(job: BlockJob): void {
  const abort = new AbortController();
  const { id } = job;
  aborts.set(id, abort);
  const buffer = memories[job.memory] as SharedArrayBuffer;
  const block = new Uint8Array(buffer, job.offset, BLOCK_SIZE);
  const progress = (bodyBytes: number) => say({ kind: "progress", id, bodyBytes });
  sendBlockRequest(transport, signer as Signer, job, block, abort.signal, progress).then(
    (digest) => end({ id, digest }),
    (error: unknown) => end({ id, failure: packFailure(error) }),
  );
}

port.on("message", (message: ToThread) => {
  switch (message.kind) {
    case "memory":
      memories[message.memory] = message.buffer;
      break;
    case "context":
      signer = new Signer(message.context);
      break;
    case "jobs":
      for (const job of message.jobs) run(job);
      break;
    case "abort":
      aborts.get(message.id)?.abort();
      break;
    case "close":
      // The main thread may still be on its way to wake this one, through what closing frees.
      setTimeout(() => void transport.close().finally(() => process.exit()), CLOSE_DELAY_MS);
      break;
  }
});
const wake = transport instanceof CurlTransport ? transport.wakeHandle : undefined;
say({ kind: "ready", wake });
