/**
 * An image in a file or on a block device. Where the file system tells which parts were never written
 * (extents.ts), those are not even read. A file that changes while it is read would give a snapshot of
 * no moment in its life, so that is looked for and is an error.
 */
import { type BigIntStats, constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { type Fiemap, openFiemap, writtenRanges } from "../common/extents.js";
import { Failure } from "../common/failure.js";
import { nextData, sizeOf } from "../common/posix.js";
import { BLOCK_SIZE } from "../common/sizes.js";
import { type BlockChoice, ImageSource } from "./image-source.js";

export class FileSource extends ImageSource {
  readonly #file: FileHandle;
  readonly #opened: BigIntStats;
  readonly #fiemap: Fiemap | undefined;

  private constructor(name: string, file: FileHandle, opened: BigIntStats) {
    super(name, sizeOf(file.fd));
    this.#file = file;
    this.#opened = opened;
    this.#fiemap = opened.isFile() ? openFiemap(file.fd) : undefined;
  }

  /** @param name what sentences call it. @throws Failure that says why this cannot be imported. */
  static async open(path: string, name = path): Promise<FileSource> {
    // A pipe would make open wait for a writer; it is refused next.
    const flags = constants.O_RDONLY | constants.O_NONBLOCK;
    const file = await open(path, flags).catch((cause: NodeJS.ErrnoException) => {
      const errno = cause.code === "ENOENT" ? "ENOENT" : "EACCES";
      throw new Failure(errno, `${name} cannot be opened (${cause.message}).`, { cause });
    });
    try {
      const stat = await file.stat({ bigint: true });
      if (!stat.isFile() && !stat.isBlockDevice()) {
        throw new Failure("EINVAL", `${name} is no file, block device, pipe or socket.`);
      }
      // What is only in memory is brought to the disk here, where nothing has to stand still for it;
      // extents are asked for in one step. A file system that cannot do it is asked all the same.
      if (stat.isFile()) await file.datasync().catch(() => {});
      return new FileSource(name, file, await file.stat({ bigint: true }));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  get tellsHoles(): boolean {
    return this.#fiemap !== undefined;
  }

  protected ranges(choice: BlockChoice): Iterable<[number, number]> {
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

  async read(blockIndex: number, target: Uint8Array): Promise<void> {
    const start = blockIndex * BLOCK_SIZE;
    const wanted = Math.min(BLOCK_SIZE, this.size - start);
    let done = 0;
    while (done < wanted) {
      const { bytesRead } = await this.#file
        .read(target, done, wanted - done, start + done)
        .catch((cause: Error) => {
          const message = `${this.name} cannot be read at byte ${start + done} (${cause.message}).`;
          throw new Failure("EIO", message, { cause });
        });
      if (bytesRead === 0) this.#changed("it became shorter");
      done += bytesRead;
    }
    target.fill(0, wanted);
  }

  /** @throws Failure EIO where the file was written or resized since it was opened. */
  async assertWhole(): Promise<void> {
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
      `${this.name} changed while it was read (${how}), so the snapshot was not completed; import it when nothing writes to it.`,
    );
  }
}
