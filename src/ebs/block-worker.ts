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
import type { BlockJob, FromThread, ThreadSetup, ToThread } from "./block-thread-messages.js";
import { Signer, type SigningContext } from "./signature.js";
import { packFailure } from "./try-failure.js";

const port = parentPort as MessagePort;
const { settings } = workerData as ThreadSetup;
const transport = createTransport(settings, { ownsThread: true });
const aborts = new Map<number, AbortController>();
let signer: Signer | undefined;

function say(message: FromThread): void {
  port.postMessage(message);
}

async function run(job: BlockJob): Promise<void> {
  const abort = new AbortController();
  const { id } = job;
  aborts.set(id, abort);
  const block = new Uint8Array(job.buffer, job.offset, BLOCK_SIZE);
  try {
    const signed = signer as Signer;
    const progress = () => say({ kind: "progress", id });
    const digest = await sendBlockRequest(transport, signed, job, block, abort.signal, progress);
    say({ kind: "done", id, digest });
  } catch (error) {
    say({ kind: "failed", id, failure: packFailure(error) });
  } finally {
    aborts.delete(id);
  }
}

function setContext(context: SigningContext): void {
  signer = new Signer(context);
}

port.on("message", (message: ToThread) => {
  if (message.kind === "abort") aborts.get(message.id)?.abort();
  else if (message.kind === "context") setContext(message.context);
  else if (message.kind === "close") void transport.close().finally(() => process.exit());
  else void run(message);
});
const wake = transport instanceof CurlTransport ? transport.wakeHandle : undefined;
say({ kind: "ready", multi: wake?.multi, mail: wake?.mail });
