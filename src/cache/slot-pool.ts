/**
 * The main thread's side of the slots: which are free, and which to take next. lru-cache keeps the
 * order of use; a slot that was read lately is given a second chance, because reads answered in
 * another thread are not seen here. (Lately, not ever: else blocks that a sequential reader is done
 * with would outlive those read ahead for it.) A slot being read is passed over. Where none can be had, the
 * caller waits; a release here wakes it at once, a release in another thread within milliseconds.
 */
import { LRUCache } from "lru-cache";
import { Failure } from "../common/failure.js";
import { BLOCK_SIZE } from "../common/sizes.js";
import { BLOCK_BITS, createSlotMemory, MISS, type SlotMemory, SlotTable } from "./slot-table.js";

/** Second chances given for one slot taken. */
const SECOND_CHANCES = 64;
/** How often slots are looked for while someone waits, ms. */
const POLL_MS = 2;

interface Waiter {
  readonly give: (slot: number) => void;
  readonly fail: (error: Failure) => void;
  readonly until: number;
}

export class SlotPool {
  readonly memory: SlotMemory;
  readonly table: SlotTable;
  readonly #free: number[];
  /** Key → slot, of published slots. */
  readonly #order: LRUCache<number, number>;
  readonly #waiters: Waiter[] = [];
  #poll: NodeJS.Timeout | undefined;
  #wasted = 0;

  constructor(slots: number) {
    this.memory = createSlotMemory(slots);
    this.table = new SlotTable(this.memory);
    this.#free = Array.from({ length: slots }, (_, i) => slots - 1 - i);
    this.#order = new LRUCache({ max: slots });
  }

  /** Published slots. */
  get used(): number {
    return this.#order.size;
  }

  /** Blocks read ahead and taken away before anyone read them. */
  get wasted(): number {
    return this.#wasted;
  }

  /** As SlotTable.pin; remembers the use. */
  pin(device: number, block: number): number {
    const slot = this.table.pin(device, block);
    if (slot >= 0) this.#order.get(keyOf(device, block));
    return slot;
  }

  unpin(slot: number): void {
    this.table.unpin(slot);
    if (this.#waiters.length > 0) this.#serve();
  }

  /** Someone waits in takeSoon. */
  get hasWaiters(): boolean {
    return this.#waiters.length > 0;
  }

  /** A slot to fill, or MISS where none can be had now. */
  take(): number {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    // Everything may have been read lately: then the first round's spared are met again, unspared.
    let chances = Math.min(SECOND_CHANCES, this.#order.size);
    const { table } = this;
    for (let looked = 2 * this.#order.size; looked > 0; looked -= 1) {
      const key = this.#order.rkeys().next().value as number;
      const slot = this.#order.peek(key) as number;
      const spared = chances > 0 && table.wasUsedLately(slot);
      if (!spared && table.takeAway(slot)) {
        if (table.isMarked(slot)) this.#wasted += 1;
        this.#order.delete(key);
        return slot;
      }
      if (spared) chances -= 1;
      this.#order.get(key);
    }
    return MISS;
  }

  /**
   * A slot to fill, waiting for one if need be.
   * @throws Failure ENOMEM where none came free for `limitMs`.
   */
  takeSoon(limitMs: number): Promise<number> {
    const slot = this.#waiters.length === 0 ? this.take() : MISS;
    if (slot !== MISS) return Promise.resolve(slot);
    return new Promise((give, fail) => {
      this.#waiters.push({ give, fail, until: performance.now() + limitMs });
      this.#poll ??= setInterval(() => this.#serve(), POLL_MS);
    });
  }

  /** Gives back a slot that was taken and not published. */
  giveBack(slot: number): void {
    this.#free.push(slot);
    if (this.#waiters.length > 0) this.#serve();
  }

  publish(slot: number, device: number, block: number, pins: number, marked: boolean): void {
    this.table.publish(slot, device, block, pins, marked);
    this.#order.set(keyOf(device, block), slot);
  }

  #serve(): void {
    while (this.#waiters.length > 0) {
      const waiter = this.#waiters[0] as Waiter;
      const slot = this.take();
      if (slot === MISS && performance.now() < waiter.until) return;
      this.#waiters.shift();
      if (slot !== MISS) waiter.give(slot);
      else waiter.fail(tooSmall(this.table.slots));
    }
    clearInterval(this.#poll);
    this.#poll = undefined;
  }
}

/** More than the blocks of the largest volume, 64 TiB. */
const BLOCKS = 2 ** BLOCK_BITS;

/** One number for a block of a device. */
export function keyOf(device: number, block: number): number {
  return device * BLOCKS + block;
}

/** The device of such a number. */
export function deviceOf(key: number): number {
  return Math.floor(key / BLOCKS);
}

function tooSmall(slots: number): Failure {
  return new Failure(
    "ENOMEM",
    `All ${slots} blocks of the cache (${slots * BLOCK_SIZE} bytes) stayed in use; mount with a larger --cache-size.`,
  );
}
