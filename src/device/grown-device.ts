/**
 * A disk made larger than the one below it: the bytes past the lower disk's end are zeros, as in a
 * volume that was created from a smaller snapshot. Closing it closes the disk below.
 */
import { Failure } from "../common/failure.js";
import type { BlockDevice, Extent, View } from "./block-device.js";
import { zeroView } from "./zero-device.js";

export class GrownDevice implements BlockDevice {
  readonly size: number;
  readonly #below: BlockDevice;

  /**
   * @param size bytes, not less than the size of `below`
   * @throws Failure EINVAL where it is less
   */
  constructor(below: BlockDevice, size: number) {
    if (size < below.size) {
      throw new Failure(
        "EINVAL",
        "A volume cannot be made smaller than the snapshot it starts from.",
      );
    }
    this.size = size;
    this.#below = below;
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const inside = this.#inside(offset, target.length);
    if (inside > 0) await this.#below.read(offset, target.subarray(0, inside), signal);
    target.fill(0, inside);
  }

  async view(offset: number, length: number, signal?: AbortSignal): Promise<View> {
    const inside = this.#inside(offset, length);
    const zeros = zeroView(length - inside);
    if (inside === 0) return zeros;
    if (inside === length) return this.#below.view(offset, length, signal);
    const lent = await this.#below.view(offset, inside, signal);
    return { parts: [...lent.parts, ...zeros.parts], release: () => lent.release() };
  }

  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    const inside = this.#inside(offset, length);
    if (inside > 0) yield* this.#below.extents(offset, inside);
    if (inside < length) yield { offset: offset + inside, length: length - inside, kind: "hole" };
  }

  allocatedBytes(): number | undefined {
    return this.#below.allocatedBytes();
  }

  close(): Promise<void> {
    return this.#below.close();
  }

  /** How many of the range's bytes the disk below has. */
  #inside(offset: number, length: number): number {
    if (offset < 0 || length < 0 || offset + length > this.size) {
      throw new Failure("EINVAL", "The range is not inside the volume.");
    }
    return Math.min(length, Math.max(0, this.#below.size - offset));
  }
}
