/**
 * Turns forwarded requests into calls of the FileSystem and its answers into replies, on the main
 * thread. Names and attributes are answered at once; data is answered when it is there, in any
 * order. A request's words live only until `handle` returns, so what an answer needs is taken out
 * as numbers first.
 *
 * Signals: a program that gets one while it waits makes the kernel send INTERRUPT. Only a read or a
 * seek may then be given up (a write or flush that was begun has to be true), and only after a
 * moment of grace: programs with timers get signals all the time, and few expect EINTR from a disk.
 */
import { Failure } from "../../common/failure.js";
import { type AttributeChanges, type FileSystem, ROOT_INODE } from "../../filesystem/filesystem.js";
import type { AnswerLog } from "../answer-log.js";
import { number64, OPCODE, SET_ATTRIBUTE, WORD, WRITE_DATA_AT } from "./protocol.js";
import {
  decodeName,
  encodeAttributes,
  encodeDirectory,
  encodeEntry,
  encodeOpen,
  encodeStatfs,
  type ListedEntry,
  uniqueOf,
} from "./replies.js";
import type { ReplyWriter } from "./reply-writer.js";

const O_ACCMODE = 3;
/** O_DSYNC; O_SYNC includes it. */
const O_DSYNC = 0o10_000;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const FALLOC_FL_KEEP_SIZE = 0x01;
const FALLOC_FL_PUNCH_HOLE = 0x02;
const FALLOC_FL_ZERO_RANGE = 0x10;
/** How long a signal leaves a waiting read alone. */
const INTERRUPT_GRACE_MS = 500;

/** The data of a WRITE, in a slot. */
export interface WriteSlots {
  slotBytes(slot: number, start: number, length: number): Uint8Array;
  releaseSlot(slot: number): void;
}

export class RequestHandler {
  readonly #files: FileSystem;
  readonly #reply: ReplyWriter;
  readonly #slots: WriteSlots;
  readonly #log: AnswerLog;
  /**
   * Reads and seeks under way, by `unique`, and what stops them; the kernel bounds them
   * (max_background, its readers).
   */
  readonly #interruptible = new Map<number, AbortController | undefined>();
  #changing = 0;
  #onSettled: (() => void) | undefined;

  constructor(files: FileSystem, reply: ReplyWriter, slots: WriteSlots, log: AnswerLog) {
    this.#files = files;
    this.#reply = reply;
    this.#slots = slots;
    this.#log = log;
  }

