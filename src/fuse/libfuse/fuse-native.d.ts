/**
 * What is used of fuse-native 2.2.6, which brings no types. Every operation answers through a
 * callback whose first argument is 0, a negative errno or, for read and write, a count of bytes.
 * Source: fuse-native's README and index.js.
 */
declare module "fuse-native" {
  type Answer = (result: number) => void;

  export interface NativeStat {
    mode: number;
    uid: number;
    gid: number;
    size: number;
    nlink: number;
    ino: number;
    blksize: number;
    blocks: number;
    /** ms since the epoch */
    atime: number;
    mtime: number;
    ctime: number;
  }

  export interface NativeStatFs {
    bsize: number;
    frsize: number;
    blocks: number;
    bfree: number;
    bavail: number;
    files: number;
    ffree: number;
    namemax: number;
  }

  export interface NativeOperations {
    getattr(path: string, answer: (errno: number, stat?: NativeStat) => void): void;
    readdir(path: string, answer: (errno: number, names?: string[]) => void): void;
    statfs(path: string, answer: (errno: number, stat?: NativeStatFs) => void): void;
    open(path: string, flags: number, answer: (errno: number, fd?: number) => void): void;
    read(
      path: string,
      fd: number,
      target: Buffer,
      length: number,
      offset: number,
      answer: Answer,
    ): void;
    write(
      path: string,
      fd: number,
      source: Buffer,
      length: number,
      offset: number,
      answer: Answer,
    ): void;
    flush(path: string, fd: number, answer: Answer): void;
    fsync(path: string, dataOnly: number, fd: number, answer: Answer): void;
    release(path: string, fd: number, answer: Answer): void;
    truncate(path: string, size: number, answer: Answer): void;
    ftruncate(path: string, fd: number, size: number, answer: Answer): void;
    chmod(path: string, mode: number, answer: Answer): void;
    chown(path: string, uid: number, gid: number, answer: Answer): void;
    utimens(path: string, accessed: number, modified: number, answer: Answer): void;
  }

  export default class Fuse {
    static unmount(mountPoint: string, done: (error: Error | null) => void): void;
    constructor(mountPoint: string, operations: NativeOperations, options: { timeout: false });
    mount(done: (error?: Error | null) => void): void;
    unmount(done: (error?: Error | null) => void): void;
    _fuseOptions(): string;
  }
}
