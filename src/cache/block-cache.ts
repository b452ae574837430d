/**
 * The block cache: one memory budget, one fetch queue, for all snapshots of a mount. Whoever wants a
 * block gets its slot pinned, or learns that it is a hole; if it has to be fetched, all who want it
 * wait for one fetch. A reader that gives up leaves the fetch to the others; when nobody is left, it
 * is stopped. A failed fetch is told to those who wait, and for an instant to those who ask right
 * after: the kernel repeats a failed readahead as a read, and whoever reads would wait for all the
 * retries twice.
 *
 * No deadlock, however few the slots: a fetch that waits for a slot holds none, a fetched slot is
 * pinned for its waiters and released as soon as they have copied it, and views that hold pins for
 * long may take up at most half of the slots (`lend`).
 */
import { randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import { BroadcastChannel } from "node:worker_threads";
import { LRUCache } from "lru-cache";
import { errnoOf, Failure } from "../common/failure.js";
import { BLOCK_SIZE, MIB } from "../common/sizes.js";
import { FetchQueue, type Ticket } from "./fetch-queue.js";
import { keyOf, SlotPool } from "./slot-pool.js";
import { HOLE, MISS } from "./slot-table.js";

/** Where the blocks of one device come from. */
export interface BlockSource {
  /** From `BlockCache.addDevice`. */
  readonly device: number;
  /** What is known without asking anyone. */
  peek(block: number): "data" | "hole" | undefined;
  isWritten(block: number): Promise<boolean>;
  /** Fills `target`, verified; must touch it no more once it has settled. */
  load(block: number, target: Uint8Array, signal: AbortSignal): Promise<void>;
}

export interface BlockCacheOptions {
  /** Memory for blocks; 256 MiB unless told. Rounded to blocks, at least SMALLEST_CACHE. */
  readonly bytes?: number;
  /** Fetches at a time; 64 unless told. */
  readonly concurrency?: number;
  /** Longest wait for a free slot, ms; 60 s unless told. */
  readonly ioTimeoutMs?: number;
  /** Throttled requests so far (Meter.throttles), to slow down by. */
  readonly throttles?: () => number;
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

/** How long a fetch that readers waited for in vain is not tried again, ms; and of how many blocks. */
const FAILURE_ECHO_MS = 500;
const FAILURES_KEPT = 256;

interface Waiter {
  readonly resolve: (slot: number) => void;
  readonly reject: (error: unknown) => void;
  /** What it waits for; settled once that knows it no more. */
  fetch: Fetch;
}

/** One block on its way. */
class Fetch {
  readonly waiters = new Set<Waiter>();
  readonly stop = new AbortController();
  ticket: Ticket | undefined;
  /** Wanted though nobody waits: readahead. */
  ahead: boolean;

  constructor(ahead: boolean) {
    this.ahead = ahead;
  }
}

export class BlockCache {
  readonly pool: SlotPool;
  readonly queue: FetchQueue;
  readonly #ioTimeoutMs: number;
  readonly #fetches = new Map<number, Fetch>();
  /** Of fetches that have just failed after all their retries: key → error. */
  readonly #failures = new LRUCache<number, Failure>({
    max: FAILURES_KEPT,
    ttl: FAILURE_ECHO_MS,
  });
  readonly #listeners = new Set<() => void>();
  #channel: BroadcastChannel | undefined;
  #devices = 0;
  #lent = 0;
  #hits = 0;
  #misses = 0;
  #fetched = 0;

  constructor(options: BlockCacheOptions = {}) {
    const bytes = options.bytes ?? DEFAULT_CACHE_BYTES;
    this.pool = new SlotPool(Math.max(SMALLEST_CACHE, Math.floor(bytes / BLOCK_SIZE)));
    this.queue = new FetchQueue({
      concurrency: options.concurrency ?? 64,
      ...(options.throttles && { throttles: options.throttles }),
    });
    this.#ioTimeoutMs = options.ioTimeoutMs ?? 60_000;
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
   * @throws what the source throws; Failure EINTR on abort, ENOMEM where no slot came free in time.
   */
  pin(source: BlockSource, block: number, signal?: AbortSignal): Promise<number> {
    if (signal?.aborted) return Promise.reject(interrupted());
    // Whoever waited before calling may find it here by now.
    const known = this.pool.pin(source.device, block);
    if (known !== MISS) return Promise.resolve(known);
    this.#misses += 1;
    // A read of many blocks waits for all of them with one signal, which Node would warn about.
    if (signal !== undefined) setMaxListeners(0, signal);
    const key = keyOf(source.device, block);
    const failure = this.#failures.get(key);
    if (failure !== undefined) return Promise.reject(failure);
    const fetch = this.#fetches.get(key) ?? this.#start(key, source, block, false);
    if (fetch.ticket !== undefined) this.queue.promote(fetch.ticket);
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        const { fetch } = waiter;
        if (!fetch.waiters.delete(waiter)) return;
        reject(interrupted());
        if (fetch.waiters.size === 0 && !fetch.ahead) this.#abandon(key, fetch);
      };
      const end = () => signal?.removeEventListener("abort", giveUp);
      const waiter: Waiter = {
        resolve: (slot) => {
          end();
          resolve(slot);
        },
        reject: (error) => {
          end();
          reject(error);
        },
        fetch,
      };
      fetch.waiters.add(waiter);
      signal?.addEventListener("abort", giveUp, { once: true });
    });
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
    if (source.peek(block) === "hole") {
      this.pool.table.rememberHole(device, block);
      return;
    }
    const key = keyOf(device, block);
    if (!this.#fetches.has(key)) this.#start(key, source, block, true);
  }

  /** Drops a prefetch that has not started and that nobody waits for. */
  cancelPrefetch(source: BlockSource, block: number): void {
    const key = keyOf(source.device, block);
    const fetch = this.#fetches.get(key);
    if (fetch === undefined || fetch.waiters.size > 0) return;
    if (fetch.ticket === undefined || this.queue.cancel(fetch.ticket)) this.#abandon(key, fetch);
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
      fetched: this.#fetched,
      wasted: this.pool.wasted,
      fetchesRunning: this.queue.running,
      fetchesWaiting: this.queue.waiting,
      fetchLimit: this.queue.limit,
    };
  }

  /** Stops all fetches of a device; those who wait get EINTR. */
  removeDevice(device: number): void {
    for (const [key, fetch] of this.#fetches) {
      if (Math.floor(key / 2 ** 27) === device) {
        this.#abandon(key, fetch);
        settleAll(fetch, (waiter) => waiter.reject(interrupted()));
      }
    }
  }

  #start(key: number, source: BlockSource, block: number, ahead: boolean): Fetch {
    const fetch = new Fetch(ahead);
    this.#fetches.set(key, fetch);
    this.#run(fetch, source, block).then(
      (slot) => this.#finish(key, fetch, source, block, slot),
      (error: unknown) => {
        this.#forget(key, fetch);
        if (fetch.waiters.size > 0 && isExhausted(error)) this.#failures.set(key, error);
        settleAll(fetch, (waiter) => waiter.reject(error));
      },
    );
    return fetch;
  }

  /** @returns an owned slot that holds the block, or HOLE, or MISS for readahead without room. */
  async #run(fetch: Fetch, source: BlockSource, block: number): Promise<number> {
    const { signal } = fetch.stop;
    if (source.peek(block) !== "data" && !(await source.isWritten(block))) return HOLE;
    if (signal.aborted) throw interrupted();
    const ticket = this.queue.enter(fetch.waiters.size > 0 || !fetch.ahead);
    fetch.ticket = ticket;
    if (!(await ticket.started)) throw interrupted();
    try {
      const slot = await this.#takeSlot(fetch);
      if (slot === MISS) return MISS;
      try {
        if (signal.aborted) throw interrupted();
        await source.load(block, this.pool.table.bytes(slot), signal);
        if (signal.aborted) throw interrupted();
        this.#fetched += 1;
        return slot;
      } catch (error) {
        this.pool.giveBack(slot);
        throw error;
      }
    } finally {
      this.queue.leave(ticket);
    }
  }

  /** Readahead does not wait for room: it is dropped, unless someone came to wait for it. */
  async #takeSlot(fetch: Fetch): Promise<number> {
    const slot = this.pool.take();
    if (slot !== MISS || fetch.waiters.size === 0) return slot;
    return await this.pool.takeSoon(this.#ioTimeoutMs);
  }

  #finish(key: number, fetch: Fetch, source: BlockSource, block: number, slot: number): void {
    const { device } = source;
    if (this.#fetches.get(key) !== fetch) {
      // Abandoned at the last moment; another fetch may have published the block since.
      if (slot >= 0) this.pool.giveBack(slot);
      return;
    }
    this.#fetches.delete(key);
    if (slot === MISS) {
      // Dropped for want of room just when someone came to wait for it.
      if (fetch.waiters.size > 0) this.#handOver(fetch, this.#start(key, source, block, false));
      return;
    }
    const waiting = fetch.waiters.size;
    if (slot === HOLE) this.pool.table.rememberHole(device, block);
    else this.pool.publish(slot, device, block, waiting, waiting === 0);
    settleAll(fetch, (waiter) => waiter.resolve(slot));
  }

  #handOver(from: Fetch, to: Fetch): void {
    for (const waiter of from.waiters) {
      waiter.fetch = to;
      to.waiters.add(waiter);
    }
    from.waiters.clear();
  }

  /** From now on the block is fetched anew for whoever asks. */
  #abandon(key: number, fetch: Fetch): void {
    this.#forget(key, fetch);
    fetch.stop.abort();
    if (fetch.ticket !== undefined) this.queue.cancel(fetch.ticket);
  }

  #forget(key: number, fetch: Fetch): void {
    if (this.#fetches.get(key) === fetch) this.#fetches.delete(key);
  }
}

function settleAll(fetch: Fetch, settle: (waiter: Waiter) => void): void {
  const waiters = [...fetch.waiters];
  fetch.waiters.clear();
  for (const waiter of waiters) settle(waiter);
}

/** It was tried for as long as it may be. */
function isExhausted(error: unknown): error is Failure {
  const errno = errnoOf(error);
  return error instanceof Failure && (errno === "ETIMEDOUT" || errno === "EIO");
}

function interrupted(): Failure {
  return new Failure("EINTR", "The read was interrupted.");
}
