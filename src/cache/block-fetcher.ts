/**
 * Brings blocks into the cache. All who want a block wait for one fetch of it. A reader that gives up
 * leaves the fetch to the others; when nobody is left, it is stopped. A failed fetch is told to those
 * who wait, and is tried anew for whoever asks next.
 */
import { setMaxListeners } from "node:events";
import { BlockFetch, interrupted } from "./block-fetch.js";
import { FailureEcho } from "./failure-echo.js";
import type { FetchQueue } from "./fetch-queue.js";
import { deviceOf, keyOf, type SlotPool } from "./slot-pool.js";
import { HOLE, MISS } from "./slot-table.js";

/** Where the blocks of one device come from. */
export interface BlockSource {
  /** From `BlockCache.addDevice`. */
  readonly device: number;
  /** What is known without asking anyone. */
  peek(block: number): "data" | "hole" | undefined;
  isWritten(block: number): Promise<boolean>;
  /** For sentences, e.g. `block 7 of snap-0123`. */
  describe(block: number): string;
  /** Fills `target`, verified; must touch it no more once it has settled. */
  load(block: number, target: Uint8Array, signal: AbortSignal): Promise<void>;
}

/** How often it is looked whether somebody has waited for long enough, ms. */
const LOOK_EVERY_MS = 250;
/** How many times --io-timeout a reader waits while blocks arrive, of which others' may come first. */
const MAX_STRETCH = 5;

export class BlockFetcher {
  readonly #pool: SlotPool;
  readonly #queue: FetchQueue;
  readonly #ioTimeoutMs: number;
  readonly #fetches = new Map<number, BlockFetch>();
  readonly #echo = new FailureEcho();
  #lookout: NodeJS.Timeout | undefined;
  #fetched = 0;
  /** When a block arrived last. */
  #arrivedAt = Number.NEGATIVE_INFINITY;

  /** @param ioTimeoutMs longest wait for a block, ms. */
  constructor(pool: SlotPool, queue: FetchQueue, ioTimeoutMs: number) {
    this.#pool = pool;
    this.#queue = queue;
    this.#ioTimeoutMs = ioTimeoutMs;
  }

  /** Blocks fetched so far. */
  get fetched(): number {
    return this.#fetched;
  }

  /**
   * The block's slot, pinned, or HOLE.
   * @throws what the source throws; Failure EINTR on abort, ETIMEDOUT where no block has arrived for
   * ioTimeoutMs, or this one not for MAX_STRETCH times that, ENOMEM where no slot came free in time.
   */
  pin(source: BlockSource, block: number, signal?: AbortSignal): Promise<number> {
    // A read of many blocks waits for all of them with one signal, which Node would warn about.
    if (signal !== undefined) setMaxListeners(0, signal);
    const key = keyOf(source.device, block);
    const failure = this.#echo.take(key);
    if (failure !== undefined) return Promise.reject(failure);
    const fetch = this.#fetches.get(key) ?? this.#start(key, source, block, false);
    if (fetch.ticket !== undefined) this.#queue.promote(fetch.ticket);
    this.#lookout ??= setInterval(() => this.#look(), LOOK_EVERY_MS).unref();
    const limitMs = this.#ioTimeoutMs;
    return fetch.wait(limitMs, limitMs * MAX_STRETCH, signal, (left) => {
      if (left.isUnwanted) this.#abandon(left);
    });
  }

