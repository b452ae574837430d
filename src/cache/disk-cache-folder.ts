/**
 * The folder of the disk cache. It holds the contents of disks in the clear, so it must be a folder
 * of this user that nobody else can enter; anything else is refused before a byte is written or
 * believed. Two files of a fixed size limit hold the blocks (disk-cache-store.ts); beside them one empty
 * file a snapshot says which snapshots were mounted last, as candidates for lineage.
 */
import {
  closeSync,
  constants,
  fstatSync,
  futimesSync,
  lstatSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { Failure } from "../common/failure.js";
import { makeFolder } from "../common/make-folder.js";
import { parseSnapshotId, type SnapshotId } from "../ebs/snapshot-id.js";

/** Snapshots remembered, of all accounts together. */
const REMEMBERED = 64;
const RECENT = "ebsmount-recent-v1";
const RECENT_NAME = /^([0-9a-f]{16})\.(snap-[0-9a-f]{1,59})$/;

/** What a folder that cannot be used at all is worth: a mount without a disk cache, and a log line. */
export class NoCacheFolder extends Error {}

/**
 * Makes the folder where it is missing (mode 0700).
 * @returns its absolute path.
 * @throws Failure EACCES where it may not be made, belongs to somebody else or can be entered by others, ENOTDIR;
 * NoCacheFolder where the disk does not let it be made.
 */
export function openCacheFolder(chosen: string): string {
  const path = resolve(chosen);
  try {
    makeFolder(path, 0o700);
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "EEXIST" || code === "ENOTDIR") throw notAFolder(path);
    if (code === "EACCES") {
      throw new Failure(
        "EACCES",
        `The cache folder ${path} cannot be made (${message}); choose another with --cache-dir.`,
        { cause },
      );
    }
    throw new NoCacheFolder(`it cannot be made (${message})`, { cause });
  }
  let found: ReturnType<typeof statSync>;
  try {
    found = statSync(path);
  } catch (cause) {
    throw new NoCacheFolder(`it cannot be looked at (${(cause as Error).message})`, { cause });
  }
  if (!found.isDirectory()) throw notAFolder(path);
  if (found.uid !== process.getuid?.()) {
    throw new Failure(
      "EACCES",
      `The cache folder ${path} belongs to another user, who could read and alter what is kept there; choose one of your own with --cache-dir.`,
    );
  }
  if ((found.mode & 0o077) !== 0) {
    throw new Failure(
      "EACCES",
      `The cache folder ${path} is open to others; close it with \`chmod 700 ${path}\`, or choose another with --cache-dir.`,
    );
  }
  return path;
}

/**
 * Notes that a snapshot is mounted, and tells which others were lately, latest first. Does what the
 * folder allows and never throws.
 * @param namespace 16 hexadecimal digits; snapshots of other namespaces are not told.
 */
export function rememberSnapshot(
  folder: string,
  namespace: string,
  snapshotId: SnapshotId,
  most: number,
): SnapshotId[] {
  const path = join(folder, RECENT);
  const own = `${namespace}.${snapshotId}`;
  try {
    makeFolder(path, 0o700);
    if (lstatSync(path).isDirectory()) touch(join(path, own));
  } catch {
    // A folder that takes nothing may still have something.
  }
  try {
    if (!lstatSync(path).isDirectory()) return [];
    const all = readdirSync(path)
      .filter((name) => RECENT_NAME.test(name))
      .map((name) => ({ name, usedAt: usedAt(join(path, name)) }))
      .sort((a, b) => b.usedAt - a.usedAt);
    for (const { name } of all.splice(REMEMBERED)) rmSync(join(path, name), { force: true });
    return all
      .filter(({ name }) => name !== own && name.startsWith(`${namespace}.`))
      .slice(0, most)
      .map(({ name }) => parseSnapshotId(name.slice(namespace.length + 1)));
  } catch {
    return [];
  }
}

/** Makes an empty file, or makes it look new; what else may stand there is left as it is. */
function touch(path: string): void {
  const { O_WRONLY, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  const fd = openSync(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
  try {
    if (fstatSync(fd).isFile()) futimesSync(fd, new Date(), new Date());
  } finally {
    closeSync(fd);
  }
}

function usedAt(path: string): number {
  return lstatSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function notAFolder(path: string): Failure {
  return new Failure("ENOTDIR", `${path} is not a folder; choose one with --cache-dir.`);
}
