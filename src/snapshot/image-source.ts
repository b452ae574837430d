/**
 * A raw disk image to be read once, block by block: a file or a block device. Where the file system
 * tells which parts were never written (extents.ts), those are not even read. A file that changes while
 * it is read would give a snapshot of no moment in its life, so that is looked for and is an error.
 */
import { type BigIntStats, constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { type Fiemap, openFiemap, writtenRanges } from "../common/extents.js";
import { Failure } from "../common/failure.js";
import { nextData, sizeOf } from "../common/posix.js";
import { BLOCK_SIZE, formatSize, GIB, MAX_VOLUME_GIB } from "../common/sizes.js";

/**
 * Which blocks of an image are looked at: `written`, all that touch an extent, zeros or not (all of
 * them where nothing tells); `nonzero`, those that may hold anything but zeros; `all`.
 */
export type BlockChoice = "written" | "nonzero" | "all";

export class ImageSource {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  readonly #file: FileHandle;
  readonly #opened: BigIntStats;
  readonly #fiemap: Fiemap | undefined;

  private constructor(path: string, file: FileHandle, size: number, opened: BigIntStats) {
    this.path = path;
    this.size = size;
    this.#file = file;
    this.#opened = opened;
    this.#fiemap = opened.isFile() ? openFiemap(file.fd) : undefined;
  }

  /** @throws Failure that says why this cannot be imported. */
  static async open(path: string): Promise<ImageSource> {
    // Not to wait for whoever writes into a pipe: that it is one is found out next.
    const flags = constants.O_RDONLY | constants.O_NONBLOCK;
    const file = await open(path, flags).catch((cause: NodeJS.ErrnoException) => {
      const errno = cause.code === "ENOENT" ? "ENOENT" : "EACCES";
      throw new Failure(errno, `${path} cannot be opened (${cause.message}).`, { cause });
    });
    try {
      const stat = await file.stat({ bigint: true });
      if (!stat.isFile() && !stat.isBlockDevice()) {
        throw new Failure("EINVAL", `${path} is neither a file nor a block device.`);
      }
      const size = sizeOf(file.fd);
      if (size === 0) throw new Failure("EINVAL", `${path} is empty: there is nothing to import.`);
      if (size > MAX_VOLUME_GIB * GIB) {
        const limit = formatSize(MAX_VOLUME_GIB * GIB);
        throw new Failure("EFBIG", `${path} is larger than a volume can be (${limit}).`);
      }
      // What is only in memory is brought to the disk here, where nothing has to stand still for it;
      // extents are asked for in one step. A file system that cannot do it is asked all the same.
      if (stat.isFile()) await file.datasync().catch(() => {});
      return new ImageSource(path, file, size, await file.stat({ bigint: true }));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Size of a volume that holds it: whole GiB, rounded up. */
  get volumeSizeGiB(): number {
    return Math.ceil(this.size / GIB);
  }

  /** Whether it is known what was never written, so that holes can be told from zeros. */
  get tellsHoles(): boolean {
    return this.#fiemap !== undefined;
  }

  /** Indexes of the chosen blocks, ascending. */
  *blocks(choice: BlockChoice): Generator<number> {
    let next = 0;
    for (const [start, end] of this.#ranges(choice)) {
      next = Math.max(next, Math.floor(start / BLOCK_SIZE));
      for (; next < Math.ceil(end / BLOCK_SIZE); next += 1) yield next;
    }
  }

  #ranges(choice: BlockChoice): Iterable<[number, number]> {
    if (choice === "nonzero") return this.#dataRanges();
    if (choice === "written" && this.#fiemap !== undefined) {
      return writtenRanges(this.#fiemap, this.size);
    }
    return [[0, this.size]];
  }

  *#dataRanges(): Generator<[number, number]> {
    let at = 0;
    for (;;) {
      const data = nextData(this.#file.fd, at, this.size);
      if (data === undefined) return;
      yield data;
      at = data[1];
    }
  }

  /** Fills `target` with a block; what lies behind the end of the image is zeros. */
  async read(blockIndex: number, target: Uint8Array): Promise<void> {
    const start = blockIndex * BLOCK_SIZE;
    const wanted = Math.min(BLOCK_SIZE, this.size - start);
    let done = 0;
    while (done < wanted) {
      const { bytesRead } = await this.#file
        .read(target, done, wanted - done, start + done)
        .catch((cause: Error) => {
          const message = `${this.path} cannot be read at byte ${start + done} (${cause.message}).`;
          throw new Failure("EIO", message, { cause });
        });
      if (bytesRead === 0) this.#changed("it became shorter");
      done += bytesRead;
    }
    target.fill(0, wanted);
  }

  /** @throws Failure where the file was written or resized since it was opened. */
  async assertUnchanged(): Promise<void> {
    const now = await this.#file.stat({ bigint: true });
    if (sizeOf(this.#file.fd) !== this.size) this.#changed("its size changed");
    // The times of a device node say nothing of the disk behind it.
    if (now.isFile() && now.mtimeNs !== this.#opened.mtimeNs) this.#changed("it was written to");
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  #changed(how: string): never {
    throw new Failure(
      "EIO",
      `${this.path} changed while it was read (${how}), so the snapshot was not completed; import it when nothing writes to it.`,
    );
  }
}
