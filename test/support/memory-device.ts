/**
 * A disk in memory, for tests: a BlockDevice or WritableBlockDevice over one Buffer. Unwritten
 * blocks are holes; the extents are counted in a unit the test chooses. Calls can be delayed, made
 * to fail, and are counted.
 */
import type {
  BlockDevice,
  Extent,
  View,
  WritableBlockDevice,
} from "../../src/device/block-device.js";

export interface MemoryDeviceOptions {
  /** Granularity of extents, bytes. */
  readonly unit?: number;
  /** Whether allocatedBytes tells. */
  readonly known?: boolean;
}

export class ReadOnlyMemoryDevice implements BlockDevice {
  readonly size: number;
  readonly bytes: Buffer;
  /** Awaited before each read; throw to fail it. */
  beforeRead: (offset: number, length: number) => Promise<void> | void = () => {};
  viewsHeld = 0;
  reads = 0;
  protected readonly unit: number;
  protected readonly written: Uint8Array;
  readonly #known: boolean;

  /** @param bytes its length is the device's size; units with a byte other than 0 are data. */
  constructor(bytes: Buffer, options: MemoryDeviceOptions = {}) {
    this.bytes = bytes;
    this.size = bytes.length;
    this.unit = options.unit ?? 4096;
    this.#known = options.known ?? true;
    this.written = new Uint8Array(Math.ceil(bytes.length / this.unit));
    for (let i = 0; i < this.written.length; i += 1) {
      const part = bytes.subarray(i * this.unit, (i + 1) * this.unit);
      this.written[i] = part.some((byte) => byte !== 0) ? 1 : 0;
    }
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.#inside(offset, target.byteLength);
    await this.beforeRead(offset, target.byteLength);
    this.reads += 1;
    this.bytes.copy(target, 0, offset, offset + target.byteLength);
  }

  /** Lends a copy in two parts, so that users meet more than one. */
  async view(offset: number, length: number): Promise<View> {
    const copy = Buffer.alloc(length);
    await this.read(offset, copy);
    this.viewsHeld += 1;
    const middle = Math.floor(length / 2);
    const parts = length > 4096 ? [copy.subarray(0, middle), copy.subarray(middle)] : [copy];
    let released = false;
    return {
      parts,
      release: () => {
        if (released) throw new Error("released twice");
        released = true;
        this.viewsHeld -= 1;
      },
    };
  }

  async *extents(offset: number, length: number): AsyncIterable<Extent> {
    this.#inside(offset, length);
    let at = offset;
    const end = offset + length;
    while (at < end) {
      const unit = Math.floor(at / this.unit);
      const next = Math.min((unit + 1) * this.unit, end);
      yield { offset: at, length: next - at, kind: this.written[unit] === 1 ? "data" : "hole" };
      at = next;
    }
  }

  allocatedBytes(): number | undefined {
    if (!this.#known) return undefined;
    return this.written.reduce((sum, bit) => sum + bit * this.unit, 0);
  }

  async close(): Promise<void> {}

  #inside(offset: number, length: number): void {
    if (offset < 0 || length < 0 || offset + length > this.size) {
      throw new RangeError(`${offset}+${length} is outside the device`);
    }
  }
}

export class MemoryDevice extends ReadOnlyMemoryDevice implements WritableBlockDevice {
  flushes = 0;

  async write(offset: number, source: Uint8Array): Promise<void> {
    if (offset + source.byteLength > this.size) throw new RangeError("outside the device");
    await Promise.resolve();
    this.bytes.set(source, offset);
    this.#mark(offset, source.byteLength, 1);
  }

  async zero(offset: number, length: number): Promise<void> {
    await this.write(offset, Buffer.alloc(length));
  }

  async discard(offset: number, length: number): Promise<void> {
    if (offset + length > this.size) throw new RangeError("outside the device");
    this.bytes.fill(0, offset, offset + length);
    const first = Math.ceil(offset / this.unit);
    const last = Math.floor((offset + length) / this.unit);
    if (last > first) this.written.fill(0, first, last);
  }

  async flush(): Promise<void> {
    this.flushes += 1;
  }

  #mark(offset: number, length: number, bit: number): void {
    if (length === 0) return;
    const last = Math.floor((offset + length - 1) / this.unit);
    this.written.fill(bit, Math.floor(offset / this.unit), last + 1);
  }
}
