/**
 * A disk of zeros: what a blank volume is made of before anyone writes. It holds no memory but one
 * shared buffer of zeros, which its views lend again and again.
 */
import { Failure } from "../common/failure.js";
import { ZEROS } from "../common/zeros.js";
import type { BlockDevice, Extent, View } from "./block-device.js";

/** A view of `length` zero bytes; the parts share memory and must not be written. */
export function zeroView(length: number): View {
  const parts: Uint8Array[] = [];
  for (let left = length; left > 0; left -= ZEROS.length) {
    parts.push(left >= ZEROS.length ? ZEROS : ZEROS.subarray(0, left));
  }
  return { parts, release: () => {} };
}

export class ZeroDevice implements BlockDevice {
  readonly size: number;

  /** @param size bytes */
  constructor(size: number) {
    this.size = size;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.#check(offset, target.length);
    target.fill(0);
  }

  async view(offset: number, length: number): Promise<View> {
    this.#check(offset, length);
    return zeroView(length);
  }

  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    this.#check(offset, length);
    if (length > 0) yield { offset, length, kind: "hole" };
  }

  allocatedBytes(): number {
    return 0;
  }

  async close(): Promise<void> {}

  #check(offset: number, length: number): void {
    if (offset < 0 || length < 0 || offset + length > this.size) {
      throw new Failure("EINVAL", "The range is not inside the volume.");
    }
  }
}
