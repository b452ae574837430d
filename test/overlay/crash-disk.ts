/**
 * A session folder in memory on a disk that loses power. What was written but not synced survives a
 * loss in an arbitrary subset of its sectors; names that were not made durable may be gone. Power can
 * be cut at any operation, in the middle of a write as well, and the disk can be full.
 */
import { Failure } from "../../src/common/failure.js";
import type { DiskFile, SessionFiles } from "../../src/overlay/disk-file.js";
import { RecordLog } from "../../src/overlay/record-log.js";
import { Reserve } from "../../src/overlay/reserve.js";

const SECTOR = 512;

export class PowerLoss extends Error {}

type Change =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Buffer }
  | { readonly kind: "truncate"; readonly size: number };

interface Content {
  /** What is on the platter. */
  durable: Buffer;
  /** What a reader sees. */
  current: Buffer;
  pending: Change[];
  named: boolean;
}

function apply(content: Buffer, change: Change): Buffer {
  if (change.kind === "truncate") {
    const next = Buffer.alloc(change.size);
    content.copy(next);
    return next;
  }
  const end = change.offset + change.bytes.length;
  const next =
    end > content.length ? Buffer.concat([content, Buffer.alloc(end - content.length)]) : content;
  change.bytes.copy(next, change.offset);
  return next;
}

/** The least size of a file in which the change has room. */
function reach(change: Change): number {
  return change.kind === "truncate" ? change.size : change.offset + change.bytes.length;
}

export class CrashDisk implements SessionFiles {
  readonly #files = new Map<string, Content>();
  /** Operations until the power goes; each write, sync, truncate, rename and punch is one. */
  operationsLeft = Number.POSITIVE_INFINITY;
  operations = 0;
  /** Bytes that all files together may have. */
  capacity = Number.POSITIVE_INFINITY;
  /** Makes the next syncs fail. */
  failSyncs = 0;
  syncs = 0;

  /** Runs `operation`, or a part of it, or loses power. */
  #step(operation: () => void, partly?: () => void): void {
    this.operations += 1;
    if (this.operationsLeft <= 0) throw new PowerLoss("no power");
    this.operationsLeft -= 1;
    if (this.operationsLeft <= 0) {
      partly?.();
      throw new PowerLoss("the power went");
    }
    operation();
  }

  #used(): number {
    let sum = 0;
    for (const file of this.#files.values()) sum += file.current.length;
    return sum;
  }

  open(name: string): DiskFile {
    let content = this.#files.get(name);
    if (content === undefined) {
      content = { durable: Buffer.alloc(0), current: Buffer.alloc(0), pending: [], named: false };
      this.#files.set(name, content);
    }
    const file = content;
    const change = (made: Change) => {
      file.current = apply(file.current, made);
      file.pending.push(made);
    };
    const write = (offset: number, bytes: Uint8Array) => {
      if (bytes.length > 0) change({ kind: "write", offset, bytes: Buffer.from(bytes) });
    };
    return {
      get size() {
        return file.current.length;
      },
      writeAt: (offset, bytes) => {
        const grows = Math.max(0, offset + bytes.length - file.current.length);
        const room = this.capacity - this.#used();
        this.#step(
          () => {
            if (grows <= room) return write(offset, bytes);
            write(offset, bytes.subarray(0, Math.max(0, bytes.length - grows + Math.max(0, room))));
            throw new Failure("ENOSPC", "The disk is full.");
          },
          () => write(offset, bytes.subarray(0, Math.floor(bytes.length / 2 / SECTOR) * SECTOR)),
        );
      },
      readAt: (offset, target) => {
        const part = file.current.subarray(offset, offset + target.length);
        target.set(part);
        return part.length;
      },
      truncate: (size) => this.#step(() => change({ kind: "truncate", size })),
      sync: async () => {
        // What is durable afterwards is what was there at the call; later writes may come before.
        const count = file.pending.length;
        this.syncs += 1;
        await new Promise((resolve) => setImmediate(resolve));
        this.#step(() => {
          if (this.failSyncs > 0) {
            this.failSyncs -= 1;
            throw new Failure("EIO", "The disk failed.");
          }
          for (const made of file.pending.splice(0, count))
            file.durable = apply(file.durable, made);
        });
      },
      punch: (offset, length) => {
        const end = Math.min(offset + length, file.current.length);
        this.#step(() => write(offset, Buffer.alloc(Math.max(0, end - offset))));
      },
      dropCached: () => {},
      nextData: (offset) =>
        offset < file.current.length ? [offset, file.current.length] : undefined,
      close: () => {},
    };
  }

  exists(name: string): boolean {
    return this.#files.has(name);
  }

  async replace(from: string, to: string): Promise<void> {
    this.#step(() => {
      const file = this.#files.get(from)!;
      this.#files.delete(from);
      this.#files.set(to, file);
      file.named = true;
    });
    await this.syncFolder();
  }

  async syncFolder(): Promise<void> {
    this.#step(() => {
      for (const file of this.#files.values()) file.named = true;
    });
  }

  remove(name: string): void {
    this.#files.delete(name);
  }

  /** What is found when the power is back. @param random 0 to below 1 */
  afterLoss(random: () => number): CrashDisk {
    const found = new CrashDisk();
    for (const [name, file] of this.#files) {
      if (!file.named && random() < 0.5) continue;
      let size = file.durable.length;
      const content = Buffer.alloc(Math.max(size, ...file.pending.map(reach)));
      file.durable.copy(content);
      // All, none or some: each is a disk that was seen.
      const kept = [0, 0.5, 1][Math.floor(random() * 3)]!;
      for (const change of file.pending) {
        if (change.kind === "truncate") {
          if (random() < kept) {
            content.fill(0, change.size);
            size = change.size;
          }
          continue;
        }
        const { offset, bytes } = change;
        for (let at = 0; at < bytes.length; ) {
          const length = Math.min(SECTOR - ((offset + at) % SECTOR), bytes.length - at);
          if (random() < kept) {
            bytes.copy(content, offset + at, at, at + length);
            size = Math.max(size, offset + at + length);
          }
          at += length;
        }
      }
      const durable = Buffer.from(content.subarray(0, size));
      found.#files.set(name, {
        durable,
        current: Buffer.from(durable),
        pending: [],
        named: true,
      });
    }
    return found;
  }

  /** What the next process finds when this one is killed: all that was written, synced or not. */
  afterKill(): CrashDisk {
    const found = new CrashDisk();
    for (const [name, file] of this.#files) {
      found.#files.set(name, { ...file, pending: [...file.pending] });
    }
    this.operationsLeft = 0;
    return found;
  }

  /** Changes what is on the disk behind everyone's back. */
  corrupt(name: string, offset: number): void {
    const file = this.#files.get(name)!;
    file.current[offset]! ^= 0xff;
    file.durable = Buffer.from(file.current);
  }

  cut(name: string, size: number): void {
    const file = this.#files.get(name)!;
    file.current = file.current.subarray(0, size);
    file.durable = Buffer.from(file.current);
  }

  contentOf(name: string): Buffer {
    return this.#files.get(name)!.current;
  }
}

/** A new session folder on that disk, as createSession makes it. */
export async function newFolder(disk: CrashDisk): Promise<void> {
  const log = RecordLog.create(disk, "journal");
  await log.sync();
  await disk.syncFolder();
}

export function folderOn(disk: CrashDisk, volumeBytes: number) {
  return { files: disk, reserve: new Reserve(disk), volumeBytes };
}