  /** Fetches a block that someone may want soon; it must not be known to be here, or a hole. */
  prefetch(source: BlockSource, block: number): void {
    const key = keyOf(source.device, block);
    if (!this.#fetches.has(key)) this.#start(key, source, block, true);
  }

  /** Drops a prefetch that has not started and that nobody waits for. */
  cancelPrefetch(source: BlockSource, block: number): void {
    const key = keyOf(source.device, block);
    const fetch = this.#fetches.get(key);
    if (fetch === undefined || fetch.waiters.size > 0) return;
    if (fetch.ticket === undefined || this.#queue.cancel(fetch.ticket)) this.#abandon(fetch);
  }

  /** Stops all fetches of a device; those who wait get EINTR. */
  removeDevice(device: number): void {
    for (const [key, fetch] of this.#fetches) {
      if (deviceOf(key) === device) {
        this.#abandon(fetch);
        fetch.fail(interrupted());
      }
    }
  }

  close(): void {
    clearInterval(this.#lookout);
  }

  /** Ends the waits that have taken too long. */
  #look(): void {
    const now = performance.now();
    let waited = false;
    const isMoving = now - this.#arrivedAt < this.#ioTimeoutMs;
    for (const fetch of [...this.#fetches.values()]) {
      const expired = fetch.expire(now, isMoving);
      for (const failure of expired) this.#echo.add(fetch.key, failure, 1);
      if (fetch.isUnwanted) this.#abandon(fetch);
      waited ||= fetch.waiters.size > 0;
    }
    if (waited) return;
    clearInterval(this.#lookout);
    this.#lookout = undefined;
  }

  #start(key: number, source: BlockSource, block: number, ahead: boolean): BlockFetch {
    const fetch = new BlockFetch(key, ahead, source.describe(block));
    this.#fetches.set(key, fetch);
    this.#run(fetch, source, block).then(
      (slot) => this.#finish(fetch, source, block, slot),
      (error: unknown) => {
        this.#forget(fetch);
        this.#echo.add(key, error, fetch.waiters.size);
        fetch.fail(error);
      },
    );
    return fetch;
  }

  /** @returns an owned slot that holds the block, or HOLE, or MISS for readahead without room. */
  async #run(fetch: BlockFetch, source: BlockSource, block: number): Promise<number> {
    const { signal } = fetch.stop;
    if (source.peek(block) !== "data" && !(await source.isWritten(block))) return HOLE;
    if (signal.aborted) throw interrupted();
    const ticket = this.#queue.enter(fetch.waiters.size > 0 || !fetch.ahead);
    fetch.ticket = ticket;
    if (!(await ticket.started)) throw interrupted();
    let went: "well" | "badly" = "badly";
    try {
      const slot = await this.#takeSlot(fetch);
      if (slot === MISS) return MISS;
      try {
        if (signal.aborted) throw interrupted();
        await source.load(block, this.#pool.table.bytes(slot), signal);
        if (signal.aborted) throw interrupted();
        this.#fetched += 1;
        this.#arrivedAt = performance.now();
        went = "well";
        return slot;
      } catch (error) {
        this.#pool.giveBack(slot);
        throw error;
      }
    } finally {
      this.#queue.leave(ticket, went);
    }
  }

  /**
   * Readahead does not wait for room: it is dropped, unless someone came to wait for it. Nobody
   * overtakes those who wait for a slot already.
   */
  async #takeSlot(fetch: BlockFetch): Promise<number> {
    const slot = this.#pool.hasWaiters ? MISS : this.#pool.take();
    if (slot !== MISS || fetch.waiters.size === 0) return slot;
    return await this.#pool.takeSoon(this.#ioTimeoutMs);
  }

  #finish(fetch: BlockFetch, source: BlockSource, block: number, slot: number): void {
    const { device } = source;
    const { key } = fetch;
    if (this.#fetches.get(key) !== fetch) {
      // Abandoned at the last moment; another fetch may have published the block since.
      if (slot >= 0) this.#pool.giveBack(slot);
      return;
    }
    this.#fetches.delete(key);
    if (slot === MISS) {
      // Dropped for want of room just when someone came to wait for it.
      if (fetch.waiters.size > 0) fetch.handOver(this.#start(key, source, block, false));
      return;
    }
    const waiting = fetch.waiters.size;
    if (slot === HOLE) this.#pool.table.rememberHole(device, block);
    else this.#pool.publish(slot, device, block, waiting, waiting === 0);
    fetch.succeed(slot);
  }

  /** From now on the block is fetched anew for whoever asks. */
  #abandon(fetch: BlockFetch): void {
    this.#forget(fetch);
    fetch.stop.abort();
    if (fetch.ticket !== undefined) this.#queue.cancel(fetch.ticket);
  }

  #forget(fetch: BlockFetch): void {
    if (this.#fetches.get(fetch.key) === fetch) this.#fetches.delete(fetch.key);
  }
}
