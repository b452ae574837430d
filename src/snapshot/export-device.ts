/**
 * A block device as the target of an export. What it held before must go, so zeros are written for
 * holes, by the kernel or the device where they can. It is opened exclusively: the kernel then refuses a device that is
 * mounted or otherwise in use. An interrupted export starts over, because nothing tells whether the
 * device of that name is still the same one.
 */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { Failure } from "../common/failure.js";
import { sizeOf, zeroRange } from "../common/posix.js";
import { BLOCK_SIZE, formatSize, GIB } from "../common/sizes.js";
import { ZERO_BLOCK } from "./block-buffers.js";
import { BlockWriter } from "./block-writer.js";
import type { ImageTarget } from "./image-export.js";

export class ExportDevice implements ImageTarget {
  readonly startsEmpty = false;
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #writer: BlockWriter;
  #canZero = true;
  #isTouched = false;

  private constructor(path: string, file: FileHandle, writer: BlockWriter) {
    this.#path = path;
    this.#file = file;
    this.#writer = writer;
  }

  /** @throws Failure EBUSY while it is in use, EACCES. */
  static async open(path: string): Promise<ExportDevice> {
    try {
      const file = await open(path, constants.O_RDWR | constants.O_EXCL);
      return new ExportDevice(path, file, await BlockWriter.open(file, path));
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "EBUSY") {
        const message = `${path} is in use (mounted, or part of another device); free it first.`;
        throw new Failure("EBUSY", message, { cause });
      }
      const message = `${path} cannot be opened for writing (${(cause as Error).message}).`;
      throw new Failure("EACCES", message, { cause });
    }
  }

  /** @throws Failure ENOSPC where the volume does not fit. What is behind its end stays as it is. */
  async prepare(volumeSizeGiB: number): Promise<void> {
    const size = sizeOf(this.#file.fd);
    if (size >= volumeSizeGiB * GIB) return;
    const message = `${this.#path} has ${formatSize(size)}, too little for the volume's ${volumeSizeGiB} GiB; nothing was written.`;
    throw new Failure("ENOSPC", message);
  }

  async writeBlock(blockIndex: number, data: Uint8Array): Promise<void> {
    await this.#writer.write(blockIndex, data);
    this.#isTouched = true;
  }

  /** Some of what was on the device is overwritten. */
  get isTouched(): boolean {
    return this.#isTouched;
  }

  async zeroBlocks(blockIndex: number, count: number): Promise<void> {
    const { fd } = this.#file;
    const start = blockIndex * BLOCK_SIZE;
    if (this.#canZero && (await zeroRange(fd, start, count * BLOCK_SIZE))) {
      this.#isTouched = true;
      return;
    }
    this.#canZero = false;
    for (let i = blockIndex; i < blockIndex + count; i += 1) await this.writeBlock(i, ZERO_BLOCK);
  }

  async finish(): Promise<void> {
    await this.#writer.sync();
  }

  async close(): Promise<void> {
    await this.#writer.close();
    await this.#file.close();
  }
}
