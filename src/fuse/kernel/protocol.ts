/**
 * The numbers of the kernel's FUSE protocol, as in <linux/fuse.h> (version 7.38; the names there
 * carry FUSE_ in front). Everything is little-endian 32-bit words here: a 64-bit field is two of
 * them, low word first, so that no BigInt is needed. `WORD` gives each field's place in a request as
 * the index of its (low) word, counted from the start of the request.
 */

export const MAJOR = 7;
/** The version answered; all structures used here have this shape since 7.23. */
export const MINOR = 38;
/** Below it the kernel has no FUSE_MAX_PAGES and no 1 MiB requests (Linux 4.20). */
export const OLDEST_MINOR = 28;
export const OUT_HEADER_BYTES = 16;
/** fuse_in_header and fuse_write_in: where the data of a WRITE begins. */
export const WRITE_DATA_AT = 80;
/** Largest read and write, bytes, and as pages (max_pages). */
export const MAX_REQUEST_DATA = 1024 * 1024;
export const MAX_PAGES = 256;
/** Room for the largest request: the data of a WRITE behind a page for its headers. */
export const REQUEST_BUFFER_BYTES = MAX_REQUEST_DATA + 4096;

export const OPCODE = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  CREATE: 35,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  TMPFILE: 51,
} as const;

/** Capabilities asked for in INIT; only those that the kernel offers are answered. */
export const INIT_FLAG = {
  ASYNC_READ: 1 << 0,
  BIG_WRITES: 1 << 5,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  PARALLEL_DIROPS: 1 << 18,
  MAX_PAGES: 1 << 22,
} as const;

export const OPEN_FLAG = {
  KEEP_CACHE: 1 << 1,
  CACHE_DIR: 1 << 3,
} as const;

/** fuse_setattr_in.valid */
export const SET_ATTRIBUTE = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  MTIME: 1 << 5,
  MTIME_NOW: 1 << 8,
} as const;

/** fuse_in_header, then each request's own structure from word 10 on. */
export const WORD = {
  LENGTH: 0,
  OPCODE: 1,
  UNIQUE: 2,
  NODE: 4,
  BODY: 10,
  /** READ, WRITE, FLUSH, FSYNC, RELEASE, LSEEK, FALLOCATE, READDIR: the file handle. */
  HANDLE: 10,
  /** READ, WRITE, LSEEK, FALLOCATE, READDIR. */
  OFFSET: 12,
  /** READ, WRITE, READDIR: bytes. */
  SIZE: 14,
  OPEN_FLAGS: 10,
  LSEEK_WHENCE: 14,
  FALLOCATE_LENGTH: 14,
  FALLOCATE_MODE: 16,
  INTERRUPT_UNIQUE: 10,
  INIT_MAJOR: 10,
  INIT_MINOR: 11,
  INIT_READAHEAD: 12,
  INIT_FLAGS: 13,
  SETATTR_VALID: 10,
  SETATTR_SIZE: 14,
  SETATTR_MTIME: 20,
  SETATTR_MODE: 27,
  SETATTR_UID: 29,
  SETATTR_GID: 30,
} as const;

const TWO_TO_32 = 4_294_967_296;

/** The 64-bit field at a word, exact up to 2^53. */
export function number64(words: Uint32Array, index: number): number {
  return words[index]! + words[index + 1]! * TWO_TO_32;
}

export function setNumber64(words: Uint32Array, index: number, value: number): void {
  words[index] = value % TWO_TO_32;
  words[index + 1] = value / TWO_TO_32;
}
