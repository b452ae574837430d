/**
 * Writes blocks into an image, and has the kernel bring them to the disk while the rest is still being
 * fetched. By itself it would begin only when gigabytes are dirty, and the sync at the end would take
 * as long as everything before it. One fdatasync at a time runs beside the work, so no fetch waits for
 * it; one that fails is told at the next write or sync, because the kernel tells it only once.
 */
import type { FileHandle } from "node:fs/promises";
import { Failure } from "../common/failure.js";
import { BLOCK_SIZE, MIB } from "../common/sizes.js";

/** Bytes written since the last sync began at which the next one begins. */
const SYNC_EVERY = 64 * MIB;

/** An error of a write to `path` as a sentence. */
export function writeFailure(path: string, cause: unknown): unknown {
  const code = (cause as NodeJS.ErrnoException).code;
  if (code === "ENOSPC" || code === "EDQUOT") {
    const what = code === "ENOSPC" ? "The disk that holds it is full" : "The disk quota is used up";
    return new Failure("ENOSPC", `${path}: ${what}; free some space.`, { cause });
  }
  if (code === "EFBIG") {
    const message = `${path} would grow larger than its file system (or ulimit -f) allows; choose another place.`;
    return new Failure("EFBIG", message, { cause });
  }
  if (code === undefined) return cause;
  return new Failure("EIO", `${path} cannot be written (${(cause as Error).message}).`, { cause });
}

export class BlockWriter {
  readonly #file: FileHandle;
  readonly #path: string;
  #unsynced = 0;
  #syncing: Promise<void> | undefined;
  #failure: unknown;

  /** @param path for sentences. */
  constructor(file: FileHandle, path: string) {
    this.#file = file;
    this.#path = path;
  }

  /** Writes all of `data`. @throws Failure ENOSPC, EFBIG, EIO */
  async write(blockIndex: number, data: Uint8Array): Promise<void> {
    const offset = blockIndex * BLOCK_SIZE;
    try {
      this.#check();
      let done = 0;
      while (done < data.length) {
        const left = data.length - done;
        const { bytesWritten } = await this.#file.write(data, done, left, offset + done);
        done += bytesWritten;
      }
    } catch (error) {
      throw writeFailure(this.#path, error);
    }
    this.#unsynced += data.length;
    if (this.#unsynced >= SYNC_EVERY && this.#syncing === undefined) void this.#sync();
  }

  /** Makes everything written before the call durable. @throws Failure as write */
  async sync(): Promise<void> {
    try {
      // One that runs already began before the latest writes.
      await this.#syncing;
      await this.#sync();
      this.#check();
    } catch (error) {
      throw writeFailure(this.#path, error);
    }
  }

  /** Never rejects: what went wrong is kept. */
  #sync(): Promise<void> {
    this.#unsynced = 0;
    const syncing = this.#file
      .datasync()
      .catch((error: unknown) => {
        this.#failure ??= error;
      })
      .finally(() => {
        if (this.#syncing === syncing) this.#syncing = undefined;
      });
    this.#syncing = syncing;
    return syncing;
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}
