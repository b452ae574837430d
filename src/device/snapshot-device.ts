/**
 * A snapshot as a disk: the block index says where data is, the cache holds it, readahead has it
 * there in time. Reads find what is in memory without waiting; what is missing is fetched in
 * parallel. A view lends the cache's own slots while they are few, and else copies.
 */
import {
  type BlockCache,
  type BlockCacheOptions,
  BlockCache as Cache,
} from "../cache/block-cache.js";
import { Readahead } from "../cache/readahead.js";
import { HOLE, MISS, zeroBlock } from "../cache/slot-table.js";
import { Failure } from "../common/failure.js";
import { allOrFirstError } from "../common/parallel.js";
import { BLOCK_SIZE, GIB, MIB } from "../common/sizes.js";
import type { EbsApi } from "../ebs/api.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { type BlockIndex, openBlockIndex } from "../snapshot/block-index.js";
import { type BlockDevice, type Extent, type View, viewByCopy } from "./block-device.js";
import { BlockLoader } from "./block-loader.js";

/** Bytes read ahead of all streams of a device unless told otherwise; never above half the cache. */
const DEFAULT_READAHEAD_BYTES = 64 * MIB;
/** Blocks of one read that are wanted at a time; longer reads go on when these are there. */
const BATCH = 64;
/** A longer view is copied: no one request may take up much of what can be lent. */
const LARGEST_LOAN = 8;

export interface SnapshotDeviceOptions {
  readonly api: EbsApi;
  readonly cache: BlockCache;
  readonly snapshotId: SnapshotId;
  /** Bytes; 0 switches readahead off. */
  readonly readaheadBytes?: number;
  /** Memory for the block index, bytes. */
  readonly indexBytes?: number;
  readonly signal?: AbortSignal;
}

/** One cache, and one fetch queue, for all the snapshot devices of a process. */
export function createBlockCache(options: BlockCacheOptions): BlockCache {
  return new Cache(options);
}

/** One list call. @throws EbsError */
export async function openSnapshotDevice(options: SnapshotDeviceOptions): Promise<SnapshotDevice> {
  const { api, snapshotId, indexBytes, signal } = options;
  const index = await openBlockIndex(api, snapshotId, {
    ...(indexBytes !== undefined && { bytes: indexBytes }),
    ...(signal && { signal }),
  });
  return new SnapshotDevice(options, index);
}

export class SnapshotDevice implements BlockDevice {
  readonly size: number;
  readonly snapshotId: SnapshotId;
  readonly cache: BlockCache;
  /** The device's number in the cache. */
  readonly number: number;
  readonly #index: BlockIndex;
  readonly #source: BlockLoader;
  readonly #readahead: Readahead;
  readonly #stopListening: () => void;
  #closed = false;

