/**
 * The file of an export. Until all of it is durable it is called FILE.partial, with a record beside
 * it (export-record.ts) by which a second run goes on; so FILE itself is always a whole image. Holes
 * are never written: the partial file starts empty and is given its full size at once.
 */
import { constants } from "node:fs";
import { type FileHandle, open, realpath, rename, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { Failure } from "../common/failure.js";
import { tryLock } from "../common/posix.js";
import { GIB } from "../common/sizes.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { isZeroBlock } from "./block-buffers.js";
import { BlockWriter, writeFailure } from "./block-writer.js";
import {
  type ExportRecord,
  readExportRecord,
  removeExportRecord,
  writeExportRecord,
} from "./export-record.js";
import type { ImageTarget } from "./image-export.js";

/** How much work a power cut can cost, ms; each checkpoint waits for the disk. */
const CHECKPOINT_MS = 15_000;

export class ExportFile implements ImageTarget {
  readonly startsEmpty = true;
  /** Where an earlier run of the same export got to; 0 where there was none. */
  readonly startingBlockIndex: number;
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #writer: BlockWriter;
  readonly #force: boolean;
  #record: ExportRecord;
  #nextCheckpoint = performance.now() + CHECKPOINT_MS;
  #checkpointing: Promise<void> | undefined;

  private constructor(path: string, file: FileHandle, force: boolean, record: ExportRecord) {
    this.#path = path;
    this.#file = file;
    this.#writer = new BlockWriter(file, `${path}.partial`);
    this.#force = force;
    this.#record = record;
    this.startingBlockIndex = record.nextBlockIndex;
  }

  /**
   * Opens FILE.partial, new or as an earlier run left it.
   * @param force overwrite a finished FILE, and forget an unfinished one of another snapshot.
   * @throws Failure EEXIST without force, EBUSY while another export writes there.
   */
  static async open(path: string, snapshotId: SnapshotId, force: boolean): Promise<ExportFile> {
    const final = await realpath(path).catch(() => path);
    if (!force && (await exists(final))) {
      throw new Failure("EEXIST", `${path} exists already; --force replaces it.`);
    }
    const partial = `${final}.partial`;
    const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
    const file = await open(partial, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600).catch((cause: Error) => {
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
      const fresh = { version: 1, snapshotId, volumeSizeGiB: 0, nextBlockIndex: 0 } as const;
      const found = await readExportRecord(`${partial}.json`);
      const same = found?.snapshotId === snapshotId && found.volumeSizeGiB * GIB === opened.size;
      if (opened.size > 0 && !same && !force) {
        const owner = found === undefined ? "something else" : `an export of ${found.snapshotId}`;
        throw new Failure(
          "EEXIST",
          `${partial} exists and belongs to ${owner}; remove it, or start over with --force.`,
        );
      }
      return new ExportFile(final, file, force, same && found ? found : fresh);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Call before the first write, once the volume's size is known. */
  async prepare(volumeSizeGiB: number): Promise<void> {
    if (this.startingBlockIndex > 0) {
      if (this.#record.volumeSizeGiB === volumeSizeGiB) return;
      const message = `The service calls the volume ${volumeSizeGiB} GiB now and ${this.#record.volumeSizeGiB} GiB before; start over with --force after looking why.`;
      throw new Failure("EIO", message);
    }
    this.#record = { ...this.#record, volumeSizeGiB };
    try {
      await this.#file.truncate(0);
      await writeExportRecord(this.#recordPath, this.#record);
      await this.#file.truncate(volumeSizeGiB * GIB);
    } catch (error) {
      throw writeFailure(this.#partial, error);
    }
  }

  async writeBlock(blockIndex: number, data: Uint8Array): Promise<void> {
    // A written block of zeros stays a hole. Where an earlier run got past the checkpoint, it wrote
    // these same blocks with these same bytes, so nothing else can be there.
    if (isZeroBlock(data)) return;
    await this.#writer.write(blockIndex, data);
  }

  /** Holes are there from the start. */
  async zeroBlocks(): Promise<void> {}

  async checkpoint(nextBlockIndex: number, due: "if time" | "now"): Promise<void> {
    if (due === "if time") {
      if (this.#checkpointing !== undefined || performance.now() < this.#nextCheckpoint) return;
    }
    await this.#checkpointing?.catch(() => {});
    this.#checkpointing = this.#save(nextBlockIndex);
    try {
      await this.#checkpointing;
    } finally {
      this.#checkpointing = undefined;
      this.#nextCheckpoint = performance.now() + CHECKPOINT_MS;
    }
  }

  /** Makes all of it durable and gives it its name. */
  async finish(): Promise<void> {
    await this.#writer.sync();
    try {
      if (!this.#force && (await exists(this.#path))) {
        const message = `${this.#path} has appeared meanwhile; the image is whole in ${this.#partial}.`;
        throw new Failure("EEXIST", message);
      }
      await rename(this.#partial, this.#path);
      const folder = await open(dirname(this.#path), "r");
      await folder.sync().finally(() => folder.close());
    } catch (error) {
      throw writeFailure(this.#path, error);
    }
    await removeExportRecord(this.#recordPath);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  get #partial(): string {
    return `${this.#path}.partial`;
  }

  get #recordPath(): string {
    return `${this.#partial}.json`;
  }

  async #save(nextBlockIndex: number): Promise<void> {
    await this.#writer.sync();
    try {
      await writeExportRecord(this.#recordPath, { ...this.#record, nextBlockIndex });
    } catch (error) {
      throw writeFailure(this.#partial, error);
    }
  }
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
