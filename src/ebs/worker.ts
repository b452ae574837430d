/**
 * A thread of the pool (pool.ts): one SDK client that gets and puts blocks where they are wanted, in
 * memory shared with the main thread, and verifies them here. Retries and deadlines are those of
 * sdk-ebs.ts; an abort comes as a message and is answered like any other end of the job.
 */
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import { BLOCK_SIZE } from "../common/sizes.js";
import { DIGEST_SIZE } from "./checksum.js";
import { EbsError, type ErrorDetails } from "./errors.js";
import { Meter } from "./meter.js";
import type { BlockJob, FromWorker, ToWorker, WorkerSetup } from "./pool-messages.js";
import { SdkEbs } from "./sdk-ebs.js";

const port = parentPort as MessagePort;
const setup = workerData as WorkerSetup;
const aborts = new Map<number, AbortController>();

function say(message: FromWorker): void {
  port.postMessage(message);
}

const ebs = new SdkEbs({
  ...setup.options,
  meter: new Meter(setup.meter),
  log: (level, message) => say({ kind: "log", level, message }),
});

async function run(job: BlockJob): Promise<void> {
  const abort = new AbortController();
  aborts.set(job.id, abort);
  const { id, snapshotId, blockIndex } = job;
  const block = new Uint8Array(job.buffer, job.offset, BLOCK_SIZE);
  try {
    if (job.kind === "get") {
      const digest = job.withDigest ? new Uint8Array(DIGEST_SIZE) : undefined;
      const { blockToken } = job;
      await ebs.getSnapshotBlock(snapshotId, blockIndex, blockToken, block, abort.signal, digest);
      say({ kind: "done", id, ...(digest && { digest }) });
    } else {
      const digest = await ebs.putSnapshotBlock(snapshotId, blockIndex, block, abort.signal);
      say({ kind: "done", id, digest });
    }
  } catch (error) {
    say({ kind: "failed", id, error: detailsOf(error, job) });
  } finally {
    aborts.delete(id);
  }
}

function detailsOf(error: unknown, job: BlockJob): ErrorDetails {
  if (error instanceof EbsError) return error.details();
  return {
    operation: job.kind === "get" ? "GetSnapshotBlock" : "PutSnapshotBlock",
    snapshotId: job.snapshotId,
    blockIndex: job.blockIndex,
    errno: "EIO",
    message: `A defect in ebsmount: ${error instanceof Error ? error.stack : String(error)}`,
    attempts: 0,
    exception: "Defect",
  };
}

port.on("message", (message: ToWorker) => {
  if (message.kind === "abort") aborts.get(message.id)?.abort();
  else void run(message);
});
say({ kind: "ready" });
