/**
 * The bodies of replies, as <linux/fuse.h> lays them out. Each encoder writes into the words it is
 * given and returns how many bytes it used; the caller owns the memory and may use it again at once,
 * for a reply has left when the write to /dev/fuse returns.
 */
import type { Attributes, DirectoryEntry, StatFs } from "../../filesystem/filesystem.js";
import { CONGESTION_THRESHOLD, MAX_BACKGROUND } from "../driver.js";
import {
  INIT_FLAG,
  MAJOR,
  MAX_PAGES,
  MAX_REQUEST_DATA,
  MINOR,
  number64,
  OPEN_FLAG,
  setNumber64,
  WORD,
} from "./protocol.js";

const S_IFDIR = 0o040_000;
const S_IFREG = 0o100_000;
const DT_DIR = 4;
const DT_REG = 8;
/** st_blksize: small, for Linux before 6.17 takes it as the unit of st_blocks and of page state. */
const IO_UNIT = 4096;
const ATTRIBUTE_BYTES = 88;
const ENTRY_BYTES = 40 + ATTRIBUTE_BYTES;
const DIRENT_HEAD_BYTES = 24;

const WANTED =
  INIT_FLAG.ASYNC_READ |
  INIT_FLAG.BIG_WRITES |
  INIT_FLAG.DO_READDIRPLUS |
  INIT_FLAG.READDIRPLUS_AUTO |
  INIT_FLAG.ASYNC_DIO |
  INIT_FLAG.PARALLEL_DIROPS |
  INIT_FLAG.MAX_PAGES;

/** struct fuse_attr at `at` (a word index). */
function putAttributes(words: Uint32Array, at: number, a: Attributes): void {
  const seconds = Math.floor(a.modifiedAt);
  const nanoseconds = Math.floor((a.modifiedAt - seconds) * 1e9);
  setNumber64(words, at, a.inode);
  setNumber64(words, at + 2, a.size);
  setNumber64(words, at + 4, a.sectors);
  for (let i = 0; i < 3; i += 1) {
    setNumber64(words, at + 6 + 2 * i, seconds);
    words[at + 12 + i] = nanoseconds;
  }
  words[at + 15] = (a.kind === "directory" ? S_IFDIR : S_IFREG) | a.mode;
  words[at + 16] = a.links;
  words[at + 17] = a.uid;
  words[at + 18] = a.gid;
  words[at + 19] = 0;
  words[at + 20] = IO_UNIT;
  words[at + 21] = 0;
}

/** struct fuse_attr_out. @param timeToLive seconds. */
export function encodeAttributes(words: Uint32Array, a: Attributes, timeToLive: number): number {
  setNumber64(words, 0, timeToLive);
  words[2] = 0;
  words[3] = 0;
  putAttributes(words, 4, a);
  return 16 + ATTRIBUTE_BYTES;
}

/** struct fuse_entry_out. @param timeToLive seconds, for the name and the attributes. */
export function encodeEntry(words: Uint32Array, a: Attributes, timeToLive: number): number {
  setNumber64(words, 0, a.inode);
  setNumber64(words, 2, 0);
  setNumber64(words, 4, timeToLive);
  setNumber64(words, 6, timeToLive);
  words[8] = 0;
  words[9] = 0;
  putAttributes(words, 10, a);
  return ENTRY_BYTES;
}

/** struct fuse_open_out for a file. */
export function encodeOpen(words: Uint32Array, handle: number, keepCache: boolean): number {
  setNumber64(words, 0, handle);
  words[2] = keepCache ? OPEN_FLAG.KEEP_CACHE : 0;
  words[3] = 0;
  return 16;
}

/** struct fuse_open_out for the directory, which never changes. */
export function encodeOpenDirectory(words: Uint32Array): number {
  setNumber64(words, 0, 0);
  words[2] = OPEN_FLAG.KEEP_CACHE | OPEN_FLAG.CACHE_DIR;
  words[3] = 0;
  return 16;
}

/** struct fuse_statfs_out. */
export function encodeStatfs(words: Uint32Array, s: StatFs): number {
  words.fill(0, 0, 20);
  setNumber64(words, 0, s.blocks);
  setNumber64(words, 2, s.freeBlocks);
  setNumber64(words, 4, s.freeBlocks);
  setNumber64(words, 6, s.files);
  words[10] = s.blockSize;
  words[11] = s.nameLength;
  words[12] = s.blockSize;
  return 80;
}

/** struct fuse_init_out in answer to the INIT request in `request`. */
export function encodeInit(words: Uint32Array, request: Uint32Array): number {
  words.fill(0, 0, 16);
  words[0] = MAJOR;
  words[1] = Math.min(MINOR, request[WORD.INIT_MINOR]!);
  words[2] = request[WORD.INIT_READAHEAD]!;
  words[3] = WANTED & request[WORD.INIT_FLAGS]!;
  words[4] = MAX_BACKGROUND | (CONGESTION_THRESHOLD << 16);
  words[5] = MAX_REQUEST_DATA;
  words[6] = 1;
  words[7] = MAX_PAGES;
  return 64;
}

/** One entry of a listing; `attributes` makes it a fuse_direntplus. */
export interface ListedEntry extends DirectoryEntry {
  readonly attributes?: Attributes;
}

/**
 * As many fuse_dirent (or fuse_direntplus) as fit into `limit` bytes, from entry `first` on; an
 * entry's offset is its index plus one, where the next READDIR begins.
 */
export function encodeDirectory(
  target: Buffer,
  limit: number,
  entries: readonly ListedEntry[],
  first: number,
  timeToLive: number,
): number {
  let used = 0;
  for (let index = first; index < entries.length; index += 1) {
    const entry = entries[index]!;
    const name = Buffer.from(entry.name);
    const plus = entry.attributes === undefined ? 0 : ENTRY_BYTES;
    const length = plus + ((DIRENT_HEAD_BYTES + name.length + 7) & ~7);
    if (used + length > Math.min(limit, target.length)) break;
    target.fill(0, used, used + length);
    const words = new Uint32Array(target.buffer, target.byteOffset + used, length / 4);
    if (entry.attributes !== undefined) encodeEntry(words, entry.attributes, timeToLive);
    const head = plus / 4;
    setNumber64(words, head, entry.inode);
    setNumber64(words, head + 2, index + 1);
    words[head + 4] = name.length;
    words[head + 5] = entry.kind === "directory" ? DT_DIR : DT_REG;
    name.copy(target, used + plus + DIRENT_HEAD_BYTES);
    used += length;
  }
  return used;
}

/** A LOOKUP's name: NUL-terminated bytes behind the header. */
export function decodeName(bytes: Uint8Array, start: number, end: number): string {
  let stop = start;
  while (stop < end && bytes[stop] !== 0) stop += 1;
  // A copy, for TextDecoder and Buffer refuse or mistrust shared memory.
  return Buffer.from(bytes.slice(start, stop)).toString("utf8");
}

/** `unique` of a request, as one number; exact up to 2^53 requests. */
export function uniqueOf(words: Uint32Array): number {
  return number64(words, WORD.UNIQUE);
}
