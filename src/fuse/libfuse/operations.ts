/**
 * The FileSystem in fuse-native's words: paths instead of inodes, callbacks with negative errno
 * instead of promises, and data copied into the buffers libfuse owns. LSEEK, FALLOCATE and INTERRUPT
 * do not exist in this protocol version, so holes cannot be asked for and a waiting read cannot be
 * given up.
 */
import type { NativeOperations, NativeStat } from "fuse-native";
import { ERRNO } from "../../common/failure.js";
import {
  type AttributeChanges,
  type Attributes,
  type FileSystem,
  ROOT_INODE,
} from "../../filesystem/filesystem.js";

import type { AnswerLog } from "../answer-log.js";

const S_IFDIR = 0o040_000;
const S_IFREG = 0o100_000;
const O_ACCMODE = 3;
const O_DSYNC = 0o10_000;
const IO_UNIT = 4096;
/** statfs counts in 32 bits here: the unit grows until the count fits. */
const MAX_COUNT = 0xffff_ffff;

export function nativeOperations(files: FileSystem, log: AnswerLog): NativeOperations {
  const at = (path: string): Attributes =>
    path === "/" ? files.attributes(ROOT_INODE) : files.lookup(ROOT_INODE, path.slice(1));
  /** Answers with what `work` gives, synchronously thrown errors included. */
  const settle = <T>(
    work: () => T | Promise<T>,
    done: (value: T) => void,
    failed: (errno: number) => void,
  ): void => {
    Promise.resolve()
      .then(work)
      .then(done, (error: unknown) => failed(-ERRNO[log.errno(error)]));
  };
  const change = (path: string, changes: AttributeChanges, answer: (errno: number) => void) =>
    settle(
      () => files.setAttributes(at(path).inode, changes),
      () => answer(0),
      answer,
    );

  return {
    getattr: (path, answer) =>
      settle(
        () => nativeStat(at(path)),
        (stat) => answer(0, stat),
        answer,
      ),
    readdir: (path, answer) =>
      settle(
        () => [".", "..", ...files.list(at(path).inode).map((entry) => entry.name)],
        (names) => answer(0, names),
        answer,
      ),
    statfs: (_path, answer) => answer(0, nativeStatFs(files)),
    open: (path, flags, answer) =>
      settle(
        () => files.open(at(path).inode, (flags & O_ACCMODE) !== 0, (flags & O_DSYNC) !== 0),
        (opened) => answer(0, opened.handle),
        answer,
      ),
    read: (_path, handle, target, length, offset, answer) =>
      settle(
        () => files.read(handle, offset, length),
        (view) => {
          let copied = 0;
          for (const part of view.parts) {
            target.set(part, copied);
            copied += part.byteLength;
          }
          view.release();
          answer(copied);
        },
        answer,
      ),
    write: (_path, handle, source, length, offset, answer) =>
      settle(
        () => files.write(handle, offset, source.subarray(0, length)),
        () => answer(length),
        answer,
      ),
    flush: (_path, handle, answer) =>
      settle(
        () => files.flushOnClose(handle),
        () => answer(0),
        answer,
      ),
    fsync: (_path, _dataOnly, handle, answer) =>
      settle(
        () => files.flush(handle),
        () => answer(0),
        answer,
      ),
    release: (_path, handle, answer) => {
      files.release(handle);
      answer(0);
    },
    truncate: (path, size, answer) => change(path, { size }, answer),
    ftruncate: (path, _handle, size, answer) => change(path, { size }, answer),
    chmod: (path, mode, answer) => change(path, { mode: mode & 0o7777 }, answer),
    chown: (path, uid, gid, answer) => {
      const kept = 0xffff_ffff;
      change(path, { ...(uid !== kept && { uid }), ...(gid !== kept && { gid }) }, answer);
    },
    // fuse-native hands over the access time in place of the modification time: neither is kept.
    utimens: (path, _accessed, _modified, answer) => change(path, {}, answer),
  };
}

function nativeStat(a: Attributes): NativeStat {
  const time = Math.floor(a.modifiedAt * 1000);
  return {
    mode: (a.kind === "directory" ? S_IFDIR : S_IFREG) | a.mode,
    uid: a.uid,
    gid: a.gid,
    size: a.size,
    nlink: a.links,
    ino: a.inode,
    blksize: IO_UNIT,
    blocks: a.sectors,
    atime: time,
    mtime: time,
    ctime: time,
  };
}

function nativeStatFs(files: FileSystem) {
  const s = files.statfs();
  let unit = 1;
  while (s.blocks / unit > MAX_COUNT) unit *= 2;
  return {
    bsize: s.blockSize * unit,
    frsize: s.blockSize * unit,
    blocks: Math.floor(s.blocks / unit),
    bfree: Math.floor(s.freeBlocks / unit),
    bavail: Math.floor(s.freeBlocks / unit),
    files: s.files,
    ffree: 0,
    namemax: s.nameLength,
  };
}
