/**
 * The layer of a pending snapshot, which takes puts. A put writes its data into a free slot and then
 * appends its record (layer.ts), so an overwrite never touches the block it replaces; the replaced
 * slot is used again, so a block that is put over and over does not grow the file. Of two puts of
 * one block the one whose request arrived later wins, whichever ends first: a put that a client gave
 * up on and that lands late must not undo the one that followed it.
 */
import {
  closeSync,
  constants,
  fdatasync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeSync,
  writev,
} from "node:fs";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { BLOCK_SIZE } from "../common/sizes.js";
import { DIGEST_SIZE, LinearChecksum } from "../ebs/checksum.js";
import { DATA_FILE, digestAt, encodeRecord, INDEX_FILE, readLog, slotAt } from "./layer.js";
import { invalid } from "./service-error.js";
import { syncPath } from "./snapshot-record.js";

const writeVector = promisify(writev);
const syncData = promisify(fdatasync);

export class PendingLayer {
  readonly #sync: boolean;
  readonly #data: number;
  readonly #index: number;
  readonly #slots = new Map<number, number>();
  readonly #free: number[] = [];
  /** By slot: the digest and the arrival of the block in it. */
  #digests = Buffer.alloc(64 * DIGEST_SIZE);
  #arrivals = new Float64Array(64);
  #slotCount = 0;
  #indexBytes = 0;
  #writing = 0;
  #sealed = false;

  /**
   * Opens the layer as the last run left it, or a new one.
   * @param folder of the snapshot, named after it.
   * @param sync make every put wait for the disk (power loss), not only for the kernel (kill -9).
   * @throws StoreDamage where acknowledged blocks are missing from the index; nothing is changed.
   */
  constructor(folder: string, sync: boolean) {
    this.#sync = sync;
    this.#data = openSync(join(folder, DATA_FILE), constants.O_RDWR | constants.O_CREAT, 0o600);
    this.#index = openSync(join(folder, INDEX_FILE), constants.O_RDWR | constants.O_CREAT, 0o600);
    try {
      if (sync) syncPath(folder);
      this.#load(basename(folder));
    } catch (error) {
      closeSync(this.#data);
      closeSync(this.#index);
      throw error;
    }
  }

  #load(snapshotId: string): void {
    const { log, positions, validBytes } = readLog(snapshotId, readFileSync(this.#index));
    ftruncateSync(this.#index, validBytes);
    this.#indexBytes = validBytes;
    const stored = Math.floor(fstatSync(this.#data).size / BLOCK_SIZE);
    const used = new Set<number>();
    for (const [blockIndex, position] of positions) {
      const slot = slotAt(log, position);
      // After a power loss (not a kill) a record can be there without its data: the block is not.
      if (slot >= stored) continue;
      this.#reserve(slot);
      this.#slots.set(blockIndex, slot);
      digestAt(log, position).copy(this.#digests, slot * DIGEST_SIZE);
      used.add(slot);
    }
    for (let slot = 0; slot < this.#slotCount; slot++) if (!used.has(slot)) this.#free.push(slot);
  }

  /** Distinct blocks written. */
  get blockCount(): number {
    return this.#slots.size;
  }

  /**
   * Writes a block; it is there for good once this resolves.
   * @param parts the block's bytes in order, unchanged until then. @param digest raw SHA-256 of them.
   * @param arrival grows with each request of the server, above 0.
   */
  async put(
    blockIndex: number,
    parts: readonly Buffer[],
    digest: Uint8Array,
    arrival: number,
  ): Promise<void> {
    if (this.#sealed) throw this.#refusal();
    const slot = this.#free.pop() ?? this.#slotCount;
    this.#reserve(slot);
    this.#writing += 1;
    let stored = false;
    try {
      await this.#writeSlot(slot, parts);
      if (this.#sealed) throw this.#refusal();
      const replaced = this.#slots.get(blockIndex);
      if (replaced !== undefined && this.#arrivals[replaced]! > arrival) return;
      this.#append(encodeRecord(blockIndex, slot, digest));
      stored = true;
      this.#digests.set(digest, slot * DIGEST_SIZE);
      this.#arrivals[slot] = arrival;
      this.#slots.set(blockIndex, slot);
      // The replaced block goes only when the record that replaces it is as durable as asked.
      if (this.#sync) await syncData(this.#index);
      if (replaced !== undefined) this.#free.push(replaced);
    } finally {
      if (!stored) this.#giveBack(slot);
      this.#writing -= 1;
      this.#closeIfDone();
    }
  }

  /** A slot that was not used after all; at the end of the file, its space goes back to the disk. */
  #giveBack(slot: number): void {
    this.#free.push(slot);
    if (slot !== this.#slotCount - 1) return;
    this.#free.sort((a, b) => a - b);
    while (this.#free.length > 0 && this.#free.at(-1) === this.#slotCount - 1) {
      this.#free.pop();
      this.#slotCount -= 1;
    }
    ftruncateSync(this.#data, this.#slotCount * BLOCK_SIZE);
  }

  /** The LINEAR aggregate: Base64 SHA-256 over the blocks' raw digests in ascending block index. */
  aggregate(): string {
    const checksum = new LinearChecksum();
    for (const blockIndex of Uint32Array.from(this.#slots.keys()).sort()) {
      const at = this.#slots.get(blockIndex)! * DIGEST_SIZE;
      checksum.add(blockIndex, this.#digests.subarray(at, at + DIGEST_SIZE));
    }
    return checksum.base64();
  }

  /** No put succeeds after this, one under way included; the files close once those have ended. */
  seal(): void {
    if (this.#sealed) return;
    this.#sealed = true;
    this.#closeIfDone();
  }

  #refusal(): Error {
    return invalid(
      "INVALID_SNAPSHOT_ID",
      "The snapshot is no longer pending: no block can be put.",
    );
  }

  #reserve(slot: number): void {
    this.#slotCount = Math.max(this.#slotCount, slot + 1);
    if (slot < this.#arrivals.length) return;
    const size = Math.max(slot + 1, this.#arrivals.length * 2);
    const digests = Buffer.alloc(size * DIGEST_SIZE);
    digests.set(this.#digests);
    this.#digests = digests;
    const arrivals = new Float64Array(size);
    arrivals.set(this.#arrivals);
    this.#arrivals = arrivals;
  }

  async #writeSlot(slot: number, parts: readonly Buffer[]): Promise<void> {
    let pending = parts;
    let position = slot * BLOCK_SIZE;
    while (pending.length > 0) {
      const { bytesWritten } = await writeVector(this.#data, pending, position);
      position += bytesWritten;
      pending = dropBytes(pending, bytesWritten);
    }
    if (this.#sync) await syncData(this.#data);
  }

  /** At a kept position, so that what a failed append (disk full) left behind is written over. */
  #append(record: Buffer): void {
    let done = 0;
    while (done < record.length) {
      done += writeSync(this.#index, record, done, record.length - done, this.#indexBytes + done);
    }
    this.#indexBytes += record.length;
  }

  #closeIfDone(): void {
    if (!this.#sealed || this.#writing > 0) return;
    closeSync(this.#data);
    closeSync(this.#index);
  }
}

function dropBytes(parts: readonly Buffer[], bytes: number): readonly Buffer[] {
  let left = bytes;
  let first = 0;
  while (first < parts.length && left >= parts[first]!.length) left -= parts[first++]!.length;
  if (left === 0) return parts.slice(first);
  return [parts[first]!.subarray(left), ...parts.slice(first + 1)];
}
