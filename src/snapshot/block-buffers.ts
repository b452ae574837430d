/**
 * Block buffers in shared memory, so that worker threads hash, send and receive a block where it is,
 * and a fixed number of them: whoever wants one more waits, which is what bounds the memory of an
 * export however far the fetches are ahead of the disk.
 */
import { addressOf } from "../common/libc.js";
import { BLOCK_SIZE } from "../common/sizes.js";
import { ZEROS } from "../common/zeros.js";

/** One block of zeros, never written. */
export const ZERO_BLOCK: Buffer = ZEROS.subarray(0, BLOCK_SIZE);

/** A buffer for one block, in memory that worker threads can be given. */
export function sharedBlock(): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(BLOCK_SIZE));
}

/** What direct I/O asks of memory is its device's business; a page's size always does, bytes. */
const PAGE = 4096;

/** As sharedBlock, where a disk can read and write it without the page cache (O_DIRECT, open(2)). */
export function alignedBlock(): Uint8Array {
  const memory = new Uint8Array(new SharedArrayBuffer(BLOCK_SIZE + PAGE));
  const past = addressOf(memory) % PAGE;
  const start = past === 0 ? 0 : PAGE - past;
  return memory.subarray(start, start + BLOCK_SIZE);
}

export class BlockBuffers {
  readonly #free: Uint8Array[] = [];
  readonly #waiters: ((block: Uint8Array) => void)[] = [];
  readonly #make: () => Uint8Array;
  #unmade: number;

  /** @param count buffers at most; they are made when first needed. */
  constructor(count: number, make: () => Uint8Array = sharedBlock) {
    this.#unmade = count;
    this.#make = make;
  }

  /** A buffer with unknown content; waits while all are taken. */
  async take(): Promise<Uint8Array> {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#unmade > 0) {
      this.#unmade -= 1;
      return this.#make();
    }
    return await new Promise((resolve) => this.#waiters.push(resolve));
  }

  give(block: Uint8Array): void {
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) waiter(block);
    else this.#free.push(block);
  }
}
