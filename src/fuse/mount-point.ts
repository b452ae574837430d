/**
 * Looks at a mount point before anything is mounted on it, so that each thing people meet there gets
 * its own sentence instead of the mount helper's. The look is asynchronous and has a deadline: a
 * mount point can belong to a dead or hanging file system.
 */
import { constants } from "node:fs";
import { access, realpath, stat } from "node:fs/promises";
import { Failure } from "../common/failure.js";
import { findMount } from "./mount-table.js";

const ANSWER_WITHIN_MS = 10_000;

/**
 * @returns the path without symbolic links, as the mount table will show it.
 * @throws Failure ENOENT, ENOTDIR, EACCES, ENOTCONN (stale), EBUSY (in use), ETIMEDOUT.
 */
export async function checkMountPoint(mountPoint: string): Promise<string> {
  // The table first: a stale or hanging mount shows here without being touched.
  const path = await within(mountPoint, () => resolve(mountPoint));
  const mounted = await findMount(path);
  if (mounted?.type.startsWith("fuse") === true) {
    throw new Failure(
      "EBUSY",
      `${mountPoint} already has a mount of ${mounted.source}; unmount it first (ebsmount unmount ${mountPoint}) or choose another directory.`,
    );
  }
  return path;
}

async function resolve(mountPoint: string): Promise<string> {
  try {
    const path = await realpath(mountPoint);
    if (!(await stat(path)).isDirectory()) {
      throw new Failure("ENOTDIR", `${mountPoint} is not a directory; a mount point must be one.`);
    }
    if (process.getuid?.() !== 0) await access(path, constants.W_OK);
    return path;
  } catch (error) {
    throw explained(mountPoint, error);
  }
}

function explained(mountPoint: string, error: unknown): unknown {
  switch ((error as NodeJS.ErrnoException).code) {
    case "ENOENT":
      return new Failure(
        "ENOENT",
        `${mountPoint} does not exist; create it (mkdir) and try again.`,
      );
    case "ENOTDIR":
      return new Failure("ENOTDIR", `A part of the path ${mountPoint} is not a directory.`);
    case "EACCES":
    case "EPERM":
      return new Failure(
        "EACCES",
        `${mountPoint} is not yours to mount on: an ordinary user needs a directory they can write to.`,
      );
    case "EROFS":
      return new Failure(
        "EROFS",
        `${mountPoint} is on a read-only file system; an ordinary user cannot mount there.`,
      );
    case "ENOTCONN":
      return new Failure(
        "ENOTCONN",
        `${mountPoint} holds a stale mount, left by a process that died; clear it with \`ebsmount unmount ${mountPoint}\` (or "fusermount3 -u -z", or as root "umount -l") and try again.`,
      );
    default:
      if (error instanceof Failure) return error;
      return new Failure(
        "EIO",
        `${mountPoint} cannot be mounted on (${(error as Error).message}); choose another directory.`,
        { cause: error },
      );
  }
}

async function within<T>(mountPoint: string, work: () => Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(
        new Failure(
          "ETIMEDOUT",
          `${mountPoint} does not answer: something hangs that is mounted there; unmount it (umount -l ${mountPoint}) or choose another directory.`,
        ),
      );
    }, ANSWER_WITHIN_MS);
  });
  try {
    return await Promise.race([work(), late]);
  } finally {
    clearTimeout(timer);
  }
}
