/**
 * A volume's bytes as they should be, a base and what was written over it; and which blocks its
 * snapshot must have: those of the base, and those in which a sector was written and not discarded
 * since, zeros or not.
 */
import { BLOCK_SIZE, SECTOR_SIZE } from "../../src/common/sizes.js";
import type { FakeSnapshot } from "./fake-ebs.js";

export class VolumeModel {
  readonly #blocks = new Map<number, Buffer>();
  readonly #base: Buffer;
  /** Sectors that were written, by number. */
  readonly #written = new Set<number>();

  /** @param base whole blocks; one of zeros is absent, and so is all behind them. */
  constructor(base: Buffer) {
    this.#base = base;
  }

  /** Writes bytes, zeros too. */
  fill(offset: number, length: number, byte: number): void {
    this.#set(offset, length, byte);
    const first = Math.floor(offset / SECTOR_SIZE);
    for (let sector = first; sector * SECTOR_SIZE < offset + length; sector++) {
      this.#written.add(sector);
    }
  }

  discard(offset: number, length: number): void {
    this.#set(offset, length, 0);
    const first = Math.ceil(offset / SECTOR_SIZE);
    const end = Math.floor((offset + length) / SECTOR_SIZE);
    for (const sector of this.#written) {
      if (sector >= first && sector < end) this.#written.delete(sector);
    }
  }

  /** Blocks at which the snapshot, over the base, does not show the volume, or is absent wrongly. */
  differences(snapshot: FakeSnapshot): number[] {
    for (let index = 0; index < this.#base.length / BLOCK_SIZE; index++) this.#block(index);
    for (const index of snapshot.blocks.keys()) this.#block(index);
    const required = new Set<number>();
    for (const sector of this.#written) {
      required.add(Math.floor((sector * SECTOR_SIZE) / BLOCK_SIZE));
    }
    return [...this.#blocks].flatMap(([index, block]) => {
      const base = this.#baseBlock(index);
      const put = snapshot.blocks.get(index);
      const isPresent = put !== undefined || base.some((byte) => byte !== 0);
      const isRight = (put ?? base).equals(block) && (isPresent || !required.has(index));
      return isRight ? [] : [index];
    });
  }

  #set(offset: number, length: number, byte: number): void {
    for (let at = offset; at < offset + length; ) {
      const index = Math.floor(at / BLOCK_SIZE);
      const end = Math.min(offset + length, (index + 1) * BLOCK_SIZE);
      this.#block(index).fill(byte, at - index * BLOCK_SIZE, end - index * BLOCK_SIZE);
      at = end;
    }
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