  /** Resolves when no write, zeroing, discard or flush is under way. */
  settled(): Promise<void> {
    if (this.#changing === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onSettled = resolve;
    });
  }

  /** @param slot where a WRITE's data is, else -1. */
  handle(words: Uint32Array, slot: number): void {
    const unique = uniqueOf(words);
    const opcode = words[WORD.OPCODE]!;
    switch (opcode) {
      case OPCODE.READ:
        this.#read(unique, words);
        return;
      case OPCODE.WRITE:
        this.#write(unique, words, slot);
        return;
      case OPCODE.INTERRUPT:
        this.#interrupt(number64(words, WORD.INTERRUPT_UNIQUE));
        return;
      case OPCODE.LSEEK:
        this.#seek(unique, words);
        return;
      case OPCODE.FSYNC:
        this.#change(unique, this.#files.flush(number64(words, WORD.HANDLE)));
        return;
      case OPCODE.FLUSH:
        this.#change(unique, this.#files.flushOnClose(number64(words, WORD.HANDLE)));
        return;
      case OPCODE.FALLOCATE:
        this.#change(unique, this.#fallocate(words));
        return;
      case OPCODE.SETATTR:
        this.#setAttributes(unique, words);
        return;
    }
    try {
      this.#answerNow(opcode, unique, words);
    } catch (error) {
      this.#reply.error(unique, this.#log.errno(error));
    }
  }

  #answerNow(opcode: number, unique: number, words: Uint32Array): void {
    const files = this.#files;
    const reply = this.#reply;
    const inode = words[WORD.NODE]!;
    switch (opcode) {
      case OPCODE.LOOKUP: {
        const bytes = new Uint8Array(words.buffer, words.byteOffset, words[WORD.LENGTH]!);
        const found = files.lookup(inode, decodeName(bytes, WORD.BODY * 4, bytes.length));
        reply.body(unique, encodeEntry(reply.words, found, files.timeToLive));
        return;
      }
      case OPCODE.GETATTR:
        reply.body(
          unique,
          encodeAttributes(reply.words, files.attributes(inode), files.timeToLive),
        );
        return;
      case OPCODE.OPEN: {
        const flags = words[WORD.OPEN_FLAGS]!;
        const opened = files.open(inode, (flags & O_ACCMODE) !== 0, (flags & O_DSYNC) !== 0);
        reply.body(unique, encodeOpen(reply.words, opened.handle, opened.keepCache));
        return;
      }
      case OPCODE.RELEASE:
        files.release(number64(words, WORD.HANDLE));
        reply.ok(unique);
        return;
      case OPCODE.STATFS:
        reply.body(unique, encodeStatfs(reply.words, files.statfs()));
        return;
      case OPCODE.READDIR:
      case OPCODE.READDIRPLUS: {
        const entries = this.#listing(inode, opcode === OPCODE.READDIRPLUS);
        const first = number64(words, WORD.OFFSET);
        const limit = words[WORD.SIZE]!;
        reply.body(unique, encodeDirectory(reply.bytes, limit, entries, first, files.timeToLive));
        return;
      }
      default:
        reply.error(unique, "ENOSYS");
    }
  }

  #listing(inode: number, plus: boolean): ListedEntry[] {
    const entries: ListedEntry[] = [
      { name: ".", inode: ROOT_INODE, kind: "directory" },
      { name: "..", inode: ROOT_INODE, kind: "directory" },
      ...this.#files.list(inode),
    ];
    if (!plus) return entries;
    return entries.map((entry) => ({ ...entry, attributes: this.#files.attributes(entry.inode) }));
  }

  #read(unique: number, words: Uint32Array): void {
    const handle = number64(words, WORD.HANDLE);
    const offset = number64(words, WORD.OFFSET);
    const length = words[WORD.SIZE]!;
    const stop = new AbortController();
    this.#interruptible.set(unique, stop);
    try {
      this.#files.read(handle, offset, length, stop.signal).then(
        (view) => {
          if (this.#interruptible.delete(unique)) this.#reply.data(unique, view.parts);
          view.release();
        },
        (error: unknown) => this.#readFailed(unique, error),
      );
    } catch (error) {
      this.#readFailed(unique, error);
    }
  }

  #readFailed(unique: number, error: unknown): void {
    // Of a read that was given up nobody waits for the end.
    if (this.#interruptible.delete(unique)) this.#reply.error(unique, this.#log.errno(error));
  }

  #seek(unique: number, words: Uint32Array): void {
    const handle = number64(words, WORD.HANDLE);
    const offset = number64(words, WORD.OFFSET);
    const whence = words[WORD.LSEEK_WHENCE]!;
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) {
      this.#reply.error(unique, "EINVAL");
      return;
    }
    this.#interruptible.set(unique, undefined);
    const seek = async () =>
      await this.#files.seek(handle, offset, whence === SEEK_DATA ? "data" : "hole");
    seek().then(
      (position) => {
        if (!this.#interruptible.delete(unique)) return;
        const { words: body } = this.#reply;
        body[0] = position % 2 ** 32;
        body[1] = position / 2 ** 32;
        this.#reply.body(unique, 8);
      },
      (error: unknown) => this.#readFailed(unique, error),
    );
  }

  #interrupt(unique: number): void {
    if (!this.#interruptible.has(unique)) return;
    setTimeout(() => {
      const stop = this.#interruptible.get(unique);
      if (!this.#interruptible.delete(unique)) return;
      this.#reply.error(unique, "EINTR");
      stop?.abort();
    }, INTERRUPT_GRACE_MS);
  }

  #write(unique: number, words: Uint32Array, slot: number): void {
    const handle = number64(words, WORD.HANDLE);
    const offset = number64(words, WORD.OFFSET);
    const length = words[WORD.SIZE]!;
    const write = async () => {
      try {
        await this.#files.write(handle, offset, this.#slots.slotBytes(slot, WRITE_DATA_AT, length));
      } finally {
        this.#slots.releaseSlot(slot);
      }
    };
    this.#change(unique, write(), length);
  }

  /**
   * A refusal is EOPNOTSUPP and never ENOSYS, after which the kernel would ask for no range of any
   * kind again. A loop device that is refused a hole writes zeros instead where zeros are needed.
   */
  async #fallocate(words: Uint32Array): Promise<void> {
    const handle = number64(words, WORD.HANDLE);
    const offset = number64(words, WORD.OFFSET);
    const length = number64(words, WORD.FALLOCATE_LENGTH);
    const mode = words[WORD.FALLOCATE_MODE]!;
    if ((mode & ~FALLOC_FL_KEEP_SIZE) === FALLOC_FL_ZERO_RANGE) {
      await this.#files.zero(handle, offset, length);
    } else if (mode === (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)) {
      await this.#files.discard(handle, offset, length);
    } else {
      // Space cannot be promised: the overlay is sparse.
      throw new Failure("EOPNOTSUPP", "Only holes and zeros can be allocated here.");
    }
  }

  #setAttributes(unique: number, words: Uint32Array): void {
    const valid = words[WORD.SETATTR_VALID]!;
    const has = (bit: number) => (valid & bit) !== 0;
    const changes: AttributeChanges = {
      ...(has(SET_ATTRIBUTE.SIZE) && { size: number64(words, WORD.SETATTR_SIZE) }),
      ...(has(SET_ATTRIBUTE.MODE) && { mode: words[WORD.SETATTR_MODE]! & 0o7777 }),
      ...(has(SET_ATTRIBUTE.UID) && { uid: words[WORD.SETATTR_UID]! }),
      ...(has(SET_ATTRIBUTE.GID) && { gid: words[WORD.SETATTR_GID]! }),
      ...(has(SET_ATTRIBUTE.MTIME) && { modifiedAt: number64(words, WORD.SETATTR_MTIME) }),
      ...(has(SET_ATTRIBUTE.MTIME_NOW) && { modifiedAt: Date.now() / 1000 }),
    };
    this.#files.setAttributes(words[WORD.NODE]!, changes).then(
      (now) => {
        const length = encodeAttributes(this.#reply.words, now, this.#files.timeToLive);
        this.#reply.body(unique, length);
      },
      (error: unknown) => this.#reply.error(unique, this.#log.errno(error)),
    );
  }

  /** Answers when `work` is done. @param written bytes, for the reply to a WRITE. */
  #change(unique: number, work: Promise<void>, written?: number): void {
    this.#changing += 1;
    work.then(
      () => {
        if (written === undefined) {
          this.#reply.ok(unique);
        } else {
          this.#reply.words[0] = written;
          this.#reply.words[1] = 0;
          this.#reply.body(unique, 8);
        }
        this.#changed();
      },
      (error: unknown) => {
        this.#reply.error(unique, this.#log.errno(error));
        this.#changed();
      },
    );
  }

  #changed(): void {
    this.#changing -= 1;
    if (this.#changing === 0) this.#onSettled?.();
  }
}
