/**
 * The block cache: one memory budget, one fetch queue, for all snapshots of a mount. Whoever wants a
 * block gets its slot pinned, or learns that it is a hole; what is not here is fetched (block-fetcher.ts).
 *
 * No deadlock, however few the slots: a fetch that waits for a slot holds none, a fetched slot is
 * pinned for its waiters and released as soon as they have copied it, and views that hold pins for
 * long may take up at most half of the slots (`lend`).
 */
import { randomUUID } from "node:crypto";
import { BroadcastChannel } from "node:worker_threads";
import { BLOCK_SIZE, MIB } from "../common/sizes.js";
import { interrupted } from "./block-fetch.js";
import { BlockFetcher, type BlockSource } from "./block-fetcher.js";
import { FetchQueue } from "./fetch-queue.js";
import { SlotPool } from "./slot-pool.js";
import { HOLE, MISS } from "./slot-table.js";

export interface BlockCacheOptions {
  /** Memory for blocks; 256 MiB unless told. Rounded to blocks, at least SMALLEST_CACHE. */
  readonly bytes?: number;
  /** Fetches at a time; 64 unless told. */
  readonly concurrency?: number;
  /** Longest wait for a block, in line and under way, ms; 60 s unless told. */
  readonly ioTimeoutMs?: number;
  /** Throttled requests so far (Meter.throttles), to slow down by. */
  readonly throttles?: () => number;
  /** Blocks that the line carries at a time now (EbsApi.getsAtATime). */
  readonly line?: () => number;
}

export interface CacheStatistics {
  readonly cachedBytes: number;
  readonly capacityBytes: number;
  /** Reads of a block that was in memory; those answered by another thread among them. */
  readonly hits: number;
  readonly directHits: number;
  /** Reads of a block that had to be fetched or waited for. */
  readonly misses: number;
  /** Blocks fetched, and of those read ahead the ones that nobody read before they had to go. */
  readonly fetched: number;
  readonly wasted: number;
  readonly fetchesRunning: number;
  readonly fetchesWaiting: number;
  readonly fetchLimit: number;
}

const DEFAULT_CACHE_BYTES = 256 * MIB;
/** A read of 1 MiB can span three blocks; half of the slots may be lent. */
const SMALLEST_CACHE = 8;

export class BlockCache {
  readonly pool: SlotPool;
  readonly queue: FetchQueue;
  readonly #fetcher: BlockFetcher;
  readonly #listeners = new Set<() => void>();
  #channel: BroadcastChannel | undefined;
  #devices = 0;
  #lent = 0;
  #hits = 0;
  #misses = 0;

  constructor(options: BlockCacheOptions = {}) {
    const bytes = options.bytes ?? DEFAULT_CACHE_BYTES;
    this.pool = new SlotPool(Math.max(SMALLEST_CACHE, Math.floor(bytes / BLOCK_SIZE)));
    this.queue = new FetchQueue({
      concurrency: options.concurrency ?? 64,
      ...(options.throttles && { throttles: options.throttles }),
      ...(options.line && { line: options.line }),
    });
    this.#fetcher = new BlockFetcher(this.pool, this.queue, options.ioTimeoutMs ?? 60_000);
  }

  /** A number for a new device; 1 and up, never given twice. */
  addDevice(): number {
    this.#devices += 1;
    return this.#devices;
  }

  get deviceCount(): number {
    return this.#devices;
  }

  get slots(): number {
    return this.pool.table.slots;
  }

  /** The block's slot, pinned, or HOLE, or MISS, at once. */
  tryPin(source: BlockSource, block: number): number {
    const slot = this.pool.pin(source.device, block);
    if (slot >= 0) this.pool.table.unmark(slot);
    if (slot !== MISS) this.#hits += 1;
    else if (source.peek(block) === "hole") {
      this.pool.table.rememberHole(source.device, block);
      this.#hits += 1;
      return HOLE;
    }
    return slot;
  }

  /**
   * The block's slot, pinned until `unpin`, or HOLE; call after tryPin has missed.
   * @throws as BlockFetcher.pin.
   */
  pin(source: BlockSource, block: number, signal?: AbortSignal): Promise<number> {
    if (signal?.aborted) return Promise.reject(interrupted());
    // Whoever waited before calling may find it here by now.
    const known = this.pool.pin(source.device, block);
    if (known !== MISS) return Promise.resolve(known);
    this.#misses += 1;
    return this.#fetcher.pin(source, block, signal);
  }

  unpin(slot: number): void {
    if (slot >= 0) this.pool.unpin(slot);
  }

  /** Permission to hold pins on that many slots for as long as one likes; give back by `unlend`. */
  lend(count: number): boolean {
    if (this.#lent + count > this.slots / 2) return false;
    this.#lent += count;
    return true;
  }

  unlend(count: number): void {
    this.#lent -= count;
  }

  /** Fetches a block that someone may want soon. */
  prefetch(source: BlockSource, block: number): void {
    const { device } = source;
    if (this.pool.table.find(device, block) !== MISS) return;
    if (source.peek(block) === "hole") this.pool.table.rememberHole(device, block);
    else this.#fetcher.prefetch(source, block);
  }

  /** Drops a prefetch that has not started and that nobody waits for. */
  cancelPrefetch(source: BlockSource, block: number): void {
    this.#fetcher.cancelPrefetch(source, block);
  }

  /** True where the block was read ahead and has been read since, by any thread. */
  wasReached(device: number, block: number): boolean {
    const slot = this.pool.table.find(device, block);
    return slot !== MISS && !this.pool.table.isMarked(slot);
  }

  /** Calls `listener` when a block that was read ahead is read in another thread, until stopped. */
  onReached(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Name of the BroadcastChannel by which another thread says that it raised the table's signal. */
  signalChannel(): string {
    if (this.#channel === undefined) {
      const channel = new BroadcastChannel(`ebsmount-${randomUUID()}`);
      channel.onmessage = () => {
        this.pool.table.lowerSignal();
        for (const listener of this.#listeners) listener();
      };
      channel.unref();
      this.#channel = channel;
    }
    return this.#channel.name;
  }

  /** After the devices were closed. */
  close(): void {
    this.#fetcher.close();
    this.#channel?.close();
  }

  statistics(): CacheStatistics {
    const { directHits } = this.pool.table;
    return {
      cachedBytes: this.pool.used * BLOCK_SIZE,
      capacityBytes: this.slots * BLOCK_SIZE,
      hits: this.#hits + directHits,
      directHits,
      misses: this.#misses,
      fetched: this.#fetcher.fetched,
      wasted: this.pool.wasted,
      fetchesRunning: this.queue.running,
      fetchesWaiting: this.queue.waiting,
      fetchLimit: this.queue.limit,
    };
  }

  /** Stops all fetches of a device; those who wait get EINTR. */
  removeDevice(device: number): void {
    this.#fetcher.removeDevice(device);
  }
}
