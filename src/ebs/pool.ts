/**
 * EbsApi over several threads. A block costs one to two milliseconds of processor time, most of it
 * for HTTP, signing and SHA-256; so one thread stays far below what the service allows. Gets and
 * puts go to worker threads, one SDK client each, which work directly in shared memory; the rare
 * operations stay in this thread.
 *
 * Workers take a moment and some 40 MiB each to start. They are started when blocks are first wanted
 * in parallel; until they are ready, and should they die, this thread does the work itself.
 */
import { setMaxListeners } from "node:events";
import { BLOCK_SIZE } from "../common/sizes.js";
import type {
  BlockPage,
  ChangedBlockPage,
  EbsApi,
  ListOptions,
  SnapshotStatus,
  StartedSnapshot,
  StartSnapshotOptions,
} from "./api.js";
import { interrupted } from "./errors.js";
import { Meter } from "./meter.js";
import type { BlockJob } from "./pool-messages.js";
import { PoolThread, ThreadGone } from "./pool-thread.js";
import { type EbsOptions, SdkEbs } from "./sdk-ebs.js";
import type { SnapshotId } from "./snapshot-id.js";

/** Blocks in flight in this thread at which workers are started. */
const BUSY = 4;
/** Copies kept for callers whose memory is not shared; more are made and dropped. */
const SCRATCH_KEPT = 64;

type Work = Omit<BlockJob, "id" | "buffer" | "offset">;

export class EbsPool implements EbsApi {
  readonly #options: EbsOptions;
  readonly #meter: Meter;
  readonly #own: SdkEbs;
  readonly #count: number;
  #threads: PoolThread[] | undefined;
  #inFlightHere = 0;
  #lastId = 0;
  #isClosed = false;
  readonly #scratch: Uint8Array[] = [];

  /** @param threads workers, at least 1. */
  constructor(options: EbsOptions, threads: number) {
    this.#meter = options.meter ?? new Meter();
    this.#options = { ...options, meter: this.#meter };
    this.#own = new SdkEbs(this.#options);
    this.#count = threads;
  }

  async getSnapshotBlock(
    snapshotId: SnapshotId,
    blockIndex: number,
    blockToken: string,
    target: Uint8Array,
    signal?: AbortSignal,
    digest?: Uint8Array,
  ): Promise<void> {
    const withDigest = digest !== undefined;
    const work: Work = { kind: "get", snapshotId, blockIndex, blockToken, withDigest };
    const here = () =>
      this.#own.getSnapshotBlock(snapshotId, blockIndex, blockToken, target, signal, digest);
    const keep = (of: Uint8Array | undefined) => {
      if (of !== undefined) digest?.set(of);
    };
    if (isShared(target)) await this.#run(work, target, signal, here, keep);
    else {
      await this.#withScratch(async (scratch) => {
        const inWorker = await this.#run(work, scratch, signal, here, keep);
        if (inWorker) target.set(scratch);
      });
    }
  }

  async putSnapshotBlock(
    snapshotId: SnapshotId,
    blockIndex: number,
    data: Uint8Array,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    const work: Work = { kind: "put", snapshotId, blockIndex, blockToken: "", withDigest: true };
    let digest: Uint8Array | undefined;
    const here = async () => {
      digest = await this.#own.putSnapshotBlock(snapshotId, blockIndex, data, signal);
    };
    const keep = (of: Uint8Array | undefined) => {
      digest = of;
    };
    if (isShared(data)) await this.#run(work, data, signal, here, keep);
    else {
      await this.#withScratch(async (scratch) => {
        scratch.set(data);
        await this.#run(work, scratch, signal, here, keep);
      });
    }
    return digest as Uint8Array;
  }

  listSnapshotBlocks(snapshotId: SnapshotId, options?: ListOptions): Promise<BlockPage> {
    return this.#own.listSnapshotBlocks(snapshotId, options);
  }

  listChangedBlocks(
    firstSnapshotId: SnapshotId | undefined,
    secondSnapshotId: SnapshotId,
    options?: ListOptions,
  ): Promise<ChangedBlockPage> {
    return this.#own.listChangedBlocks(firstSnapshotId, secondSnapshotId, options);
  }

  startSnapshot(options: StartSnapshotOptions): Promise<StartedSnapshot> {
    return this.#own.startSnapshot(options);
  }

  completeSnapshot(
    snapshotId: SnapshotId,
    changedBlocksCount: number,
    checksum?: string,
    signal?: AbortSignal,
  ): Promise<SnapshotStatus> {
    return this.#own.completeSnapshot(snapshotId, changedBlocksCount, checksum, signal);
  }

  /** Worker threads that have loaded and take work. */
  get readyThreads(): number {
    return (this.#threads ?? []).filter(({ ready }) => ready).length;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all((this.#threads ?? []).map((thread) => thread.close()));
    await this.#own.close();
  }

  /** @returns true where a worker did it, in `memory`; false where `here` did, in the caller's. */
  async #run(
    work: Work,
    memory: Uint8Array,
    signal: AbortSignal | undefined,
    here: () => Promise<void>,
    keep?: (digest: Uint8Array | undefined) => void,
  ): Promise<boolean> {
    // One signal often ends many jobs at a time, which Node would warn about.
    if (signal !== undefined) setMaxListeners(0, signal);
    for (let thread = this.#leastBusy(); thread !== undefined; thread = this.#leastBusy()) {
      this.#lastId += 1;
      const { buffer, byteOffset } = memory;
      const job = {
        ...work,
        id: this.#lastId,
        buffer: buffer as SharedArrayBuffer,
        offset: byteOffset,
      };
      try {
        const digest = await thread.run(job, signal);
        keep?.(digest);
        return true;
      } catch (error) {
        if (!(error instanceof ThreadGone)) throw error;
        if (this.#isClosed || signal?.aborted) throw interrupted(subjectOf(work));
      }
    }
    this.#inFlightHere += 1;
    if (this.#inFlightHere >= BUSY) this.#startThreads();
    try {
      await here();
      return false;
    } finally {
      this.#inFlightHere -= 1;
    }
  }

  #leastBusy(): PoolThread | undefined {
    let least: PoolThread | undefined;
    for (const thread of this.#threads ?? []) {
      if (thread.ready && (least === undefined || thread.load < least.load)) least = thread;
    }
    return least;
  }

  #startThreads(): void {
    if (this.#threads !== undefined || this.#isClosed) return;
    const { meter: _meter, log, ...options } = this.#options;
    const setup = {
      options: { ...options, proven: this.#own.proven },
      meter: this.#meter.buffer,
    };
    this.#threads = Array.from(
      { length: this.#count },
      () => new PoolThread(setup, log ?? (() => {})),
    );
  }

  async #withScratch(use: (scratch: Uint8Array) => Promise<void>): Promise<void> {
    const scratch = this.#scratch.pop() ?? new Uint8Array(new SharedArrayBuffer(BLOCK_SIZE));
    try {
      await use(scratch);
    } finally {
      if (this.#scratch.length < SCRATCH_KEPT) this.#scratch.push(scratch);
    }
  }
}

function isShared(bytes: Uint8Array): boolean {
  return bytes.buffer instanceof SharedArrayBuffer;
}

function subjectOf(work: Work): Parameters<typeof interrupted>[0] {
  return {
    operation: work.kind === "get" ? "GetSnapshotBlock" : "PutSnapshotBlock",
    snapshotId: work.snapshotId,
    blockIndex: work.blockIndex,
  };
}
