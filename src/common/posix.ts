/**
 * What this program does with files that Node has no words for: finding a file's data (lseek), zeroing
 * and giving disk space back (fallocate) and memory (posix_fadvise), locks that die with their holder (flock), and
 * descriptors that children do not get (fcntl).
 */
import { Failure } from "./failure.js";
import { loadKoffi, loadLibc } from "./libc.js";

interface Fallocate {
  (fd: number, mode: number, offset: number, length: number): number;
  /** In a thread of koffi's; `done` takes the result. */
  async(
    fd: number,
    mode: number,
    offset: number,
    length: number,
    done: (error: Error | null, result: number) => void,
  ): void;
}

interface Libc {
  lseek(fd: number, offset: number, whence: number): number;
  readonly fallocate: Fallocate;
  flock(fd: number, operation: number): number;
  fcntl(fd: number, command: number, argument: number): number;
  posix_fadvise(fd: number, offset: number, length: number, advice: number): number;
  errno(): number;
}

let libc: Libc | undefined;

function load(): Libc {
  if (libc !== undefined) return libc;
  const koffi = loadKoffi();
  const library = loadLibc();
  libc = {
    lseek: library.func("int64_t lseek(int fd, int64_t offset, int whence)"),
    fallocate: library.func("int fallocate(int fd, int mode, int64_t offset, int64_t length)"),
    flock: library.func("int flock(int fd, int operation)"),
    fcntl: library.func("int fcntl(int fd, int command, int argument)"),
    posix_fadvise: library.func(
      "int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)",
    ),
    errno: () => koffi.errno(),
  };
  return libc;
}

const SEEK_CUR = 1;
const SEEK_END = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const ENXIO = 6;
const EWOULDBLOCK = 11;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const FALLOC_FL_ZERO_RANGE = 0x10;
const POSIX_FADV_DONTNEED = 4;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

function fail(call: string, errno: number): never {
  throw new Failure("EIO", `${call} failed with errno ${errno}.`);
}

/** Size of an open file or block device, bytes. */
export function sizeOf(fd: number): number {
  const c = load();
  const end = Number(c.lseek(fd, 0, SEEK_END));
  if (end < 0) fail("lseek(SEEK_END)", c.errno());
  return end;
}

/** Where the next read of a descriptor begins, bytes; undefined for what has no place, as a terminal. */
export function positionOf(fd: number): number | undefined {
  const position = Number(load().lseek(fd, 0, SEEK_CUR));
  return position < 0 ? undefined : position;
}

/**
 * The next data extent of an open file at or after `offset`, as [start, end) in bytes; undefined
 * where only a hole follows. A file system or device that cannot tell calls everything data.
 */
export function nextData(fd: number, offset: number, size: number): [number, number] | undefined {
  const c = load();
  if (offset >= size) return undefined;
  const start = Number(c.lseek(fd, offset, SEEK_DATA));
  if (start < 0) return c.errno() === ENXIO ? undefined : [offset, size];
  if (start >= size) return undefined;
  const end = Number(c.lseek(fd, start, SEEK_HOLE));
  return [start, end <= start ? size : Math.min(end, size)];
}

/** Gives a range's disk space back; it reads as zeros after. False where the file system cannot. */
export function punchHole(fd: number, offset: number, length: number): boolean {
  const mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
  return load().fallocate(fd, mode, offset, length) === 0;
}

/**
 * Makes a range written zeros: in a file an extent of zeros, on a block device zeros that stay
 * allocated, written by the kernel where the device cannot (block/fops.c, blkdev_fallocate), which
 * can take a while. False where that cannot be had; the caller then writes the zeros.
 */
export function zeroRange(fd: number, offset: number, length: number): Promise<boolean> {
  const mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_ZERO_RANGE;
  return new Promise((resolve, reject) => {
    load().fallocate.async(fd, mode, offset, length, (error, result) => {
      if (error) reject(error);
      else resolve(result === 0);
    });
  });
}

/** Lets the page cache go of a range that is on the disk and will not be read soon. Best effort. */
export function dropCached(fd: number, offset: number, length: number): void {
  load().posix_fadvise(fd, offset, length, POSIX_FADV_DONTNEED);
}

/** Takes the exclusive lock of an open file, which dies with its holder; false where it is held. */
export function tryLock(fd: number): boolean {
  const c = load();
  if (c.flock(fd, LOCK_EX | LOCK_NB) === 0) return true;
  const errno = c.errno();
  return errno === EWOULDBLOCK ? false : fail("flock", errno);
}

/** Keeps a descriptor from the programs that this process starts. */
export function closeOnExec(fd: number): void {
  const c = load();
  if (c.fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) fail("fcntl(F_SETFD)", c.errno());
}
