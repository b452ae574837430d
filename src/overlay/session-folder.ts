/**
 * The folders of sessions on disk: where they are, the lock of each, and how one is removed. The lock is
 * a flock on a file in the folder, which dies with the process that holds it, so two processes never
 * use one session and a crash leaves none locked.
 */
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { join } from "node:path";
import { Failure } from "../common/failure.js";
import { tryLock } from "../common/posix.js";
import { diskFailure } from "./disk-file.js";
import { findFinished } from "./finished-sessions.js";

const LOCK = "lock";
/** A session is made within moments: one half made for so long, ms, will not be finished. */
const LEFT_AFTER_MS = 3600_000;

export function sessionsFolder(stateDir: string): string {
  return join(stateDir, "sessions");
}

/** @throws Failure EINVAL where the text is no session id or it has ended, ENOENT where there is none */
export function sessionPath(stateDir: string, id: string): string {
  if (!/^\d{8}-\d{6}-[0-9a-f]{6}$/.test(id)) {
    throw new Failure("EINVAL", `"${id}" is not a session: ebsmount sessions lists them.`);
  }
  const path = join(sessionsFolder(stateDir), id);
  if (fs.existsSync(path)) return path;
  const finished = findFinished(stateDir, id);
  if (finished !== undefined) {
    const { resultSnapshotId } = finished;
    const became = resultSnapshotId === undefined ? "without a change" : `as ${resultSnapshotId}`;
    throw new Failure("EINVAL", `Session ${id} has ended, ${became}: there is nothing left of it.`);
  }
  throw new Failure("ENOENT", `There is no session ${id} here: ebsmount sessions lists them.`);
}

/** @returns the descriptor that holds the lock, or undefined where another process does */
export function lockFolder(path: string): number | undefined {
  let fd: number;
  try {
    fd = fs.openSync(join(path, LOCK), fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
  } catch (error) {
    throw diskFailure("open", join(path, LOCK), error);
  }
  try {
    if (tryLock(fd)) return fd;
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
  fs.closeSync(fd);
  return undefined;
}

/**
 * Under another name first, so that a removal that is cut off leaves no half session. The session is
 * gone when this returns; giving its gigabytes back to the disk goes on beside, and what fails of it is
 * left to removeLeftovers.
 */
export function removeFolder(path: string): void {
  const gone = join(path, "..", `.gone-${randomBytes(6).toString("hex")}`);
  try {
    fs.renameSync(path, gone);
  } catch (error) {
    throw diskFailure("remove", path, error);
  }
  fs.promises.rm(gone, { recursive: true, force: true }).catch(() => {});
}

/** What removals, and makings long ago, that were cut off have left. */
export function removeLeftovers(folder: string): void {
  // By the file system's clock, which need not be this machine's: that of the last entry made or removed.
  const now = fs.statSync(folder).mtimeMs;
  for (const name of fs.readdirSync(folder)) {
    const path = join(folder, name);
    const isOld = () => now - fs.statSync(path).mtimeMs > LEFT_AFTER_MS;
    try {
      if (!name.startsWith(".gone-") && !(name.startsWith(".new-") && isOld())) continue;
      fs.rmSync(path, { recursive: true, force: true });
    } catch {
      // In use by something, or another process was faster: next time.
    }
  }
}
