/**
 * Puts blocks while the volume is in use, so that the commit has little left to do. A block is put
 * once it has been quiet for a while; one that is written again is put again (upload.ts sees to that).
 * While there is a pending snapshot it is kept from timing out by a put now and then. Nothing here
 * can hurt the mount: what fails is logged and tried later, ever more slowly, and at the latest the
 * commit does it.
 */

import { errnoOf } from "../common/failure.js";
import { runParallel } from "../common/parallel.js";
import { sharedAbort } from "../common/shared-abort.js";
import type { Upload } from "./upload.js";

export interface BackgroundOptions {
  /** How long a block must not have been written to, ms; 10 s unless told otherwise. */
  readonly quietMs?: number;
  /** Blocks at a time; 8 unless told otherwise. */
  readonly concurrency?: number;
  /** The service's default of 60 minutes unless the session says otherwise. */
  readonly timeoutMinutes?: number;
  readonly log?: (level: "debug" | "warn", message: string) => void;
}

/** Blocks that are remembered as written; others are left to the commit. */
const MAX_WAITING = 1_000_000;
/** A change of more blocks than this is left to the commit. */
const MAX_RANGE = 4096;
/** Blocks taken up in one round. */
const MAX_ROUND = 1024;
const FIRST_PAUSE_MS = 1000;
const LAST_PAUSE_MS = 60_000;

export class BackgroundUpload {
  readonly upload: Upload;
  readonly #quietMs: number;
  readonly #concurrency: number;
  readonly #keepAliveMs: number;
  readonly #log: (level: "debug" | "warn", message: string) => void;
  /** Block → round in which it was last written; the longest quiet come first. */
  readonly #waiting = new Map<number, number>();
  readonly #stop = sharedAbort();
  readonly #roundMs: number;
  #timer: NodeJS.Timeout | undefined;
  #round = 0;
  #working: Promise<void> | undefined;
  #pauseMs = 0;
  #pauseUntil = 0;

  /** Starts at once; writes from now on are seen, and what an earlier process left half put. */
  constructor(upload: Upload, options: BackgroundOptions = {}) {
    this.upload = upload;
    this.#quietMs = options.quietMs ?? 10_000;
    this.#concurrency = options.concurrency ?? 8;
    const minutes = options.timeoutMinutes ?? upload.session.record.commit.timeoutMinutes ?? 60;
    this.#keepAliveMs = (minutes * 60_000) / 3;
    this.#log = options.log ?? (() => {});
    this.#roundMs = Math.max(5, Math.min(1000, this.#quietMs / 4));
    upload.onTouched = (first, end) => this.#touched(first, end);
    this.#enqueueAll();
    this.#timer = setInterval(() => this.#tick(), this.#roundMs).unref();
  }

  /** Blocks that wait to become quiet. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Stops; resolves when no put is under way any more. The upload stays open, for the commit. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.upload.onTouched = undefined;
    this.#stop.abort();
    await this.#working;
  }

  #touched(first: number, end: number): void {
    if (end - first > MAX_RANGE) return;
    for (let block = first; block < end; block++) {
      const round = this.#waiting.get(block);
      if (round === this.#round) continue;
      // Taken out first: a Map keeps a key where it was, and the order is that of the last write.
      if (round !== undefined) this.#waiting.delete(block);
      else if (this.#waiting.size >= MAX_WAITING) return;
      this.#waiting.set(block, this.#round);
    }
  }

  #enqueueAll(): void {
    for (const run of this.upload.device.dirtyRuns()) {
      if (run.kind !== "hole") {
        for (let first = run.first; first < run.end; first += MAX_RANGE) {
          if (this.#waiting.size >= MAX_WAITING) return;
          this.#touched(first, Math.min(run.end, first + MAX_RANGE));
        }
      }
    }
  }

  #tick(): void {
    this.#round += 1;
    if (this.#working !== undefined || performance.now() < this.#pauseUntil) return;
    const blocks = this.#quietBlocks();
    const { attempt, lastPutAt } = this.upload;
    const idle = performance.now() - lastPutAt > this.#keepAliveMs && attempt.isBegun;
    if (blocks.length === 0 && !idle) return;
    this.#working = this.#work(blocks, idle).finally(() => {
      this.#working = undefined;
    });
  }

  #quietBlocks(): number[] {
    const quietRounds = Math.ceil(this.#quietMs / this.#roundMs);
    const blocks: number[] = [];
    for (const [block, round] of this.#waiting) {
      if (this.#round - round < quietRounds || blocks.length >= MAX_ROUND) break;
      blocks.push(block);
    }
    for (const block of blocks) this.#waiting.delete(block);
    return blocks;
  }

  async #work(blocks: number[], idle: boolean): Promise<void> {
    const { upload } = this;
    const { number } = upload.attempt;
    try {
      // A crash would otherwise leave the service with what the overlay has forgotten.
      await upload.device.flush();
      const source = async function* () {
        yield* blocks;
      };
      const settle = async (block: number, signal: AbortSignal) => {
        if (!upload.isSettled(block)) await upload.settle(block, signal);
      };
      await runParallel(source, this.#concurrency, settle, this.#stop.signal);
      if (idle) await this.#keepAlive();
      this.#pauseMs = 0;
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      this.#later(blocks, error);
    }
    if (number !== upload.attempt.number) {
      this.#log("warn", "The pending snapshot was lost; its blocks are put into a new one.");
      this.#enqueueAll();
    }
  }

  async #keepAlive(): Promise<void> {
    if (performance.now() - this.upload.lastPutAt <= this.#keepAliveMs) return;
    for (const block of this.upload.attempt.log.intended.values()) {
      if (this.upload.isInFlight(block)) continue;
      await this.upload.settle(block, this.#stop.signal, true);
      return;
    }
  }

  #later(blocks: readonly number[], error: unknown): void {
    this.#pauseMs = Math.min(LAST_PAUSE_MS, Math.max(FIRST_PAUSE_MS, this.#pauseMs * 2));
    // Half of it is chance, so that mounts that failed together do not come back together.
    this.#pauseUntil = performance.now() + this.#pauseMs * (0.5 + Math.random() / 2);
    for (const block of blocks) {
      if (!this.upload.isSettled(block)) this.#touched(block, block + 1);
    }
    const why = error instanceof Error ? error.message : String(error);
    if (errnoOf(error) === "EDQUOT") {
      // It will not be more: the commit asks once, and says how to go on.
      clearInterval(this.#timer);
      this.#log("warn", `Background upload ends: ${why}`);
      return;
    }
    this.#log("warn", `Background upload failed and will try again: ${why}`);
  }
}
