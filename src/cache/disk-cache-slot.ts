/**
 * What stands before a block in the disk cache: whose block it is, its digest, and when it was last
 * used. The digest covers the key as well as the data, so that an entry which damage makes look like
 * another's is caught with the same check. The time of use is outside of it: a wrong one only evicts
 * the wrong block.
 *
 * | bytes    |                                                     |
 * | -------- | --------------------------------------------------- |
 * | 0 to 7   | magic; anything else is an empty slot               |
 * | 8 to 39  | key: SHA-256 over namespace, snapshot, block index  |
 * | 40 to 71 | SHA-256 over key and data                           |
 * | 72 to 79 | last use, ms since the epoch, double, little-endian |
 */
import { createHash } from "node:crypto";
import type { SnapshotId } from "../ebs/snapshot-id.js";

/** Bytes of one entry in the index file. */
export const ENTRY_SIZE = 128;
/** Where the time of the last use stands, and how long it is. */
export const USED_AT = 72;
const USED_SIZE = 8;
const MAGIC = Buffer.from("EBSMBLK1", "latin1");
const KEY_AT = 8;
const DIGEST_AT = 40;

/** The raw key (32 bytes) of a block. @param namespace whose it is: service and account. */
export function blockKey(namespace: string, snapshotId: SnapshotId, block: number): Buffer {
  return createHash("sha256").update(`${namespace}\0${snapshotId}\0${block}`).digest();
}

export function digestOf(key: Uint8Array, data: Uint8Array): Buffer {
  return createHash("sha256").update(key).update(data).digest();
}

export function makeEntry(key: Uint8Array, digest: Uint8Array, usedAt: number): Buffer {
  const entry = Buffer.alloc(ENTRY_SIZE);
  entry.set(MAGIC, 0);
  entry.set(key, KEY_AT);
  entry.set(digest, DIGEST_AT);
  entry.writeDoubleLE(usedAt, USED_AT);
  return entry;
}

export function usedBytes(usedAt: number): Buffer {
  const bytes = Buffer.alloc(USED_SIZE);
  bytes.writeDoubleLE(usedAt);
  return bytes;
}

/** The entries of one set, as read from the index file. */
export class SlotSet {
  readonly #bytes: Buffer;
  readonly #ways: number;

  /** @param bytes what the file has of it; what is missing counts as empty. */
  constructor(bytes: Buffer, ways: number) {
    this.#bytes = bytes;
    this.#ways = ways;
  }

  /** -1 where no entry has the key. */
  find(key: Buffer): number {
    for (let way = 0; way < this.#ways; way += 1) {
      const at = way * ENTRY_SIZE;
      if (
        this.#isTaken(way) &&
        this.#bytes.compare(key, 0, key.length, at + KEY_AT, at + DIGEST_AT) === 0
      ) {
        return way;
      }
    }
    return -1;
  }

  digest(way: number): Buffer {
    const at = way * ENTRY_SIZE;
    return this.#bytes.subarray(at + DIGEST_AT, at + USED_AT);
  }

  /** 0 where it says nothing that can be. */
  usedAt(way: number, now: number): number {
    const time = this.#bytes.readDoubleLE(way * ENTRY_SIZE + USED_AT);
    return time > 0 && time <= now ? time : 0;
  }

  /** An empty way, or that which was used longest ago, passing over those in `busy`. */
  victim(now: number, busy: (way: number) => boolean): number {
    let oldest = -1;
    let oldestUse = Number.POSITIVE_INFINITY;
    for (let way = 0; way < this.#ways; way += 1) {
      if (busy(way)) continue;
      if (!this.#isTaken(way)) return way;
      const usedAt = this.usedAt(way, now);
      if (usedAt < oldestUse) {
        oldest = way;
        oldestUse = usedAt;
      }
    }
    return oldest;
  }

  #isTaken(way: number): boolean {
    const at = way * ENTRY_SIZE;
    if (at + ENTRY_SIZE > this.#bytes.length) return false;
    return this.#bytes.compare(MAGIC, 0, MAGIC.length, at, at + KEY_AT) === 0;
  }
}
