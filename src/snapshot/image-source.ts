/**
 * A raw disk image that is read once, block by block, to become a snapshot: a file or a block device
 * (file-source.ts), or a stream of bytes (stream-source.ts). An import asks each only which blocks to
 * look at, for their bytes, and at the end whether what it read was one whole image.
 */
import { Failure } from "../common/failure.js";
import { BLOCK_SIZE, formatSize, GIB, MAX_VOLUME_GIB } from "../common/sizes.js";

/**
 * Which blocks of an image are looked at: `written`, all that touch an extent, zeros or not (all of
 * them where nothing tells); `nonzero`, those that may hold anything but zeros; `all`.
 */
export type BlockChoice = "written" | "nonzero" | "all";

export abstract class ImageSource {
  /** What sentences call it: its path, or "standard input". */
  readonly name: string;
  /** Bytes. */
  readonly size: number;

  /** @throws Failure EINVAL for an empty image, EFBIG for one that no volume holds. */
  constructor(name: string, size: number) {
    if (size === 0) throw new Failure("EINVAL", `${name} is empty: there is nothing to import.`);
    if (size > MAX_VOLUME_GIB * GIB) {
      const limit = formatSize(MAX_VOLUME_GIB * GIB);
      throw new Failure("EFBIG", `${name} is larger than a volume can be (${limit}).`);
    }
    this.name = name;
    this.size = size;
  }

  /** Size of a volume that holds it: whole GiB, rounded up. */
  get volumeSizeGiB(): number {
    return Math.ceil(this.size / GIB);
  }

  /** Whether it is known what was never written, so that holes and zeros can be kept apart. */
  abstract get tellsHoles(): boolean;

  /** Indexes of the chosen blocks, ascending. */
  *blocks(choice: BlockChoice): Generator<number> {
    let next = 0;
    for (const [start, end] of this.ranges(choice)) {
      next = Math.max(next, Math.floor(start / BLOCK_SIZE));
      for (; next < Math.ceil(end / BLOCK_SIZE); next += 1) yield next;
    }
  }

  /** What is chosen, as [start, end) in bytes, ascending. */
  protected abstract ranges(choice: BlockChoice): Iterable<[number, number]>;

  /**
   * Fills `target` with a block of blocks(); what lies behind the end of the image is zeros. Several
   * reads may run at a time, each block is read once, and none is left out.
   * @throws Failure EIO; the signal's reason.
   */
  abstract read(blockIndex: number, target: Uint8Array, signal?: AbortSignal): Promise<void>;

  /**
   * Called when all blocks have been read, before the snapshot is completed.
   * @throws Failure where what was read is not one whole image; the signal's reason.
   */
  abstract assertWhole(signal?: AbortSignal): Promise<void>;

  abstract close(): Promise<void>;
}
