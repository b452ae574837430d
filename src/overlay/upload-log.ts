/**
 * What one attempt has put into its pending snapshot, so that a crash neither puts everything again
 * nor forgets that a block is there. Before a block is put, that it will be is made durable (many
 * blocks a sync); its digest is noted after, with the next sync. A new intent voids the digest of an
 * earlier put: from then on nobody knows which of the two the service holds, until the put is through.
 * After a crash every intended block is merged again; it is put unless its digest is the one noted.
 */
import { DIGEST_SIZE } from "../ebs/checksum.js";
import { type BlockDigest, type DigestLedger, MemoryDigests } from "../snapshot/digest-ledger.js";
import { BlockSet } from "./block-set.js";
import type { SessionFiles } from "./disk-file.js";
import { DamagedLog, RecordLog } from "./record-log.js";
import type { Reserve } from "./reserve.js";

const VOID = new Uint8Array(DIGEST_SIZE);
const DONE_BYTES = 4 + DIGEST_SIZE;
/** Digests that wait for the next sync; past it they are written without one. */
const MAX_UNWRITTEN = 4096;

export class UploadLog implements DigestLedger {
  /** Blocks that were put, or may have been. */
  readonly intended = new BlockSet();
  readonly #digests = new MemoryDigests();
  readonly #log: RecordLog;
  readonly #reserve: Reserve;
  #intents: number[] = [];
  #done: { block: number; digest: Uint8Array }[] = [];
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #closed = false;

  private constructor(files: SessionFiles, reserve: Reserve, name: string, fresh: boolean) {
    this.#reserve = reserve;
    this.#log = fresh
      ? RecordLog.create(files, name)
      : RecordLog.open(files, name, (payload) => this.#apply(payload));
  }

  /**
   * Opens an attempt's log, or begins it, durably. One that is damaged is begun anew: then nothing is
   * known of what the pending snapshot holds, all is put again, and what the service has besides is
   * found out by its count and checksum at the end.
   * @throws Failure EIO, ENOSPC
   */
  static async open(files: SessionFiles, reserve: Reserve, attempt: number): Promise<UploadLog> {
    const name = `uploads-${attempt}`;
    try {
      if (files.exists(name)) return await UploadLog.#made(files, reserve, name, false);
    } catch (error) {
      if (!(error instanceof DamagedLog)) throw error;
    }
    const aside = `${name}.new`;
    const begun = await UploadLog.#made(files, reserve, aside, true);
    try {
      await files.replace(aside, name);
    } catch (error) {
      await begun.close();
      throw error;
    }
    return begun;
  }

  /** Opened or begun, and durable. */
  static async #made(
    files: SessionFiles,
    reserve: Reserve,
    name: string,
    fresh: boolean,
  ): Promise<UploadLog> {
    const log = new UploadLog(files, reserve, name, fresh);
    try {
      await log.#log.sync();
    } catch (error) {
      await log.close();
      throw error;
    }
    return log;
  }

  /** Resolves when it is durable that the block is going to be put. @throws Failure ENOSPC, EIO */
  intend(block: number): Promise<void> {
    this.intended.add(block);
    void this.#digests.set(block, VOID);
    this.#intents.push(block);
    return this.sync();
  }

  /** Notes a put that is through; durable with the next sync. */
  async set(blockIndex: number, digest: Uint8Array): Promise<void> {
    if (this.#closed) return;
    await this.#digests.set(blockIndex, digest);
    this.#done.push({ block: blockIndex, digest: Uint8Array.from(digest) });
    if (this.#done.length >= MAX_UNWRITTEN) this.#write();
  }

  get(blockIndex: number): Promise<Uint8Array | undefined> {
    return this.#digests.get(blockIndex);
  }

  entries(): AsyncIterable<BlockDigest> {
    return this.#digests.entries();
  }

  /** Makes all that was noted before the call durable; concurrent calls share one sync. */
  sync(): Promise<void> {
    if (this.#next !== undefined) return this.#next;
    const next = (this.#running ?? Promise.resolve())
      .catch(() => {})
      .then(() => {
        this.#next = undefined;
        const running = this.#writeAndSync().finally(() => {
          if (this.#running === running) this.#running = undefined;
        });
        this.#running = running;
        return running;
      });
    this.#next = next;
    return next;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    // What is not noted would be put, and paid for, once more. A disk that fails costs no more than that.
    const last = this.#done.length > 0 ? this.sync() : (this.#next ?? this.#running);
    await last?.catch(() => {});
    this.#closed = true;
    this.#log.close();
  }

  async #writeAndSync(): Promise<void> {
    if (this.#closed) throw new Error("the upload log is closed");
    this.#write();
    await this.#log.sync();
  }

  /** Digests before intents: of a block in both, the intent is the later. */
  #write(): void {
    const intents = this.#intents;
    const done = this.#done;
    if (intents.length === 0 && done.length === 0) return;
    const payload = Buffer.alloc(8 + done.length * DONE_BYTES + intents.length * 4);
    payload.writeUInt32LE(done.length, 0);
    payload.writeUInt32LE(intents.length, 4);
    let at = 8;
    for (const { block, digest } of done) {
      payload.writeUInt32LE(block, at);
      payload.set(digest, at + 4);
      at += DONE_BYTES;
    }
    for (const block of intents) at = payload.writeUInt32LE(block, at);
    this.#reserve.spendOn(() => this.#log.append(payload));
    this.#intents = [];
    this.#done = [];
  }

  #apply(payload: Buffer): void {
    const doneEnd = 8 + payload.readUInt32LE(0) * DONE_BYTES;
    for (let at = 8; at < doneEnd; at += DONE_BYTES) {
      void this.#digests.set(payload.readUInt32LE(at), payload.subarray(at + 4, at + DONE_BYTES));
    }
    for (let at = doneEnd; at < payload.length; at += 4) {
      const block = payload.readUInt32LE(at);
      this.intended.add(block);
      void this.#digests.set(block, VOID);
    }
  }
}
