/**
 * A fixed-size answer to "was this block ever written?" for a thread that cannot see the overlay: a
 * bit for a block, found by the block index modulo the number of bits, in shared memory. The bit is
 * set before a write or discard returns and never cleared while mounted, so a clear bit means that
 * the base's bytes are right; a set bit may also stem from another block, which only costs speed.
 * With 1 Mi bits (128 KiB) volumes up to 512 GiB have no such collisions.
 */
const BITS = 1 << 20;

export class DirtyFilter {
  /** Send this to the other thread and make a DirtyFilter of it there. */
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(BITS / 8)) {
    this.memory = memory;
    this.#words = new Int32Array(memory);
  }

  /** False only where the block was certainly neither written nor discarded. */
  mayBeDirty(blockIndex: number): boolean {
    const bit = blockIndex & (BITS - 1);
    return (Atomics.load(this.#words, bit >> 5) & (1 << (bit & 31))) !== 0;
  }

  /** Marks blocks [first, end). */
  mark(first: number, end: number): void {
    if (end - first >= BITS) {
      for (let word = 0; word < this.#words.length; word++) Atomics.store(this.#words, word, -1);
      return;
    }
    for (let block = first; block < end; block++) {
      const bit = block & (BITS - 1);
      // Reading first keeps the cache line shared for the blocks that are written again and again.
      if (!this.mayBeDirty(block)) Atomics.or(this.#words, bit >> 5, 1 << (bit & 31));
    }
  }
}
