/**
 * Turns a session into a snapshot. Every dirty block is settled (upload.ts), in parallel; then the
 * snapshot is completed, with the number of blocks put and the aggregate of their digests, and waited
 * for. Each step is on disk before it is taken, so a commit that ends anywhere is finished by calling
 * it again, and there is one snapshot in the end. The hard case is CompleteSnapshot whose answer was
 * lost: the service then refuses another. Whether it had worked is found out by asking for the
 * snapshot's status, and where it is still `pending` by putting a block that is there already once
 * more: taken means still open, so the refusal was real; refused means that it is being completed.
 */
import { errnoOf, Failure } from "../common/failure.js";
import { runParallel } from "../common/parallel.js";
import { BLOCK_SIZE } from "../common/sizes.js";
import type { EbsApi } from "../ebs/api.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { checkInheritance } from "../snapshot/inherited-blocks.js";
import { COMPLETION_LIMIT_MS } from "../snapshot/writer.js";
import { isGone, isRefusal } from "./attempt.js";
import type { OverlayDevice } from "./overlay-device.js";
import type { Session } from "./session.js";
import { Upload } from "./upload.js";

export interface CommitProgress {
  readonly blocksDone: number;
  /** Grows while discarded ranges are looked through for blocks that the base has. */
  readonly blocksTotal: number;
  /** Bytes put in this run. */
  readonly bytes: number;
}

export interface CommitOptions {
  /** Blocks at a time, 512 KiB of memory each; 64 unless told otherwise. */
  readonly concurrency?: number;
  /** Wait until the snapshot can be read; true unless told otherwise. */
  readonly wait?: boolean;
  /** Longest wait for that, ms; an hour unless told otherwise. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: CommitProgress) => void;
  /** Of the background upload, where there was one: what it settled is not looked at again. */
  readonly upload?: Upload;
}

export interface CommitResult {
  /** undefined where nothing was written, or nothing that differs from the parent. */
  readonly snapshotId: SnapshotId | undefined;
}

/** Passes over the blocks, each in another attempt. */
const MAX_PASSES = 4;

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
    return finished(session, await new Commit(upload, options).run());
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

  async run(): Promise<SnapshotId | undefined> {
    const { attempt, session } = this.#upload;
    for (let pass = 1; pass <= MAX_PASSES; pass++) {
      if (session.record.upload?.completing !== true) {
        const { number } = attempt;
        await this.#settleAll();
        // Begun anew underneath: what the earlier attempt had is to be put again.
        if (number !== attempt.number) continue;
        if (!attempt.isBegun) return undefined;
      }
      const snapshotId = await this.#complete();
      if (snapshotId !== undefined) return snapshotId;
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
      if (run.kind !== "zero") this.#total += run.end - run.first;
    }
    this.#report();
    const settle = async (block: number, stop: AbortSignal) => {
      if (!this.#upload.isSettled(block)) {
        const outcome = await this.#upload.settle(block, stop);
        if (outcome === "put") this.#bytes += BLOCK_SIZE;
      }
      this.#done += 1;
      this.#report();
    };
    await runParallel(() => this.#dirtyBlocks(), concurrency, settle, signal);
    await runParallel(() => this.#intents(), concurrency, settle, signal);
  }

  /** Blocks that may differ from the base: of discarded ranges only where the base has data. */
  async *#dirtyBlocks(): AsyncGenerator<number> {
    const { device } = this.#upload;
    for (const run of device.dirtyRuns()) {
      if (run.kind !== "zero") {
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

  /** Completes and waits. @returns undefined where a new attempt has to be made */
  async #complete(): Promise<SnapshotId | undefined> {
    const { attempt, session } = this.#upload;
    const { wait = true, timeoutMs = COMPLETION_LIMIT_MS, signal } = this.#options;
    const writer = await attempt.started();
    await attempt.log.sync();
    const again = session.record.upload?.completing === true;
    if (!again) await attempt.completing();
    const waiting = { wait, timeoutMs, ...(signal !== undefined && { signal }) };
    try {
      await writer.complete(waiting);
    } catch (error) {
      signal?.throwIfAborted();
      const found = await this.#afterRefusal(error);
      if (found === "anew") return undefined;
      if (found === "accepted" && wait) await writer.waitCompleted(waiting);
    }
    if (wait) {
      await this.#verify(writer.snapshotId);
      await this.#verifyParent(writer.snapshotId);
    }
    return writer.snapshotId;
  }

  /** What became of a snapshot whose completion was refused; throws where it was no refusal. */
  async #afterRefusal(error: unknown): Promise<"accepted" | "anew"> {
    const { attempt } = this.#upload;
    const { number } = attempt;
    const status = await attempt.ask();
    if (status === "completed") return "accepted";
    if (status === "lost") {
      this.#upload.forget();
      return "anew";
    }
    if (status === "error" || isGone(error)) {
      if (number === attempt.number) await this.#upload.restart();
      return "anew";
    }
    if (!isRefusal(error)) throw error;
    if (await this.#isOpen()) {
      // Open, and yet not to be completed like this: it does not hold what we think it does.
      await this.#upload.restart();
      return "anew";
    }
    return "accepted";
  }

  /** Whether the pending snapshot still takes puts, found out with a block that it has. */
  async #isOpen(): Promise<boolean> {
    const { attempt, device } = this.#upload;
    const writer = await attempt.started();
    for await (const { blockIndex } of attempt.log.entries()) {
      const block = Buffer.allocUnsafeSlow(BLOCK_SIZE);
      await device.read(blockIndex * BLOCK_SIZE, block);
      try {
        await writer.put(blockIndex, block, this.#options.signal);
        return true;
      } catch (error) {
        if (isRefusal(error)) return false;
        throw error;
      }
    }
    return true;
  }

  /** Looks whether the completed snapshot shows the first block that was put. */
  async #verify(snapshotId: SnapshotId): Promise<void> {
    const { api, attempt } = this.#upload;
    const { signal } = this.#options;
    for await (const { blockIndex } of attempt.log.entries()) {
      try {
        const options = { startingBlockIndex: blockIndex, maxResults: 100 };
        let page = await api.listSnapshotBlocks(snapshotId, {
          ...options,
          ...(signal && { signal }),
        });
        for (let n = 0; page.blockIndexes.length === 0 && page.nextToken && n < 1000; n++) {
          page = await api.listSnapshotBlocks(snapshotId, { pageToken: page.nextToken });
        }
        if (page.blockIndexes[0] === blockIndex) return;
      } catch (error) {
        if (errnoOf(error) === "EACCES") return;
        throw error;
      }
      throw new Failure(
        "EIO",
        `${snapshotId} is completed but does not list block ${blockIndex}, which was put into it: keep session ${this.#upload.session.id} and report this.`,
      );
    }
  }

  async #verifyParent(childId: SnapshotId): Promise<void> {
    const { api, attempt, session } = this.#upload;
    const { signal } = this.#options;
    const { parentSnapshotId: parentId } = session.record;
    if (parentId === undefined) return;
    const wasPut = async (block: number) => (await attempt.log.get(block)) !== undefined;
    await checkInheritance(api, { childId, parentId, wasPut, ...(signal && { signal }) });
  }

  #report(): void {
    this.#options.onProgress?.({
      blocksDone: this.#done,
      blocksTotal: this.#total,
      bytes: this.#bytes,
    });
  }
}
