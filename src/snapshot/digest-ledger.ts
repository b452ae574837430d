/**
 * Which blocks have been put into a pending snapshot, and the SHA-256 of each: what CompleteSnapshot
 * wants (their number, and a checksum over their digests in ascending order) and what a resumed
 * import needs to put nothing twice. A digest is 32 bytes for 512 KiB, so the memory kind grows with
 * what is put, in pages of 256 digests; the file kind keeps them in a sparse file at
 * `blockIndex * 32`, in memory that does not depend on the volume. 32 zero bytes mean "not put": no
 * block is known, or likely ever to be found, whose SHA-256 is zero.
 *
 * The file is not flushed: it outlives its process but perhaps not a power cut. That loses puts from
 * it, never invents one that was not made, and CompleteSnapshot's checksum refuses what disagrees.
 */
import { writeSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { Failure } from "../common/failure.js";
import { openOwnFile } from "../common/own-file.js";
import { nextData, sizeOf, tryLock } from "../common/posix.js";
import { BLOCKS_PER_GIB, MAX_VOLUME_GIB } from "../common/sizes.js";
import { DIGEST_SIZE, LinearChecksum } from "../ebs/checksum.js";

const PAGE_DIGESTS = 256;
const READ_BYTES = 65_536;
/** Largest sensible ledger file: one digest for each block of the largest volume. */
const MAX_FILE_BYTES = MAX_VOLUME_GIB * BLOCKS_PER_GIB * DIGEST_SIZE;

export interface BlockDigest {
  readonly blockIndex: number;
  /** Valid until the next one is asked for. */
  readonly digest: Uint8Array;
}

export interface DigestLedger {
  /** Notes that the block was put; a later note replaces an earlier one. */
  set(blockIndex: number, digest: Uint8Array): Promise<void>;
  /** undefined where the block has not been put. */
  get(blockIndex: number): Promise<Uint8Array | undefined>;
  /** All that were put, in ascending block index. Meanwhile `set` only what was passed. */
  entries(): AsyncIterable<BlockDigest>;
  close(): Promise<void>;
}

/** Number of blocks put and their LINEAR aggregate: Base64 SHA-256 of the digests, ascending. */
export async function aggregateDigests(
  ledger: DigestLedger,
): Promise<{ count: number; checksum: string }> {
  const linear = new LinearChecksum();
  for await (const { blockIndex, digest } of ledger.entries()) linear.add(blockIndex, digest);
  return { count: linear.count, checksum: linear.base64() };
}

function isPresent(bytes: Uint8Array, at: number): boolean {
  for (let i = at; i < at + DIGEST_SIZE; i += 1) if (bytes[i] !== 0) return true;
  return false;
}

/** A ledger in memory: about 32 bytes for each block put. */
export class MemoryDigests implements DigestLedger {
  readonly #pages = new Map<number, Uint8Array>();

  async set(blockIndex: number, digest: Uint8Array): Promise<void> {
    const number = Math.floor(blockIndex / PAGE_DIGESTS);
    let page = this.#pages.get(number);
    if (page === undefined) {
      page = new Uint8Array(PAGE_DIGESTS * DIGEST_SIZE);
      this.#pages.set(number, page);
    }
    page.set(digest, (blockIndex % PAGE_DIGESTS) * DIGEST_SIZE);
  }

  async get(blockIndex: number): Promise<Uint8Array | undefined> {
    const page = this.#pages.get(Math.floor(blockIndex / PAGE_DIGESTS));
    const at = (blockIndex % PAGE_DIGESTS) * DIGEST_SIZE;
    if (page === undefined || !isPresent(page, at)) return undefined;
    return page.slice(at, at + DIGEST_SIZE);
  }

  async *entries(): AsyncGenerator<BlockDigest> {
    const numbers = Float64Array.from(this.#pages.keys()).sort();
    for (const number of numbers) {
      const page = this.#pages.get(number)!;
      for (let i = 0; i < PAGE_DIGESTS; i += 1) {
        const at = i * DIGEST_SIZE;
        if (!isPresent(page, at)) continue;
        const digest = page.subarray(at, at + DIGEST_SIZE);
        yield { blockIndex: number * PAGE_DIGESTS + i, digest };
      }
    }
  }

  async close(): Promise<void> {}
}

/**
 * A ledger in a file that only one process at a time can hold. A note of 32 bytes goes into the page cache at
 * once, in this thread: some microseconds, where a write in another thread would wake two.
 */
export class FileDigests implements DigestLedger {
  readonly #file: FileHandle;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  /**
   * @param fresh forget what an earlier run noted there.
   * @throws Failure EBUSY while another process uses the file, EEXIST where it is not this user's own.
   */
  static async open(path: string, fresh: boolean): Promise<FileDigests> {
    const file = await openOwnFile(path, true);
    try {
      if (!tryLock(file.fd)) {
        throw new Failure("EBUSY", `Another process is using ${path}; wait until it has ended.`);
      }
      if (fresh || sizeOf(file.fd) > MAX_FILE_BYTES) await file.truncate(0);
      return new FileDigests(file);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Opens a ledger only to look into it. @throws as open, and what open(2) gives */
  static async look(path: string): Promise<FileDigests> {
    return new FileDigests(await openOwnFile(path, false));
  }

  async set(blockIndex: number, digest: Uint8Array): Promise<void> {
    const at = blockIndex * DIGEST_SIZE;
    if (writeSync(this.#file.fd, digest, 0, DIGEST_SIZE, at) !== DIGEST_SIZE) {
      throw new Failure("ENOSPC", "The state folder's disk is full; free some space there.");
    }
  }

  async get(blockIndex: number): Promise<Uint8Array | undefined> {
    const digest = new Uint8Array(DIGEST_SIZE);
    const { bytesRead } = await this.#file.read(digest, 0, DIGEST_SIZE, blockIndex * DIGEST_SIZE);
    return bytesRead === DIGEST_SIZE && isPresent(digest, 0) ? digest : undefined;
  }

  async *entries(): AsyncGenerator<BlockDigest> {
    const size = sizeOf(this.#file.fd);
    const piece = new Uint8Array(READ_BYTES);
    let at = 0;
    while (at < size) {
      const extent = nextData(this.#file.fd, at, size);
      if (extent === undefined) return;
      at = Math.max(at, Math.floor(extent[0] / DIGEST_SIZE) * DIGEST_SIZE);
      const { bytesRead } = await this.#file.read(piece, 0, READ_BYTES, at);
      const whole = bytesRead - (bytesRead % DIGEST_SIZE);
      if (whole === 0) return;
      for (let i = 0; i < whole; i += DIGEST_SIZE) {
        if (!isPresent(piece, i)) continue;
        const digest = piece.subarray(i, i + DIGEST_SIZE);
        yield { blockIndex: (at + i) / DIGEST_SIZE, digest };
      }
      at += whole;
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
