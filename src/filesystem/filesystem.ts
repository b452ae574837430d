/**
 * A file system as a driver sees it: inode numbers, handles and errno, nothing of any protocol.
 * Both drivers (the kernel's FUSE protocol and libfuse) turn their requests into these calls; what
 * is thrown becomes the errno of common/failure.ts. There is one directory (ROOT_INODE) and a fixed
 * set of files in it, so lookups, attributes and listings are synchronous; only data waits.
 */
import type { View } from "../device/block-device.js";

export const ROOT_INODE = 1;

export interface Attributes {
  readonly inode: number;
  readonly kind: "directory" | "file";
  /** Permission bits only, e.g. 0o400. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes. */
  readonly size: number;
  /** Allocated units of 512 bytes, st_blocks. */
  readonly sectors: number;
  readonly links: number;
  /** Seconds since the epoch. */
  readonly modifiedAt: number;
}

export interface DirectoryEntry {
  readonly name: string;
  readonly inode: number;
  readonly kind: "directory" | "file";
}

export interface StatFs {
  readonly blockSize: number;
  readonly blocks: number;
  readonly freeBlocks: number;
  readonly files: number;
  readonly nameLength: number;
}

export interface OpenFile {
  readonly handle: number;
  /** The page cache of an earlier open is still true. */
  readonly keepCache: boolean;
}

/** Changes asked by setattr; absent means as it is. */
export interface AttributeChanges {
  readonly size?: number;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Seconds since the epoch. */
  readonly modifiedAt?: number;
}

export type Whence = "data" | "hole";

export interface FileSystem {
  /** Seconds for which the kernel may keep names and attributes; may grow, so ask each time. */
  readonly timeToLive: number;
  readonly readOnly: boolean;
  /** @throws Failure ENOENT */
  lookup(parent: number, name: string): Attributes;
  attributes(inode: number): Attributes;
  setAttributes(inode: number, changes: AttributeChanges): Promise<Attributes>;
  list(inode: number): readonly DirectoryEntry[];
  statfs(): StatFs;
  /** @param writable the open asks for writing; @param sync O_SYNC or O_DSYNC: each write is durable. */
  open(inode: number, writable: boolean, sync: boolean): OpenFile;
  /**
   * Fewer bytes than `length` only at the end of the file. A driver whose caller gave up (a signal)
   * answers EINTR itself, and releases the view if it comes all the same.
   * @param signal nobody waits any more: what is fetched for this read alone is stopped.
   */
  read(handle: number, offset: number, length: number, signal?: AbortSignal): Promise<View>;
  /**
   * Writes all of `data`, which must not change until it settles, or throws.
   * @throws Failure EBADF where the handle is not open for writing, EROFS, ENOSPC, EFBIG past the end.
   */
  write(handle: number, offset: number, data: Uint8Array): Promise<void>;
  /** Writes zeros (FALLOC_FL_ZERO_RANGE). Throws as write. */
  zero(handle: number, offset: number, length: number): Promise<void>;
  /**
   * Makes the range read as zeros that are not needed (FALLOC_FL_PUNCH_HOLE); what is past the end of
   * the file is left out. Throws as write.
   * @throws Failure EOPNOTSUPP where the device takes no discards.
   */
  discard(handle: number, offset: number, length: number): Promise<void>;
  /** Resolves when what was written is durable on the local disk (fsync, fdatasync). */
  flush(handle: number): Promise<void>;
  /** As flush, for each close(2); costs nothing for a handle that was not opened for writing. */
  flushOnClose(handle: number): Promise<void>;
  /** lseek with SEEK_DATA or SEEK_HOLE. @throws Failure ENXIO at or past the end, or no data after. */
  seek(handle: number, offset: number, whence: Whence): Promise<number>;
  release(handle: number): void;
}
