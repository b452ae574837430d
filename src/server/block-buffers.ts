/**
 * Block-sized buffers that are used again: a fresh 512 KiB costs the kernel 128 page faults, which
 * is more than the read that fills it. A buffer remembers which seed's template it holds, so that
 * a synthetic block served after another of the same seed only needs its stamps (synthetic.ts).
 */
import { BLOCK_SIZE } from "../common/sizes.js";

/** Buffers kept while nobody uses them: 64 MiB at most. */
const MAX_FREE = 128;

export interface BlockBuffer {
  readonly bytes: Buffer;
  readonly words: Uint32Array;
  /** Seed of the synthetic template that the buffer still holds, undefined for other data. */
  seed: number | undefined;
}

export class BlockBuffers {
  readonly #free: BlockBuffer[] = [];

  take(): BlockBuffer {
    const kept = this.#free.pop();
    if (kept !== undefined) return kept;
    const memory = new ArrayBuffer(BLOCK_SIZE);
    return { bytes: Buffer.from(memory), words: new Uint32Array(memory), seed: undefined };
  }

  /** Only when nothing, the kernel included, will read the buffer any more. */
  give(buffer: BlockBuffer): void {
    if (this.#free.length < MAX_FREE) this.#free.push(buffer);
  }
}
