/**
 * The cache's memory: slots of one block each, and control words that say what is in them, all in
 * shared memory, so that another thread finds and reads a cached block without a message. The main
 * thread is the only one that fills, publishes and takes away slots; any thread may find and pin.
 *
 * How no reader ever sees another block's bytes: a slot's pin word is -1 while the main thread owns
 * it (free, or being filled) and else the number of its readers. A reader raises it only from ≥ 0 by
 * compare-and-swap and then checks that the slot still holds the block it looks for; the main thread
 * takes a slot away only by changing 0 to -1, so never under a reader. A slot's key and bytes are
 * written while the word is -1 and made visible by storing ≥ 0. What a reader finds through the hash
 * table is only a hint: a change in between costs a miss, never a wrong block.
 *
 * Blocks known to be holes are remembered in a small table of single words, each a whole key: a
 * completed snapshot never changes, so an entry cannot become wrong, only be replaced.
 */
import { BLOCK_SIZE, MIB } from "../common/sizes.js";

/** Everything that another thread needs to look into the cache; survives structured clone. */
export interface SlotMemory {
  readonly slots: number;
  readonly control: SharedArrayBuffer;
  /** The slots' bytes; several buffers, because one cannot be large enough everywhere. */
  readonly segments: readonly SharedArrayBuffer[];
}

/** No slot: the block is not in memory. */
export const MISS = -1;
/** No slot: the block is known to be a hole; zeroBlock() is what it reads as. */
export const HOLE = -2;

const OWNED = -1;
const SLOTS_PER_SEGMENT = (256 * MIB) / BLOCK_SIZE;
/** Words at the start of control. */
const DIRECT_HITS = 0;
const SIGNAL = 1;
const CLOCK = 2;
const HEADER = 16;
const HOLES = 16_384;
/** Words of one slot. */
const PINS = 0;
const DEVICE = 1;
const BLOCK = 2;
const USED = 3;
const MARK = 4;
const STRIDE = 8;
/** A block index takes 27 bits (64 TiB), which leaves 5 for the device in a hole's word. */
export const BLOCK_BITS = 27;
const HOLE_DEVICES = 32;

export function createSlotMemory(slots: number): SlotMemory {
  const words = HEADER + HOLES + slots * STRIDE + hashSize(slots);
  const segments: SharedArrayBuffer[] = [];
  for (let left = slots; left > 0; left -= SLOTS_PER_SEGMENT) {
    segments.push(new SharedArrayBuffer(Math.min(left, SLOTS_PER_SEGMENT) * BLOCK_SIZE));
  }
  const memory = { slots, control: new SharedArrayBuffer(words * 4), segments };
  const control = new Int32Array(memory.control);
  for (let slot = 0; slot < slots; slot += 1) control[wordOf(slot) + PINS] = OWNED;
  return memory;
}

export class SlotTable {
  readonly slots: number;
  readonly #control: Int32Array;
  readonly #views: Uint8Array[];
  readonly #hashStart: number;
  readonly #hashMask: number;

