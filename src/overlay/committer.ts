/**
 * Turns a session into a snapshot. Every dirty block is settled (upload.ts), in parallel; then the
 * snapshot is completed, with the number of blocks put and the aggregate of their digests, and waited
 * for. Each step is on disk before it is taken, so a commit that ends anywhere is finished by calling
 * it again, and there is one snapshot in the end.
 */
import { Failure } from "../common/failure.js";
import { runParallel } from "../common/parallel.js";
import { BLOCK_SIZE } from "../common/sizes.js";
import type { EbsApi } from "../ebs/api.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import type { CommitOptions, CommitResult } from "./commit-options.js";
import { Completer } from "./completer.js";
import type { OverlayDevice } from "./overlay-device.js";
import type { Session } from "./session.js";
import { Upload } from "./upload.js";

/** Passes over the blocks, each in another attempt, or tries to complete. */
const MAX_PASSES = 8;

/**
 * Commits a session whose device is no longer mounted; it takes no writes from here on.
 * Calling it again after it failed, or ended in any other way, goes on where it was.
 * @throws Failure as the service, the base and the local disk give; the session is kept
 */
export async function commit(
  session: Session,
  device: OverlayDevice,
  api: EbsApi,
  options: CommitOptions = {},
): Promise<CommitResult> {
  const { record } = session;
  if (record.kind === "scratch") {
    throw new Failure("EINVAL", `Session ${session.id} is a scratch mount: it has no snapshot.`);
  }
  if (record.state === "committed") return { snapshotId: record.resultSnapshotId };
  device.refuseWrites("The session is being committed: nothing can be written any more.");
  await device.flush();
  if (device.isUntouched && record.upload === undefined) return finished(session, undefined);
  if (record.state !== "committing") await session.update({ state: "committing" });
  const upload = options.upload ?? (await Upload.open(session, device, api, options.concurrency));
  try {
    const result = await new Commit(upload, options).run();
    return result.isPending ? result : await finished(session, result.snapshotId);
  } finally {
    await upload.close();
  }
}

async function finished(
  session: Session,
  snapshotId: SnapshotId | undefined,
): Promise<CommitResult> {
  await session.update({
    state: "committed",
    ...(snapshotId !== undefined && { resultSnapshotId: snapshotId }),
  });
  return { snapshotId };
}

class Commit {
  readonly #upload: Upload;
  readonly #options: CommitOptions;
  #done = 0;
  #total = 0;
  #bytes = 0;

  constructor(upload: Upload, options: CommitOptions) {
    this.#upload = upload;
    this.#options = options;
  }

  async run(): Promise<CommitResult> {
    const { attempt, session } = this.#upload;
    const completer = new Completer(this.#upload, this.#options);
    for (let pass = 1; pass <= MAX_PASSES; pass++) {
      if (session.record.upload?.completing !== true) {
        const { number } = attempt;
        await this.#settleAll();
        // Begun anew underneath: what the earlier attempt had is to be put again.
        if (number !== attempt.number) continue;
        if (!attempt.isBegun) return { snapshotId: undefined };
      }
      const result = await completer.complete();
      if (result !== undefined) return result;
    }
    throw new Failure(
      "EIO",
      `The service did not take the snapshot of session ${session.id} in ${MAX_PASSES} attempts; nothing is lost here: run ebsmount commit ${session.id} later.`,
    );
  }

  async #settleAll(): Promise<void> {
    const { concurrency = 64, signal } = this.#options;
    this.#done = 0;
    this.#total = 0;
    for (const run of this.#upload.device.dirtyRuns()) {
      if (run.kind !== "hole") this.#total += run.end - run.first;
    }
    this.#report();
    const settle = async (block: number, stop: AbortSignal) => {
      if (!this.#upload.isSettled(block)) {
        const outcome = await this.#upload.settle(block, stop);
        if (outcome === "put") this.#bytes += BLOCK_SIZE;
        // Most of what is dirty was written just now, and all of it is read here for the last time.
        this.#upload.device.dropCached(block);
      }
      this.#done += 1;
      this.#report();
    };
    await runParallel(() => this.#dirtyBlocks(), concurrency, settle, signal);
    await runParallel(() => this.#intents(), concurrency, settle, signal);
  }

  /** Blocks that may have to be put: of discarded ranges only where the base has data. */
  async *#dirtyBlocks(): AsyncGenerator<number> {
    const { device } = this.#upload;
    for (const run of device.dirtyRuns()) {
      if (run.kind !== "hole") {
        for (let block = run.first; block < run.end; block++) yield block;
        continue;
      }
      const length = (run.end - run.first) * BLOCK_SIZE;
      let next = run.first;
      for await (const extent of device.base.extents(run.first * BLOCK_SIZE, length)) {
        if (extent.kind === "hole") continue;
        const end = Math.ceil((extent.offset + extent.length) / BLOCK_SIZE);
        next = Math.max(next, Math.floor(extent.offset / BLOCK_SIZE));
        for (; next < end; next++) {
          this.#total += 1;
          yield next;
        }
      }
    }
  }

  /** What was put earlier and does not differ from the base any more. */
  async *#intents(): AsyncGenerator<number> {
    for (const block of this.#upload.unsettledIntents()) {
      this.#total += 1;
      yield block;
    }
  }

  #report(): void {
    this.#options.onProgress?.({
      blocksDone: this.#done,
      blocksTotal: this.#total,
      bytes: this.#bytes,
    });
  }
}
