/**
 * Blocks on the local disk, in two files: the blocks themselves, a slot each, and an index with one
 * entry a slot. A block may lie in any of the 64 slots of one set, chosen by its key, so finding it,
 * or the slot to evict for it (the set's oldest used), is one small read. Nothing is locked, counted
 * or scanned, the files cannot outgrow their slots, and processes share them without knowing of each
 * other: whatever two writers, a kill or a bad disk make of a slot, its digest no longer fits and
 * the block is fetched again. Nothing is synced, for the same reason.
 *
 * An entry is emptied before its data is overwritten and written after it. A reader reads entry, then
 * data, and believes neither before the digest over both fits.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { BLOCK_SIZE } from "../common/sizes.js";
import { digestOf, ENTRY_SIZE, makeEntry, SlotSet, USED_AT, usedBytes } from "./disk-cache-slot.js";

const WAYS = 64;
/** A use is written down when the last that was is older, ms. */
const USE_PRECISION_MS = 60_000;
/** How often it is looked whether the files are still those at their paths, ms. */
const CHECK_MS = 1_000;
const OWN_FILES = /^ebsmount-(blocks|index)-v1-\d+$/;
const { O_RDWR, O_RDONLY, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = fs.constants;

const readAt = promisify(fs.read);
const writeAt = promisify(fs.write);

/**
 * What the store says when it has come to its limits, each kind once: it is off, it only reads, or
 * something was wrong and it goes on.
 */
export type StoreTrouble = (kind: "off" | "read-only" | "damaged", sentence: string) => void;

interface OpenFile {
  readonly fd: number;
  readonly path: string;
  readonly device: number;
  readonly inode: number;
}

export class DiskCacheStore {
  readonly slots: number;
  readonly #ways: number;
  readonly #index: OpenFile;
  readonly #blocks: OpenFile;
  readonly #onTrouble: StoreTrouble;
  readonly #told = new Set<string>();
  readonly #writing = new Set<number>();
  #busy = 0;
  #whenIdle: (() => void) | undefined;
  #isOff = false;
  #canWrite: boolean;
  #checkedAt = 0;

  /**
   * Files of another size limit in the folder are removed: the latest mount's limit counts.
   * @param bytes most that the two files may take. @throws Error of node:fs.
   */
  constructor(folder: string, bytes: number, onTrouble: StoreTrouble) {
    this.#onTrouble = onTrouble;
    const slots = Math.max(1, Math.floor(bytes / (BLOCK_SIZE + ENTRY_SIZE)));
    this.#ways = Math.min(WAYS, slots);
    this.slots = slots - (slots % this.#ways);
    const names = ["index", "blocks"].map((kind) => `ebsmount-${kind}-v1-${this.slots}`);
    removeOthers(folder, names);
    const [index, blocks] = names.map((name) => join(folder, name)) as [string, string];
    let canWrite = true;
    try {
      this.#index = openFile(index, O_RDWR | O_CREAT);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EROFS") throw error;
      canWrite = false;
      this.#index = openFile(index, O_RDONLY);
    }
    try {
      this.#blocks = openFile(blocks, canWrite ? O_RDWR | O_CREAT : O_RDONLY);
    } catch (error) {
      fs.closeSync(this.#index.fd);
      throw error;
    }
    this.#canWrite = canWrite;
    if (!canWrite) this.#stopWriting("it is on a read-only file system");
  }

  /** Whether an entry says that the block is here; its data is not looked at. */
  holds(key: Buffer): boolean {
    if (!this.#isUsable()) return false;
    try {
      return this.#set(key).find(key) >= 0;
    } catch (error) {
      this.#turnOff((error as Error).message);
      return false;
    }
  }

  /**
   * Fills target (BLOCK_SIZE bytes) with the block and is true, or is false where the block is not here or did not pass
   * its check; target then holds anything. Never rejects.
   */
  async read(key: Buffer, target: Uint8Array): Promise<boolean> {
    if (!this.#isUsable()) return false;
    this.#busy += 1;
    try {
      const set = this.#set(key);
      const way = set.find(key);
      if (way < 0) return false;
      const slot = this.#slotOf(key, way);
      const digest = set.digest(way);
      if ((await this.#fill(slot, target)) && digestOf(key, target).equals(digest)) {
        const now = Date.now();
        if (this.#canWrite && now - set.usedAt(way, now) > USE_PRECISION_MS) {
          await this.#write(this.#index, slot * ENTRY_SIZE + USED_AT, usedBytes(now));
        }
        return true;
      }
      await this.#drop(key, way, digest);
    } catch (error) {
      this.#turnOff((error as Error).message);
    } finally {
      this.#leave();
    }
    return false;
  }

  /**
   * Keeps a block where that is possible; `data` must not change until it resolves. Never rejects.
   * @returns whether the block was put there.
   */
  async write(key: Buffer, data: Uint8Array): Promise<boolean> {
    if (!this.#isUsable() || !this.#canWrite) return false;
    this.#busy += 1;
    let slot = -1;
    try {
      const set = this.#set(key);
      // Another process may have been first.
      if (set.find(key) >= 0) return false;
      const now = Date.now();
      const way = set.victim(now, (of) => this.#writing.has(this.#slotOf(key, of)));
      if (way < 0) return false;
      slot = this.#slotOf(key, way);
      this.#writing.add(slot);
      const digest = digestOf(key, data);
      return (
        (await this.#write(this.#index, slot * ENTRY_SIZE, Buffer.alloc(ENTRY_SIZE))) &&
        (await this.#write(this.#blocks, slot * BLOCK_SIZE, data)) &&
        (await this.#write(this.#index, slot * ENTRY_SIZE, makeEntry(key, digest, now)))
      );
    } catch (error) {
      this.#turnOff((error as Error).message);
      return false;
    } finally {
      this.#writing.delete(slot);
      this.#leave();
    }
  }

  /** Waits for what is under way, then closes the files. */
  async close(): Promise<void> {
    this.#isOff = true;
    if (this.#busy > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    fs.closeSync(this.#index.fd);
    fs.closeSync(this.#blocks.fd);
  }

  #leave(): void {
    this.#busy -= 1;
    if (this.#busy === 0) this.#whenIdle?.();
  }

  #slotOf(key: Buffer, way: number): number {
    return (key.readUIntLE(0, 6) % (this.slots / this.#ways)) * this.#ways + way;
  }

  #set(key: Buffer): SlotSet {
    const bytes = Buffer.allocUnsafe(this.#ways * ENTRY_SIZE);
    const at = this.#slotOf(key, 0) * ENTRY_SIZE;
    // Small and nearly always in the page cache: a way over the thread pool would cost more.
    const length = fs.readSync(this.#index.fd, bytes, 0, bytes.length, at);
    return new SlotSet(bytes.subarray(0, length), this.#ways);
  }

  async #fill(slot: number, target: Uint8Array): Promise<boolean> {
    let done = 0;
    while (done < target.length) {
      const at = slot * BLOCK_SIZE + done;
      const { fd } = this.#blocks;
      const { bytesRead } = await readAt(fd, target, done, target.length - done, at);
      if (bytesRead === 0) return false;
      done += bytesRead;
    }
    return true;
  }

  /** Empties an entry whose data did not fit, unless another process has just made it anew. */
  async #drop(key: Buffer, way: number, digest: Buffer): Promise<void> {
    const set = this.#set(key);
    if (set.find(key) !== way || !set.digest(way).equals(digest)) return;
    const slot = this.#slotOf(key, way);
    if (this.#canWrite && !this.#writing.has(slot)) {
      await this.#write(this.#index, slot * ENTRY_SIZE, Buffer.alloc(ENTRY_SIZE));
    }
    this.#tell("damaged", "a block there did not pass its check and is fetched again");
  }

  async #write(file: OpenFile, at: number, bytes: Uint8Array): Promise<boolean> {
    try {
      for (let done = 0; done < bytes.length; ) {
        // A disk that is just filling up writes short first and says ENOSPC on the next call.
        const left = bytes.length - done;
        done += (await writeAt(file.fd, bytes, done, left, at + done)).bytesWritten;
      }
      return true;
    } catch (error) {
      this.#stopWriting((error as Error).message);
      return false;
    }
  }

  /** Off once the files at the paths are others, or none: nobody would share what is kept here. */
  #isUsable(): boolean {
    const now = Date.now();
    if (this.#isOff || Math.abs(now - this.#checkedAt) < CHECK_MS) return !this.#isOff;
    this.#checkedAt = now;
    try {
      if ([this.#index, this.#blocks].every(isInPlace)) return true;
      this.#turnOff("its files were removed or replaced");
    } catch (error) {
      this.#turnOff((error as Error).message);
    }
    return false;
  }

  #turnOff(why: string): void {
    if (!this.#isOff) this.#tell("off", why);
    this.#isOff = true;
  }

  #stopWriting(why: string): void {
    this.#canWrite = false;
    this.#tell("read-only", why);
  }

  #tell(kind: Parameters<StoreTrouble>[0], sentence: string): void {
    if (this.#told.has(kind)) return;
    this.#told.add(kind);
    this.#onTrouble(kind, sentence);
  }
}

function openFile(path: string, flags: number): OpenFile {
  // Not to wait for a pipe that stands there: that it is no file is found out next.
  const fd = fs.openSync(path, flags | O_NOFOLLOW | O_NONBLOCK, 0o600);
  const { dev, ino, uid, mode } = fs.fstatSync(fd);
  const isFile = (mode & fs.constants.S_IFMT) === fs.constants.S_IFREG;
  if (isFile && uid === process.getuid?.()) return { fd, path, device: dev, inode: ino };
  fs.closeSync(fd);
  throw new Error(`${path} is not a file of this user`);
}

function isInPlace(file: OpenFile): boolean {
  const found = fs.statSync(file.path, { throwIfNoEntry: false });
  return found?.ino === file.inode && found.dev === file.device;
}

function removeOthers(folder: string, names: readonly string[]): void {
  for (const name of fs.readdirSync(folder)) {
    if (!OWN_FILES.test(name) || names.includes(name)) continue;
    try {
      fs.rmSync(join(folder, name), { force: true });
    } catch {
      // A read-only folder keeps them; they grow no more.
    }
  }
}
