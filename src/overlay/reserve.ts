/**
 * Disk space kept back for the session's own records. When the disk is full the writer is told so, but
 * the journal, the session record and the upload log must still be written, or neither a flush nor a
 * commit could ever end: they get the reserve. While it is spent no data is accepted, until the disk
 * has room to set it aside again.
 */
import { Failure } from "../common/failure.js";
import type { DiskFile, SessionFiles } from "./disk-file.js";

const RESERVE_BYTES = 2 * 1024 * 1024;
/** Between two tries to set it aside again, ms. */
const RETRY_MS = 1000;

function isFull(error: unknown): boolean {
  return error instanceof Failure && error.errno === "ENOSPC";
}

export class Reserve {
  readonly #file: DiskFile;
  #intact = false;
  #triedAt = Number.NEGATIVE_INFINITY;

  constructor(files: SessionFiles) {
    this.#file = files.open("reserve");
    this.#intact = this.#file.size >= RESERVE_BYTES;
    if (!this.#intact) this.#setAside();
  }

  /** Whether data may be written; false while the space for records is not there. */
  isKept(): boolean {
    if (this.#intact) return true;
    if (performance.now() - this.#triedAt >= RETRY_MS) this.#setAside();
    return this.#intact;
  }

  /** Runs a write of records; on a full disk once more, with the reserve given up. */
  spendOn(write: () => void): void {
    try {
      write();
    } catch (error) {
      if (!isFull(error) || this.#file.size === 0) throw error;
      this.#release();
      write();
    }
  }

  close(): void {
    this.#file.close();
  }

  #release(): void {
    this.#intact = false;
    this.#triedAt = performance.now();
    this.#file.truncate(0);
  }

  #setAside(): void {
    this.#triedAt = performance.now();
    try {
      const from = this.#file.size;
      if (from < RESERVE_BYTES) this.#file.writeAt(from, Buffer.alloc(RESERVE_BYTES - from));
      this.#intact = true;
    } catch (error) {
      if (!isFull(error)) throw error;
    }
  }
}
