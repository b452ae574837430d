/**
 * An append-only file of records that survives a crash at any instant: the journal and the upload log
 * are both one. Every record begins on a sector of its own (so a later append never rewrites a sector
 * that holds an acknowledged record) and carries the file's nonce, a generation counted from 1, its
 * length and a CRC-32 over all of it. Replay stops at the first record that does not check and cuts
 * the rest: it was never acknowledged. That is known, not assumed: each record also says up to which
 * generation everything was durable when it was appended, so a sound record further on that vouches
 * for the broken one means damage, and the log refuses to open. Space is filled with zeros ahead of
 * need, so that a sync writes only data and no file-system metadata.
 */
import { randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";
import { Failure } from "../common/failure.js";
import { MIB, SECTOR_SIZE } from "../common/sizes.js";
import type { DiskFile, SessionFiles } from "./disk-file.js";

const FILE_MAGIC = "EBSMLOG1";
const RECORD_MAGIC = 0x4345_5245;
/** magic 4, payload length 4, generation 8, durable generation 8, nonce 16, crc 4. */
const HEADER_BYTES = 44;
/** Longest record, bytes: a bound for what a damaged length can make us read. */
const MAX_RECORD_BYTES = 64 * MIB;
const FILL_BYTES = 256 * 1024;

function roundUp(bytes: number): number {
  return Math.ceil(bytes / SECTOR_SIZE) * SECTOR_SIZE;
}

interface Header {
  readonly length: number;
  readonly generation: number;
  readonly durable: number;
  readonly crc: number;
}

/** What a replay found: where the sound records end and the generation of the last one. */
interface Replayed {
  readonly end: number;
  readonly generation: number;
  readonly nonce: Buffer;
}

function parseHeader(bytes: Buffer, nonce: Buffer): Header | undefined {
  if (bytes.readUInt32LE(0) !== RECORD_MAGIC || !bytes.subarray(24, 40).equals(nonce)) {
    return undefined;
  }
  const length = bytes.readUInt32LE(4);
  if (length > MAX_RECORD_BYTES) return undefined;
  return {
    length,
    generation: bytes.readDoubleLE(8),
    durable: bytes.readDoubleLE(16),
    crc: bytes.readUInt32LE(40),
  };
}

/** The record at `position` whole and checked, or undefined. */
function readRecord(
  file: DiskFile,
  position: number,
  nonce: Buffer,
): { header: Header; payload: Buffer } | undefined {
  const head = Buffer.alloc(HEADER_BYTES);
  if (file.readAt(position, head) < HEADER_BYTES) return undefined;
  const header = parseHeader(head, nonce);
  if (header === undefined) return undefined;
  if (position + HEADER_BYTES + header.length > file.size) return undefined;
  const payload = Buffer.allocUnsafe(header.length);
  if (file.readAt(position + HEADER_BYTES, payload) < header.length) return undefined;
  const crc = crc32(payload, crc32(head.subarray(0, HEADER_BYTES - 4)));
  return crc === header.crc ? { header, payload } : undefined;
}

/** Looks past a record that does not check for one that says it had been durable. */
function vouchedFor(file: DiskFile, from: number, generation: number, nonce: Buffer): boolean {
  const chunk = Buffer.alloc(MIB);
  for (let position = from; position < file.size; position += MIB) {
    const n = file.readAt(position, chunk);
    for (let at = 0; at + HEADER_BYTES <= n; at += SECTOR_SIZE) {
      const header = parseHeader(chunk.subarray(at, at + HEADER_BYTES), nonce);
      if (header === undefined || header.durable < generation) continue;
      if (readRecord(file, position + at, nonce) !== undefined) return true;
    }
  }
  return false;
}

/**
 * Hands every sound record to `onRecord`, in order. Reads only: safe beside a process that appends.
 * @throws Failure EIO where the file is no log or a record is damaged that had been durable
 */
export function replay(
  file: DiskFile,
  name: string,
  onRecord: (payload: Buffer) => void,
): Replayed {
  const head = Buffer.alloc(SECTOR_SIZE);
  const n = file.readAt(0, head);
  const checked = crc32(head.subarray(0, 24)) === head.readUInt32LE(24);
  if (n < SECTOR_SIZE || head.toString("latin1", 0, 8) !== FILE_MAGIC || !checked) {
    throw damaged(name, "its head is not sound");
  }
  const nonce = Buffer.from(head.subarray(8, 24));
  let end = SECTOR_SIZE;
  let generation = 0;
  for (;;) {
    const record = readRecord(file, end, nonce);
    if (record === undefined || record.header.generation !== generation + 1) break;
    onRecord(record.payload);
    generation += 1;
    end += roundUp(HEADER_BYTES + record.payload.length);
  }
  if (vouchedFor(file, end, generation + 1, nonce)) {
    throw damaged(name, `record ${generation + 1} does not match its checksum`);
  }
  return { end, generation, nonce };
}

/** A log that is not sound before its end. */
export class DamagedLog extends Failure {}

function damaged(name: string, why: string): DamagedLog {
  return new DamagedLog(
    "EIO",
    `The session's ${name} is damaged (${why}): copy the session folder before anything else, and check the disk that holds it.`,
  );
}

export class RecordLog {
  readonly #file: DiskFile;
  readonly #nonce: Buffer;
  #end: number;
  #filled: number;
  #generation: number;
  /** Nothing before the first sync: of a process that was killed, the page cache may hold the last. */
  #durable = 0;

  private constructor(file: DiskFile, state: Replayed) {
    this.#file = file;
    this.#nonce = state.nonce;
    this.#end = state.end;
    this.#filled = state.end;
    this.#generation = state.generation;
  }

  /** Starts an empty log in a file of that name; durable once synced and its folder as well. */
  static create(files: SessionFiles, name: string): RecordLog {
    const file = files.open(name);
    try {
      file.truncate(0);
      const nonce = randomBytes(16);
      const head = Buffer.alloc(SECTOR_SIZE);
      head.write(FILE_MAGIC, 0, "latin1");
      nonce.copy(head, 8);
      head.writeUInt32LE(crc32(head.subarray(0, 24)), 24);
      file.writeAt(0, head);
      return new RecordLog(file, { end: SECTOR_SIZE, generation: 0, nonce });
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /**
   * Opens a log, replays it and cuts a torn tail. What was replayed is durable only after a sync.
   * @throws Failure EIO as replay
   */
  static open(files: SessionFiles, name: string, onRecord: (payload: Buffer) => void): RecordLog {
    const file = files.open(name);
    try {
      const state = replay(file, name, onRecord);
      if (file.size > state.end) file.truncate(state.end);
      return new RecordLog(file, state);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Bytes of records, the head included. */
  get size(): number {
    return this.#end;
  }

  /**
   * Adds one record (at most MAX_RECORD_BYTES); it is durable after the next sync.
   * @throws Failure ENOSPC; the log is then as before the call
   */
  append(payload: Uint8Array): void {
    const total = roundUp(HEADER_BYTES + payload.length);
    const record = Buffer.alloc(total);
    record.writeUInt32LE(RECORD_MAGIC, 0);
    record.writeUInt32LE(payload.length, 4);
    record.writeDoubleLE(this.#generation + 1, 8);
    record.writeDoubleLE(this.#durable, 16);
    this.#nonce.copy(record, 24);
    record.writeUInt32LE(crc32(payload, crc32(record.subarray(0, HEADER_BYTES - 4))), 40);
    record.set(payload, HEADER_BYTES);
    this.#fillAhead(this.#end + total);
    try {
      this.#file.writeAt(this.#end, record);
    } catch (error) {
      this.#cut();
      throw error;
    }
    this.#end += total;
    this.#generation += 1;
  }

  async sync(): Promise<void> {
    const generation = this.#generation;
    await this.#file.sync();
    if (generation > this.#durable) this.#durable = generation;
  }

  close(): void {
    this.#file.close();
  }

  #fillAhead(end: number): void {
    if (end <= this.#filled) return;
    const start = Math.max(this.#end, this.#filled);
    const upTo = Math.ceil(end / FILL_BYTES + 1) * FILL_BYTES;
    try {
      this.#file.writeAt(start, Buffer.alloc(upTo - start));
      this.#filled = upTo;
    } catch {
      // Filling is only for speed: what the record itself needs is asked for next.
      this.#cut();
    }
  }

  /** Takes back what a failed write may have left after the last record. */
  #cut(): void {
    try {
      this.#file.truncate(this.#end);
    } catch {
      // The remains do not check, so a replay ignores them and the next append overwrites them.
    }
    this.#filled = this.#end;
  }
}
