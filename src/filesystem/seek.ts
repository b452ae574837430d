/**
 * lseek with SEEK_DATA and SEEK_HOLE over a device's extents, with a bound on the work of one call:
 * each extent can cost a list call, and a fully written 64 TiB volume has thousands. Where the bound
 * is met, the position reached is the answer, and the programs that walk a file by turns (cp, tar,
 * qemu-img) go on from it:
 * - SEEK_HOLE answers a hole of no length; SEEK_DATA at it answers the same position again.
 * - SEEK_DATA calls the hole it stands in data, which is always allowed. The next SEEK_HOLE must then
 *   lie behind it, or the walk would never move: so a Seeker (one per open file) remembers that
 *   position and gives it the length of one block.
 */
import { Failure } from "../common/failure.js";
import { BLOCK_SIZE } from "../common/sizes.js";
import type { BlockDevice } from "../device/block-device.js";

/** Extents looked at in one call. */
export const MAX_EXTENTS_PER_SEEK = 128;

export class Seeker {
  readonly #device: BlockDevice;
  /** Where a hole was called data last. */
  #assumedData = -1;

  constructor(device: BlockDevice) {
    this.#device = device;
  }

  /** The first data at or after `offset`, bytes. @throws Failure ENXIO where only a hole follows. */
  async data(offset: number): Promise<number> {
    const position = await this.#first("data", offset);
    if (position === undefined) {
      throw new Failure("ENXIO", `There is no data at or after byte ${offset}.`);
    }
    return position;
  }

  /** The first hole at or after `offset`, bytes; the end of the device where none precedes it. */
  async hole(offset: number): Promise<number> {
    if (offset === this.#assumedData) return Math.min(offset + BLOCK_SIZE, this.#device.size);
    return (await this.#first("hole", offset)) ?? this.#device.size;
  }

  async #first(kind: "data" | "hole", offset: number): Promise<number | undefined> {
    const { size } = this.#device;
    if (offset < 0 || offset >= size) {
      throw new Failure("ENXIO", `Byte ${offset} is not inside the image.`);
    }
    let left = MAX_EXTENTS_PER_SEEK;
    for await (const extent of this.#device.extents(offset, size - offset)) {
      if (extent.kind === kind) return Math.max(offset, extent.offset);
      const position = extent.offset + extent.length;
      left -= 1;
      if (left === 0 && position < size) {
        if (kind === "data") this.#assumedData = position;
        return position;
      }
    }
    return undefined;
  }
}
