/**
 * The file of an export. Until all of it is durable it is called FILE.partial, so FILE itself is
 * always a whole image. Beside it lie a record of which snapshot it is and a ledger with the SHA-256
 * of every block written (digest-ledger.ts). By these a second run goes on: it believes nothing but
 * what is in the file, byte for byte, as the ledger says. So it does not matter how the first run
 * ended, what of it had reached the disk, or who has touched the file since. Holes are never written:
 * a new file is given its full size at once, and one that is gone on with has its holes emptied. A block
 * of zeros becomes an extent, an unwritten one where the file system has such, so that the file tells
 * the two apart as the snapshot does, and importing it gives the same blocks.
 */
import { type FileHandle, link, open, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { Failure } from "../common/failure.js";
import { openOwnFile } from "../common/own-file.js";
import { nextData, punchHole, tryLock, zeroRange } from "../common/posix.js";
import { BLOCK_SIZE, GIB } from "../common/sizes.js";
import { isZeros } from "../common/zeros.js";
import { sha256 } from "../ebs/checksum.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { ZERO_BLOCK } from "./block-buffers.js";
import { BlockWriter, writeFailure } from "./block-writer.js";
import { FileDigests } from "./digest-ledger.js";
import { type ExportRecord, readExportRecord, writeExportRecord } from "./export-record.js";
import type { ImageTarget } from "./image-export.js";

export class ExportFile implements ImageTarget {
  /** An earlier run of the same export has begun the file. */
  readonly isResumed: boolean;
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #writer: BlockWriter;
  readonly #force: boolean;
  readonly #record: ExportRecord;
  #ledger: FileDigests | undefined;

  private constructor(
    path: string,
    file: FileHandle,
    writer: BlockWriter,
    force: boolean,
    record: ExportRecord,
    isResumed: boolean,
  ) {
    this.#path = path;
    this.#file = file;
    this.#writer = writer;
    this.#force = force;
    this.#record = record;
    this.isResumed = isResumed;
  }

  /**
   * Opens FILE.partial, new or as an earlier run left it.
   * @param force overwrite a finished FILE, and forget an unfinished one of another snapshot.
   * @throws Failure EEXIST without force, or where what is there is not this user's own; EBUSY while
   * another export writes there.
   */
  static async open(path: string, snapshotId: SnapshotId, force: boolean): Promise<ExportFile> {
    const final = await realpath(path).catch(() => path);
    if (!force && (await exists(final))) {
      throw new Failure("EEXIST", `${path} exists already; --force replaces it.`);
    }
    const partial = `${final}.partial`;
    const file = await openOwnFile(partial, true).catch((cause: Error) => {
      if (cause instanceof Failure) throw cause;
      throw new Failure("EACCES", `${partial} cannot be opened (${cause.message}).`, { cause });
    });
    try {
      // The name is looked up again: its last holder may just have renamed the file we opened.
      const [held, opened] = [tryLock(file.fd), await file.stat()];
      const named = await stat(partial).catch(() => undefined);
      if (!held || named?.ino !== opened.ino) {
        throw new Failure(
          "EBUSY",
          `Another export is writing ${partial}; wait until it has ended.`,
        );
      }
      const found = await readExportRecord(`${partial}.json`);
      const same = found?.snapshotId === snapshotId && found.volumeSizeGiB * GIB === opened.size;
      if (opened.size > 0 && !same && !force) {
        const owner = found === undefined ? "something else" : `an export of ${found.snapshotId}`;
        throw new Failure(
          "EEXIST",
          `${partial} exists and belongs to ${owner}; remove it, or start over with --force.`,
        );
      }
      const fresh = { version: 2, snapshotId, volumeSizeGiB: 0 } as const;
      const record = same && found ? found : fresh;
      const writer = await BlockWriter.open(file, partial);
      return new ExportFile(final, file, writer, force, record, same && opened.size > 0);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /**
   * Blocks that an earlier run of the same export has written, as its ledger says; how many of them are
   * still whole is known only by reading them. Opens nothing for writing and makes nothing.
   */
  static async countKept(path: string, snapshotId: SnapshotId): Promise<number> {
    const partial = `${await realpath(path).catch(() => path)}.partial`;
    const record = await readExportRecord(`${partial}.json`).catch(() => undefined);
    if (record?.snapshotId !== snapshotId) return 0;
    const ledger = await FileDigests.look(`${partial}.digests`).catch(() => undefined);
    if (ledger === undefined) return 0;
    let count = 0;
    try {
      for await (const _ of ledger.entries()) count += 1;
    } finally {
      await ledger.close();
    }
    return count;
  }

  get startsEmpty(): boolean {
    return !this.isResumed;
  }

  /** Call before the first write, once the volume's size is known. */
  async prepare(volumeSizeGiB: number): Promise<void> {
    if (this.isResumed && this.#record.volumeSizeGiB !== volumeSizeGiB) {
      const message = `The service calls the volume ${volumeSizeGiB} GiB now and ${this.#record.volumeSizeGiB} GiB before; start over with --force after looking why.`;
      throw new Failure("EIO", message);
    }
    try {
      if (!this.isResumed) await this.#file.truncate(0);
      this.#ledger = await FileDigests.open(this.#ledgerPath, !this.isResumed);
      if (this.isResumed) return;
      await writeExportRecord(this.#recordPath, { ...this.#record, volumeSizeGiB });
      await this.#file.truncate(volumeSizeGiB * GIB);
    } catch (error) {
      throw writeFailure(this.#partial, error);
    }
  }

  async has(blockIndex: number, scratch: Uint8Array): Promise<boolean> {
    const noted = this.isResumed ? await this.#ledger?.get(blockIndex) : undefined;
    if (noted === undefined) return false;
    const read = this.#file.read(scratch, 0, BLOCK_SIZE, blockIndex * BLOCK_SIZE);
    // What the disk cannot give back is fetched again.
    const { bytesRead } = await read.catch(() => ({ bytesRead: 0 }));
    if (bytesRead < BLOCK_SIZE || !sha256(scratch).equals(noted)) return false;
    // Zeros read the same where their extent did not reach the disk.
    if (isZeros(scratch)) await this.#writeZeros(blockIndex);
    return true;
  }

  async writeBlock(blockIndex: number, data: Uint8Array, digest: Uint8Array): Promise<void> {
    if (isZeros(data)) await this.#writeZeros(blockIndex);
    else await this.#writer.write(blockIndex, data);
    await this.#ledger?.set(blockIndex, digest);
  }

  /** Asked for only of a file that is gone on with: nothing should be there. */
  async zeroBlocks(blockIndex: number, count: number): Promise<void> {
    const { fd } = this.#file;
    const start = blockIndex * BLOCK_SIZE;
    const end = start + count * BLOCK_SIZE;
    if (punchHole(fd, start, end - start)) return;
    for (let at = start; at < end; ) {
      const [from, to] = nextData(fd, at, end) ?? [end, end];
      at = Math.min(to, end);
      for (let i = Math.floor(from / BLOCK_SIZE); i * BLOCK_SIZE < at; i += 1) {
        await this.#writer.write(i, ZERO_BLOCK);
      }
    }
  }

  async #writeZeros(blockIndex: number): Promise<void> {
    if (await zeroRange(this.#file.fd, blockIndex * BLOCK_SIZE, BLOCK_SIZE)) return;
    await this.#writer.write(blockIndex, ZERO_BLOCK);
  }

  /** Makes all of it durable and gives it its name. */
  async finish(): Promise<void> {
    await this.#writer.sync();
    try {
      if (this.#force) await rename(this.#partial, this.#path);
      else await this.#renameToNew();
      const folder = await open(dirname(this.#path), "r");
      await folder.sync().finally(() => folder.close());
    } catch (error) {
      throw writeFailure(this.#path, error);
    }
    for (const path of [this.#recordPath, this.#ledgerPath]) await rm(path, { force: true });
  }

  /** Never over a file that has appeared, where the file system has links to do that with. */
  async #renameToNew(): Promise<void> {
    try {
      await link(this.#partial, this.#path);
      await rm(this.#partial);
    } catch (error) {
      if (await exists(this.#path)) {
        const message = `${this.#path} has appeared meanwhile; the image is whole in ${this.#partial}.`;
        throw new Failure("EEXIST", message, { cause: error });
      }
      await rename(this.#partial, this.#path);
    }
  }

  /** Closes it; a file that was never prepared and that no earlier run began is not left behind. */
  async close(): Promise<void> {
    await this.#ledger?.close();
    if (!this.isResumed && this.#ledger === undefined) await rm(this.#partial, { force: true });
    await this.#writer.close();
    await this.#file.close();
  }

  get #partial(): string {
    return `${this.#path}.partial`;
  }

  get #recordPath(): string {
    return `${this.#partial}.json`;
  }

  get #ledgerPath(): string {
    return `${this.#partial}.digests`;
  }
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
