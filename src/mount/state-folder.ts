/**
 * Where this program keeps what must outlive a process: records of live mounts, their logs, and the
 * mount sessions with data not yet in a snapshot. One folder a user, readable by nobody else, since
 * overlays hold the contents of disks.
 */
import { readdirSync, rmSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { Failure } from "../common/failure.js";
import { makeFolder } from "../common/make-folder.js";

export interface StateFolder {
  readonly path: string;
  /** Records of live mounts. */
  readonly mounts: string;
  readonly logs: string;
}

/**
 * Opens the state folder, made with mode 0700 where it is missing. The first of these that is set:
 * `chosen` (--state-dir or EBSMOUNT_STATE_DIR), $XDG_STATE_HOME/ebsmount, ~/.local/state/ebsmount.
 * Source: XDG Base Directory Specification 0.8.
 * @throws Failure EACCES where it cannot be made, or is not this user's alone to write.
 */
export function openStateFolder(chosen?: string): StateFolder {
  const xdg = process.env.XDG_STATE_HOME;
  const path = resolve(
    chosen ?? join(xdg?.startsWith("/") ? xdg : join(homedir(), ".local/state"), "ebsmount"),
  );
  const folder = { path, mounts: join(path, "mounts"), logs: join(path, "logs") };
  try {
    for (const one of [path, folder.mounts, folder.logs]) makeFolder(one, 0o700);
    for (const one of [folder.mounts, folder.logs]) checkOwner(one, path);
  } catch (cause) {
    if (cause instanceof Failure) throw cause;
    throw new Failure(
      "EACCES",
      `The state folder ${path} cannot be made (${(cause as Error).message}); choose another with --state-dir.`,
      { cause },
    );
  }
  return folder;
}

/** What others put there would be believed. */
function checkOwner(subfolder: string, path: string): void {
  const { uid, mode } = statSync(subfolder);
  if (uid === process.geteuid?.() && (mode & 0o022) === 0) return;
  throw new Failure(
    "EACCES",
    `The state folder ${path} belongs to another user, or others can write to ${subfolder}; choose another with --state-dir, or run as its user.`,
  );
}

/** Logs that are kept, the newest; far more than there are mounts alive at a time. */
const KEPT_LOGS = 200;

/** @returns where a new mount logs. Its name sorts by time, so old logs are known by theirs. */
export function newLogFile(folder: StateFolder): string {
  const old = readdirSync(folder.logs)
    .sort()
    .slice(0, -(KEPT_LOGS - 1));
  for (const name of old) rmSync(join(folder.logs, name), { force: true });
  const stamp = new Date().toISOString().replace(/[:.]/g, "-");
  return join(folder.logs, `${stamp}-${process.pid}.log`);
}
