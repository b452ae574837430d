/** A volume's bytes as they should be: a base, and what was written over it. */
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import type { FakeSnapshot } from "./fake-ebs.js";

export class VolumeModel {
  readonly #blocks = new Map<number, Buffer>();
  readonly #base: Buffer;

  /** @param base whole blocks; behind them are zeros. */
  constructor(base: Buffer) {
    this.#base = base;
  }

  fill(offset: number, length: number, byte: number): void {
    for (let at = offset; at < offset + length; ) {
      const index = Math.floor(at / BLOCK_SIZE);
      const end = Math.min(offset + length, (index + 1) * BLOCK_SIZE);
      this.#block(index).fill(byte, at - index * BLOCK_SIZE, end - index * BLOCK_SIZE);
      at = end;
    }
  }

  /** Blocks at which the snapshot, over the base, does not show the volume. */
  differences(snapshot: FakeSnapshot): number[] {
    for (let index = 0; index < this.#base.length / BLOCK_SIZE; index++) this.#block(index);
    for (const index of snapshot.blocks.keys()) this.#block(index);
    return [...this.#blocks].flatMap(([index, block]) => {
      const shown = snapshot.blocks.get(index) ?? this.#baseBlock(index);
      return shown.equals(block) ? [] : [index];
    });
  }

  #block(index: number): Buffer {
    let block = this.#blocks.get(index);
    if (block === undefined) {
      block = this.#baseBlock(index);
      this.#blocks.set(index, block);
    }
    return block;
  }

  #baseBlock(index: number): Buffer {
    const block = Buffer.alloc(BLOCK_SIZE);
    block.set(this.#base.subarray(index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE));
    return block;
  }
}
