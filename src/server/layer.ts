/**
 * A layer: the blocks that one snapshot stores itself. On disk that is two files in the snapshot's
 * folder. `blocks.data` is an array of slots, a block each, so that a read is one pread at
 * slot × 512 KiB. `blocks.index` is a log of 48-byte records, each appended after its block's data
 * has been written: block index, slot, SHA-256 and a CRC. A block counts as written from the moment
 * its record is whole, so a server killed at any instant leaves either the old block or the new one;
 * the log's torn end is found by its CRC and cut. A record that does not check before others that do
 * is no torn end but damage, and the layer is refused: a block that is not there would read as zeros.
 * For the same reason a completed layer must hold what it was completed with. Later records of a
 * block replace earlier ones. In memory a layer is three flat arrays sorted by block index (40 bytes
 * a block).
 */
import { crc32 } from "node:zlib";
import { lowerBound } from "../common/lower-bound.js";
import { DIGEST_SIZE, LinearChecksum } from "../ebs/checksum.js";
import { StoreDamage } from "./service-error.js";

const RECORD_BYTES = 48;
const DIGEST_AT = 8;
const CRC_AT = 44;

export const DATA_FILE = "blocks.data";
export const INDEX_FILE = "blocks.index";

/** One record of the log. @param digest raw SHA-256 of the block. */
export function encodeRecord(blockIndex: number, slot: number, digest: Uint8Array): Buffer {
  const record = Buffer.alloc(RECORD_BYTES);
  record.writeUInt32LE(blockIndex, 0);
  record.writeUInt32LE(slot, 4);
  record.set(digest, DIGEST_AT);
  record.writeUInt32LE(crc32(record.subarray(0, CRC_AT)), CRC_AT);
  return record;
}

/** What a log says: where each block's last record is, and how far the log is whole. */
export interface ReadLog {
  readonly log: Buffer;
  /** Block index to the byte position of its last record. */
  readonly positions: Map<number, number>;
  /** Bytes; what follows is a torn record. */
  readonly validBytes: number;
}

/** @throws StoreDamage where whole records follow one that is not. */
export function readLog(snapshotId: string, log: Buffer): ReadLog {
  const positions = new Map<number, number>();
  let position = 0;
  for (; isWhole(log, position); position += RECORD_BYTES) {
    positions.set(log.readUInt32LE(position), position);
  }
  for (let at = position + RECORD_BYTES; at + RECORD_BYTES <= log.length; at += RECORD_BYTES) {
    if (!isWhole(log, at)) continue;
    throw new StoreDamage(
      `The store's ${INDEX_FILE} of ${snapshotId} is damaged at byte ${position}: restore it from a backup.`,
    );
  }
  return { log, positions, validBytes: position };
}

function isWhole(log: Buffer, position: number): boolean {
  if (position + RECORD_BYTES > log.length) return false;
  const crc = crc32(log.subarray(position, position + CRC_AT));
  return log.readUInt32LE(position + CRC_AT) === crc;
}

/** The slot that the record at `position` names. */
export function slotAt(log: Buffer, position: number): number {
  return log.readUInt32LE(position + 4);
}

/** The raw SHA-256 in the record at `position`, a view. */
export function digestAt(log: Buffer, position: number): Buffer {
  return log.subarray(position + DIGEST_AT, position + DIGEST_AT + DIGEST_SIZE);
}

export class Layer {
  readonly snapshotId: string;
  /** Ascending. */
  readonly blockIndexes: Uint32Array;
  readonly #slots: Uint32Array;
  readonly #digests: Buffer;

  constructor(snapshotId: string, { log, positions }: ReadLog) {
    this.snapshotId = snapshotId;
    this.blockIndexes = Uint32Array.from(positions.keys()).sort();
    const count = this.blockIndexes.length;
    this.#slots = new Uint32Array(count);
    this.#digests = Buffer.allocUnsafeSlow(count * DIGEST_SIZE);
    for (let i = 0; i < count; i++) {
      const position = positions.get(this.blockIndexes[i]!)!;
      this.#slots[i] = slotAt(log, position);
      digestAt(log, position).copy(this.#digests, i * DIGEST_SIZE);
    }
  }

  /** Bytes of memory, for cache budgets. */
  get memory(): number {
    return this.blockIndexes.length * 40 + 256;
  }

  /** The LINEAR aggregate of the layer's blocks. */
  aggregate(): string {
    const checksum = new LinearChecksum();
    this.blockIndexes.forEach((blockIndex, i) => {
      checksum.add(blockIndex, this.#digests.subarray(i * DIGEST_SIZE, (i + 1) * DIGEST_SIZE));
    });
    return checksum.base64();
  }

  /** Where the block stands in this layer, -1 where it does not. */
  find(blockIndex: number): number {
    const at = lowerBound(this.blockIndexes, blockIndex);
    return this.blockIndexes[at] === blockIndex ? at : -1;
  }

  slot(at: number): number {
    return this.#slots[at]!;
  }

  /** Base64 SHA-256. */
  checksum(at: number): string {
    return this.#digests.toString("base64", at * DIGEST_SIZE, (at + 1) * DIGEST_SIZE);
  }
}