  constructor(memory: SlotMemory) {
    this.slots = memory.slots;
    this.#control = new Int32Array(memory.control);
    this.#hashStart = HEADER + HOLES + memory.slots * STRIDE;
    this.#hashMask = hashSize(memory.slots) - 1;
    this.#views = Array.from({ length: memory.slots }, (_, slot) => {
      const segment = memory.segments[Math.floor(slot / SLOTS_PER_SEGMENT)] as SharedArrayBuffer;
      return new Uint8Array(segment, (slot % SLOTS_PER_SEGMENT) * BLOCK_SIZE, BLOCK_SIZE);
    });
  }

  // Any thread.

  /** Finds the block and pins its slot. @returns the slot, HOLE or MISS; only a slot is pinned. */
  pin(device: number, block: number): number {
    const c = this.#control;
    const slot = this.find(device, block);
    if (slot < 0) return this.isHole(device, block) ? HOLE : MISS;
    const word = wordOf(slot);
    for (;;) {
      const pins = Atomics.load(c, word + PINS);
      if (pins < 0) return MISS;
      if (Atomics.compareExchange(c, word + PINS, pins, pins + 1) === pins) break;
    }
    if (Atomics.load(c, word + DEVICE) === device && Atomics.load(c, word + BLOCK) === block) {
      Atomics.store(c, word + USED, Atomics.load(c, CLOCK));
      return slot;
    }
    this.unpin(slot);
    return MISS;
  }

  unpin(slot: number): void {
    Atomics.sub(this.#control, wordOf(slot) + PINS, 1);
  }

  /** The slot's bytes: to read while pinned, to fill while owned. */
  bytes(slot: number): Uint8Array {
    return this.#views[slot] as Uint8Array;
  }

  /** Where the block seems to be; MISS where it seems not to be in memory. */
  find(device: number, block: number): number {
    const c = this.#control;
    let at = hash(device, block) & this.#hashMask;
    for (let probes = 0; probes <= this.#hashMask; probes += 1) {
      const slot = Atomics.load(c, this.#hashStart + at) - 1;
      if (slot < 0) return MISS;
      const word = wordOf(slot);
      if (Atomics.load(c, word + DEVICE) === device && Atomics.load(c, word + BLOCK) === block) {
        return slot;
      }
      at = (at + 1) & this.#hashMask;
    }
    return MISS;
  }

  isHole(device: number, block: number): boolean {
    if (device >= HOLE_DEVICES) return false;
    return Atomics.load(this.#control, holeWord(device, block)) === holeKey(device, block);
  }

  /** Takes the mark off a slot; true for the one who did. */
  unmark(slot: number): boolean {
    const word = wordOf(slot) + MARK;
    const c = this.#control;
    return Atomics.load(c, word) !== 0 && Atomics.exchange(c, word, 0) !== 0;
  }

  /** True for the first to raise the signal since it was lowered. */
  raiseSignal(): boolean {
    return Atomics.exchange(this.#control, SIGNAL, 1) === 0;
  }

  lowerSignal(): void {
    Atomics.store(this.#control, SIGNAL, 0);
  }

  countDirectHits(blocks: number): void {
    Atomics.add(this.#control, DIRECT_HITS, blocks);
  }

  get directHits(): number {
    return Atomics.load(this.#control, DIRECT_HITS) >>> 0;
  }

  // The main thread only.

  /** Makes an owned, filled slot findable. @param pins readers it is pinned for from the start. */
  publish(slot: number, device: number, block: number, pins: number, marked: boolean): void {
    const c = this.#control;
    const word = wordOf(slot);
    Atomics.store(c, word + DEVICE, device);
    Atomics.store(c, word + BLOCK, block);
    // The clock counts publications: as if last used when all that is in the cache was not yet.
    Atomics.store(c, word + USED, (Atomics.add(c, CLOCK, 1) - this.slots) | 0);
    Atomics.store(c, word + MARK, marked ? 1 : 0);
    Atomics.store(c, word + PINS, pins);
    let at = hash(device, block) & this.#hashMask;
    while (c[this.#hashStart + at] !== 0) at = (at + 1) & this.#hashMask;
    Atomics.store(c, this.#hashStart + at, slot + 1);
  }

  /** Takes a slot away from its block, unless it is being read: then false. */
  takeAway(slot: number): boolean {
    const c = this.#control;
    const word = wordOf(slot);
    if (Atomics.compareExchange(c, word + PINS, 0, OWNED) !== 0) return false;
    this.#unhash(slot);
    // No device has the number 0: a stale hint from the hash table cannot match.
    Atomics.store(c, word + DEVICE, 0);
    return true;
  }

  /** Was read by any thread while the latest quarter of the cache was being filled. */
  wasUsedLately(slot: number): boolean {
    const c = this.#control;
    const age = (Atomics.load(c, CLOCK) - Atomics.load(c, wordOf(slot) + USED)) | 0;
    return age < this.slots / 4;
  }

  isMarked(slot: number): boolean {
    return Atomics.load(this.#control, wordOf(slot) + MARK) !== 0;
  }

  rememberHole(device: number, block: number): void {
    if (device >= HOLE_DEVICES) return;
    Atomics.store(this.#control, holeWord(device, block), holeKey(device, block));
  }

  /** Removes a slot from the hash table and closes the gap, so that probing needs no tombstones. */
  #unhash(slot: number): void {
    const c = this.#control;
    const start = this.#hashStart;
    const mask = this.#hashMask;
    let gap = this.#homeOf(slot);
    while (c[start + gap] !== slot + 1) gap = (gap + 1) & mask;
    for (let at = (gap + 1) & mask; c[start + at] !== 0; at = (at + 1) & mask) {
      const home = this.#homeOf((c[start + at] as number) - 1);
      // It may move into the gap if the gap lies on its way from home.
      if (((at - home) & mask) >= ((at - gap) & mask)) {
        Atomics.store(c, start + gap, c[start + at] as number);
        gap = at;
      }
    }
    Atomics.store(c, start + gap, 0);
  }

  #homeOf(slot: number): number {
    const word = wordOf(slot);
    const device = this.#control[word + DEVICE] as number;
    return hash(device, this.#control[word + BLOCK] as number) & this.#hashMask;
  }
}

const ZEROS = new Uint8Array(new SharedArrayBuffer(BLOCK_SIZE));

/** A block of zeros; never written. */
export function zeroBlock(): Uint8Array {
  return ZEROS;
}

function wordOf(slot: number): number {
  return HEADER + HOLES + slot * STRIDE;
}

/** At most half full, so that probes are short. */
function hashSize(slots: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(slots, 2) * 2));
}

function hash(device: number, block: number): number {
  let h = Math.imul(block ^ Math.imul(device, 0x85ebca6b), 0x9e3779b1);
  h ^= h >>> 15;
  return (h ^ (h >>> 7)) >>> 0;
}

function holeWord(device: number, block: number): number {
  return HEADER + (hash(device, block) & (HOLES - 1));
}

function holeKey(device: number, block: number): number {
  return (device << BLOCK_BITS) | block;
}
