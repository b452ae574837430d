/**
 * The last step of a commit: CompleteSnapshot, and the wait for it. The hard case is an answer that was
 * lost: the service then refuses another. Whether it had worked is found out by asking for the
 * snapshot's status, and where it is still `pending` by putting a block that is there already once
 * more: taken means still open, so the refusal was real; refused means that it is being completed.
 * A refusal that was real is asked again, and only then, once, is the snapshot given up for another:
 * for it may hold what this session does not know of. Nothing else makes a second snapshot but that
 * the service says the first is gone or in error.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { errnoOf, Failure } from "../common/failure.js";
import { BLOCK_SIZE } from "../common/sizes.js";
import type { BlockDevice } from "../device/block-device.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { findMissing, lacksInherited, type ParentBlocks } from "../snapshot/verify-snapshot.js";
import { COMPLETION_LIMIT_MS, type Completion, type SnapshotWriter } from "../snapshot/writer.js";
import { type Asked, isInvalid, isRefusal } from "./attempt.js";
import type { CommitOptions, CommitResult } from "./commit-options.js";
import type { Upload } from "./upload.js";

/** A refused completion is tried again so often, after these pauses, ms. */
const REFUSAL_PAUSES = [500, 2_000];
/** How often the status of a snapshot that is waited for is asked for, ms. */
const LOOK_EVERY_MS = 30_000;

export class Completer {
  readonly #upload: Upload;
  readonly #options: CommitOptions;
  #refusals = 0;
  #gaveUp = false;

  constructor(upload: Upload, options: CommitOptions) {
    this.#upload = upload;
    this.#options = options;
  }

  /** Completes and waits. @returns undefined where it has to be tried again, maybe all of it */
  async complete(): Promise<CommitResult | undefined> {
    const { attempt, session } = this.#upload;
    const { wait = true, signal } = this.#options;
    const writer = await attempt.started();
    await attempt.log.sync();
    const again = session.record.upload?.completing === true;
    if (!again) await attempt.completing();
    let completion: Completion;
    try {
      completion = await writer.complete({ wait: false, ...(signal && { signal }) });
    } catch (error) {
      signal?.throwIfAborted();
      if ((await this.#afterRefusal(error)) === "again") return undefined;
      completion = "accepted";
    }
    const { snapshotId } = writer;
    if (!wait && completion === "accepted") return { snapshotId, isPending: true };
    if (!(await this.#isCompleted(writer))) return undefined;
    await this.#verify(writer);
    return { snapshotId };
  }

  /** Waits for the snapshot. @returns false where it failed after all: it has to be made again */
  async #isCompleted(writer: SnapshotWriter): Promise<boolean> {
    const { timeoutMs = COMPLETION_LIMIT_MS, signal } = this.#options;
    const { attempt } = this.#upload;
    const end = performance.now() + timeoutMs;
    for (;;) {
      const left = Math.max(0, end - performance.now());
      try {
        const waiting = { timeoutMs: Math.min(left, LOOK_EVERY_MS), ...(signal && { signal }) };
        await writer.waitCompleted(waiting);
        return true;
      } catch (error) {
        if (errnoOf(error) !== "ETIMEDOUT") throw error;
      }
      if (performance.now() >= end) throw this.#late(writer.snapshotId);
      // A snapshot that failed, or that someone has deleted, cannot be listed any more than a slow one.
      const { number } = attempt;
      if (await this.#isOver(await attempt.ask(), number)) return false;
    }
  }

  /** Begins the next attempt where this one's snapshot is lost. @returns whether it is */
  async #isOver(status: Asked, number: number): Promise<boolean> {
    const { attempt } = this.#upload;
    if (status !== "error" && status !== "lost") return false;
    if (number === attempt.number) await this.#upload.restart();
    else this.#upload.forget();
    return true;
  }

  /** What became of a snapshot whose completion failed; throws where nothing more can be done now. */
  async #afterRefusal(error: unknown): Promise<"accepted" | "again"> {
    const { attempt } = this.#upload;
    const { number } = attempt;
    const status = await attempt.ask();
    if (status === "completed") return "accepted";
    if (await this.#isOver(status, number)) return "again";
    if (!isRefusal(error)) throw error;
    if (!(await this.#isOpen())) return "accepted";
    const pause = REFUSAL_PAUSES[this.#refusals];
    this.#refusals += 1;
    if (pause !== undefined) {
      await sleep(pause, undefined, { signal: this.#options.signal }).catch(() => {});
      return "again";
    }
    // Open, and yet not to be completed like this: it does not hold what we think it does.
    if (this.#gaveUp || !isInvalid(error)) throw error;
    this.#gaveUp = true;
    await this.#upload.restart();
    return "again";
  }

  /** Whether the pending snapshot still takes puts, found out with a block that it has. */
  async #isOpen(): Promise<boolean> {
    const { attempt, device } = this.#upload;
    const index = await this.#someBlock();
    if (index === undefined) return true;
    const block = Buffer.allocUnsafeSlow(BLOCK_SIZE);
    await device.read(index * BLOCK_SIZE, block);
    try {
      // Past the log's intents: should it be refused, the block is as it was.
      await (await attempt.started()).put(index, block, this.#options.signal);
      return true;
    } catch (error) {
      if (isRefusal(error)) return false;
      throw error;
    }
  }

  /** A block that was put; where the log knows none, one that belongs into the snapshot anyway. */
  async #someBlock(): Promise<number | undefined> {
    const { attempt, device } = this.#upload;
    for await (const { blockIndex } of attempt.log.entries()) return blockIndex;
    for (const run of device.dirtyRuns()) if (run.kind !== "hole") return run.first;
    return undefined;
  }

  /** @throws Failure EIO where the completed snapshot lacks what it must show */
  async #verify(writer: SnapshotWriter): Promise<void> {
    const { api, device, session } = this.#upload;
    const { parentSnapshotId: parentId } = session.record;
    const parentBlocks = parentId === undefined ? undefined : blocksOf(device.base);
    const missing = await findMissing(api, writer, parentBlocks, this.#options.signal);
    if (missing === undefined) return;
    const { kind, blockIndex } = missing;
    if (kind === "put") {
      throw new Failure(
        "EIO",
        `${writer.snapshotId} is completed but does not list block ${blockIndex}, which was put into it: keep session ${session.id} and report this.`,
      );
    }
    // Completed and useless: the changes must not be tied to it.
    await this.#letGo();
    throw lacksInherited(writer.snapshotId, parentId as SnapshotId, blockIndex);
  }

  /** The session can be mounted again. */
  async #letGo(): Promise<void> {
    await this.#upload.restart();
    await this.#upload.session.update({ state: "open" });
  }

  #late(snapshotId: SnapshotId): Failure {
    return new Failure(
      "ETIMEDOUT",
      `${snapshotId} is written, but still not completed; look later with: aws ec2 describe-snapshots --snapshot-ids ${snapshotId}`,
    );
  }
}

/** Blocks that the base has, by its own list, which tells of those around what was just put. */
function blocksOf(base: BlockDevice): ParentBlocks {
  return async function* (from) {
    const start = from * BLOCK_SIZE;
    if (start >= base.size) return;
    let next = from;
    for await (const { kind, offset, length } of base.extents(start, base.size - start)) {
      if (kind === "hole") continue;
      next = Math.max(next, Math.floor(offset / BLOCK_SIZE));
      for (; next < Math.ceil((offset + length) / BLOCK_SIZE); next += 1) yield next;
    }
  };
}