  constructor(options: SnapshotDeviceOptions, index: BlockIndex) {
    const { api, cache, snapshotId } = options;
    this.size = index.volumeSizeGiB * GIB;
    this.snapshotId = snapshotId;
    this.cache = cache;
    this.number = cache.addDevice();
    this.#index = index;
    this.#source = new BlockLoader(this.number, api, snapshotId, index);
    const most = Math.floor((options.readaheadBytes ?? DEFAULT_READAHEAD_BYTES) / BLOCK_SIZE);
    this.#readahead = new Readahead(
      {
        prefetch: (block) => cache.prefetch(this.#source, block),
        cancel: (block) => cache.cancelPrefetch(this.#source, block),
        wasReached: (block) => cache.wasReached(this.number, block),
        prepare: (block) => index.prepare(block),
      },
      {
        blocks: index.blockCount,
        window: () => Math.min(most, Math.floor(cache.slots / 2 / cache.deviceCount)),
      },
    );
    this.#stopListening = cache.onReached(() => this.#readahead.onReached());
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    this.#check(offset, target.length);
    const batch = BATCH * BLOCK_SIZE;
    for (let at = 0; at < target.length; ) {
      // To the end of a block, so that no block is asked for twice.
      const end = Math.min(target.length, at + batch - ((offset + at) % BLOCK_SIZE));
      await this.#copy(offset + at, target.subarray(at, end), signal);
      at = end;
    }
  }

  async view(offset: number, length: number, signal?: AbortSignal): Promise<View> {
    this.#check(offset, length);
    if (length === 0) return { parts: [], release: () => {} };
    const first = Math.floor(offset / BLOCK_SIZE);
    const count = Math.floor((offset + length - 1) / BLOCK_SIZE) - first + 1;
    if (count > LARGEST_LOAN || !this.cache.lend(count)) {
      return await viewByCopy(this, offset, length, signal);
    }
    this.#readahead.onRead(first, first + count - 1);
    const slots = new Array<number>(count).fill(MISS);
    const release = (): void => {
      this.cache.unlend(count);
      for (const slot of slots) this.cache.unpin(slot);
    };
    try {
      await this.#pinAll(first, slots, signal);
    } catch (error) {
      release();
      throw error;
    }
    const parts = slots.map((slot, i) => {
      const bytes = slot === HOLE ? zeroBlock() : this.cache.pool.table.bytes(slot);
      const start = (first + i) * BLOCK_SIZE;
      const from = Math.max(0, offset - start);
      const to = Math.min(BLOCK_SIZE, offset + length - start);
      return to - from === BLOCK_SIZE ? bytes : bytes.subarray(from, to);
    });
    return { parts, release };
  }

  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    this.#check(offset, length);
    const end = offset + length;
    const runs = this.#index.runs(Math.floor(offset / BLOCK_SIZE), Math.ceil(end / BLOCK_SIZE));
    if (length === 0) return;
    for await (const run of runs) {
      const from = Math.max(offset, run.start * BLOCK_SIZE);
      const to = Math.min(end, run.end * BLOCK_SIZE);
      yield { offset: from, length: to - from, kind: run.kind };
    }
  }

  allocatedBytes(): number | undefined {
    const blocks = this.#index.allocatedBlocks();
    return blocks === undefined ? undefined : blocks * BLOCK_SIZE;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopListening();
    this.#readahead.cancel();
    this.cache.removeDevice(this.number);
    this.#index.close();
  }

  /** Fills target, at most BATCH blocks; when it throws, nothing will touch target any more. */
  async #copy(offset: number, target: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    if (target.length === 0) return;
    const first = Math.floor(offset / BLOCK_SIZE);
    const last = Math.floor((offset + target.length - 1) / BLOCK_SIZE);
    this.#readahead.onRead(first, last);
    let missing: Promise<void>[] | undefined;
    for (let block = first; block <= last; block += 1) {
      const slot = this.cache.tryPin(this.#source, block);
      if (slot !== MISS) {
        this.#copyOut(slot, block, offset, target);
        continue;
      }
      missing ??= [];
      missing.push(
        this.cache
          .pin(this.#source, block, signal)
          .then((found) => this.#copyOut(found, block, offset, target)),
      );
    }
    if (missing !== undefined) await allOrFirstError(missing);
  }

  #copyOut(slot: number, block: number, offset: number, target: Uint8Array): void {
    const start = block * BLOCK_SIZE;
    const from = Math.max(0, offset - start);
    const to = Math.min(BLOCK_SIZE, offset + target.length - start);
    const at = start + from - offset;
    if (slot === HOLE) target.fill(0, at, at + to - from);
    else {
      target.set(this.cache.pool.table.bytes(slot).subarray(from, to), at);
      this.cache.unpin(slot);
    }
  }

  async #pinAll(first: number, slots: number[], signal: AbortSignal | undefined): Promise<void> {
    let missing: Promise<void>[] | undefined;
    for (let i = 0; i < slots.length; i += 1) {
      slots[i] = this.cache.tryPin(this.#source, first + i);
      if (slots[i] !== MISS) continue;
      missing ??= [];
      missing.push(
        this.cache.pin(this.#source, first + i, signal).then((slot) => {
          slots[i] = slot;
        }),
      );
    }
    if (missing !== undefined) await allOrFirstError(missing);
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new Failure("EBADF", `The device of ${this.snapshotId} is closed.`);
    if (!(offset >= 0) || !(length >= 0) || offset + length > this.size) {
      throw new Failure("EINVAL", "The range is not inside the volume.");
    }
  }
}
