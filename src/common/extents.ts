/**
 * Which parts of a file were ever written, as its file system knows (FS_IOC_FIEMAP, Linux
 * Documentation/filesystems/fiemap.rst). lseek's SEEK_DATA does not tell: it calls an unwritten extent
 * a hole, and that is what zeroing makes (FALLOC_FL_ZERO_RANGE, as of mkfs.xfs for its log). Here every
 * extent counts as written, whatever its flags say: allocated and unwritten, still in the page cache
 * (DELALLOC), at a place that the file system does not name (UNKNOWN). The kernel is asked for a bounded
 * number of extents at a time, and first has to bring to the disk what is only in memory
 * (FIEMAP_FLAG_SYNC). Where a call fails, the rest counts as written: that costs puts, no zeros.
 */
import { loadLibc } from "./libc.js";

/** _IOWR('f', 11, struct fiemap). Source: include/uapi/linux/fs.h. */
const FS_IOC_FIEMAP = 0xc020_660b;
const FIEMAP_FLAG_SYNC = 1;
const FIEMAP_EXTENT_LAST = 1;
/** struct fiemap and struct fiemap_extent. Source: include/uapi/linux/fiemap.h. */
const HEADER_BYTES = 32;
const EXTENT_BYTES = 56;
const LENGTH_AT = 8;
const FLAGS_AT = 16;
const MAPPED_AT = 20;
const ROOM_AT = 24;
const EXTENT_LENGTH_AT = 16;
const EXTENT_FLAGS_AT = 40;
const MAX_EXTENTS_PER_CALL = 512;

/** Fills in a struct fiemap with its extents behind it. @returns whether the call succeeded. */
export type Fiemap = (request: Buffer) => boolean;

/** @returns undefined where the kernel cannot say what of this file was written. */
export function openFiemap(fd: number): Fiemap | undefined {
  const ioctl = loadLibc().func("int ioctl(int fd, unsigned long request, void *argument)");
  const fiemap: Fiemap = (request) => ioctl(fd, FS_IOC_FIEMAP, request) === 0;
  return fiemap(requestFor(0, 1, 1)) ? fiemap : undefined;
}

function requestFor(start: number, end: number, room: number): Buffer {
  const request = Buffer.alloc(HEADER_BYTES + room * EXTENT_BYTES);
  request.writeBigUInt64LE(BigInt(start), 0);
  request.writeBigUInt64LE(BigInt(end - start), LENGTH_AT);
  request.writeUInt32LE(FIEMAP_FLAG_SYNC, FLAGS_AT);
  request.writeUInt32LE(room, ROOM_AT);
  return request;
}

/**
 * The written parts of [0, size), ascending and without overlap, as [start, end) in bytes.
 * @param room extents asked for at a time (tests choose a small number).
 */
export function* writtenRanges(
  fiemap: Fiemap,
  size: number,
  room = MAX_EXTENTS_PER_CALL,
): Generator<[number, number]> {
  let at = 0;
  while (at < size) {
    const asked = at;
    const request = requestFor(at, size, room);
    if (!fiemap(request)) {
      yield [at, size];
      return;
    }
    const mapped = Math.min(room, request.readUInt32LE(MAPPED_AT));
    if (mapped === 0) return;
    for (let i = 0; i < mapped; i += 1) {
      const extent = HEADER_BYTES + i * EXTENT_BYTES;
      const logical = Number(request.readBigUInt64LE(extent));
      const length = Number(request.readBigUInt64LE(extent + EXTENT_LENGTH_AT));
      const start = Math.max(at, logical);
      const end = Math.min(size, logical + length);
      if (start < end) yield [start, end];
      at = Math.max(at, end);
      if ((request.readUInt32LE(extent + EXTENT_FLAGS_AT) & FIEMAP_EXTENT_LAST) !== 0) return;
    }
    if (at === asked) {
      // Extents that lead nowhere: nothing that follows can be relied on.
      yield [at, size];
      return;
    }
  }
}
