/**
 * Sessions: folders under `<state-dir>/sessions`, each the writable life of one volume. A folder gets
 * its name only once everything in it is on disk. The lock is a flock on a file in it, which dies with
 * the process that holds it, so two processes never use one session and a crash leaves none locked.
 */
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure } from "../common/failure.js";
import { makeFolder } from "../common/make-folder.js";
import { tryLock } from "../common/posix.js";
import { GIB } from "../common/sizes.js";
import { diskFailure, type SessionFiles, sessionFiles, syncDirectory } from "./disk-file.js";
import { findFinished, keepFinished } from "./finished-sessions.js";
import { JOURNAL } from "./journal.js";
import { RecordLog } from "./record-log.js";
import { Reserve } from "./reserve.js";
import {
  loadRecord,
  type NewSession,
  newRecord,
  type SessionRecord,
  saveRecord,
} from "./session-record.js";

const LOCK = "lock";
/** Listing sessions holds each lock for an instant: how often, and how far apart, we try again. */
const LOCK_TRIES = 8;
const LOCK_PAUSE_MS = 50;
/** A session is made within moments: one half made for so long, ms, will not be finished. */
const LEFT_AFTER_MS = 3600_000;

export function sessionsFolder(stateDir: string): string {
  return join(stateDir, "sessions");
}

/** A session whose lock this process holds. */
export class Session {
  readonly id: string;
  readonly path: string;
  readonly files: SessionFiles;
  readonly reserve: Reserve;
  #record: SessionRecord;
  #lock: number | undefined;
  #saving: Promise<void> = Promise.resolve();

  constructor(
    path: string,
    files: SessionFiles,
    reserve: Reserve,
    record: SessionRecord,
    lock: number,
  ) {
    this.id = record.id;
    this.path = path;
    this.files = files;
    this.reserve = reserve;
    this.#record = record;
    this.#lock = lock;
  }

  get record(): SessionRecord {
    return this.#record;
  }

  /** Bytes. */
  get volumeBytes(): number {
    return this.#record.volumeSizeGiB * GIB;
  }

  /** Changes the record; resolves when that is durable. One at a time, in the order of the calls. */
  update(changes: Partial<SessionRecord>): Promise<void> {
    const saved = this.#saving
      .catch(() => {})
      .then(async () => {
        const record = { ...this.#record, ...changes, updatedAt: Date.now() };
        await saveRecord(this.files, this.reserve, record);
        this.#record = record;
      });
    this.#saving = saved;
    return saved;
  }

  /** Lets go of the lock; the session stays on disk. Close its device first. */
  async close(): Promise<void> {
    await this.#saving.catch(() => {});
    if (this.#lock === undefined) return;
    this.reserve.close();
    fs.closeSync(this.#lock);
    this.#lock = undefined;
  }

  /** As remove, of a session that is committed: its record is kept among the finished ones. */
  async retire(): Promise<void> {
    await this.#saving.catch(() => {});
    keepFinished(join(this.path, "..", ".."), this.path);
    await this.remove();
  }

  /** Throws the session away, dirty data and all, and lets go of it. Close its device first. */
  async remove(): Promise<void> {
    await this.#saving.catch(() => {});
    removeFolder(this.path);
    await this.close();
  }
}

/** Makes a session, durably, and takes its lock. @throws Failure EINVAL, ENOSPC, EACCES, EIO */
export async function createSession(stateDir: string, options: NewSession): Promise<Session> {
  const folder = sessionsFolder(stateDir);
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, "").replace("T", "-");
  const id = `${stamp}-${randomBytes(3).toString("hex")}`;
  const record = newRecord(id, options);
  const made = join(folder, `.new-${id}`);
  try {
    makeFolder(folder, 0o700);
    fs.mkdirSync(made, { mode: 0o700 });
  } catch (error) {
    throw diskFailure("make", made, error);
  }
  removeLeftovers(folder);
  let lock: number | undefined;
  let reserve: Reserve | undefined;
  try {
    lock = lockFolder(made);
    if (lock === undefined) throw new Failure("EBUSY", `Session ${id} is in use.`);
    let files = sessionFiles(made);
    const journal = RecordLog.create(files, JOURNAL);
    await journal.sync().finally(() => journal.close());
    reserve = new Reserve(files);
    await saveRecord(files, reserve, record);
    const path = join(folder, id);
    fs.renameSync(made, path);
    await syncDirectory(folder);
    files = sessionFiles(path);
    return new Session(path, files, reserve, record, lock);
  } catch (error) {
    reserve?.close();
    if (lock !== undefined) fs.closeSync(lock);
    fs.rmSync(made, { recursive: true, force: true });
    throw error instanceof Failure ? error : diskFailure("make", made, error);
  }
}

/**
 * Takes a session's lock and reads its record.
 * @param forWriting the session is to be mounted: refused once its snapshot is being completed
 * @throws Failure ENOENT, EBUSY where another process uses it, EIO where it is damaged
 */
export async function openSession(
  stateDir: string,
  id: string,
  forWriting = false,
): Promise<Session> {
  const path = sessionPath(stateDir, id);
  let lock = lockFolder(path);
  for (let tries = 1; lock === undefined && tries < LOCK_TRIES; tries++) {
    await sleep(LOCK_PAUSE_MS);
    lock = lockFolder(path);
  }
  if (lock === undefined) {
    throw new Failure(
      "EBUSY",
      `Session ${id} is in use by another process: unmount it there first.`,
    );
  }
  try {
    const files = sessionFiles(path);
    const record = loadRecord(files, id);
    if (forWriting && !mayGoOn(record)) {
      throw new Failure(
        "EINVAL",
        `The snapshot of session ${id} is already being completed: run ebsmount commit ${id}, then mount the new snapshot.`,
      );
    }
    return new Session(path, files, new Reserve(files), record, lock);
  } catch (error) {
    fs.closeSync(lock);
    throw error;
  }
}

/** Whether a session can be mounted again: not once its snapshot is being completed. */
export function mayGoOn(record: SessionRecord): boolean {
  return record.state !== "committed" && record.upload?.completing !== true;
}

/** Throws a session away. @returns its last record. @throws Failure ENOENT, EBUSY as openSession */
export async function discardSession(
  stateDir: string,
  id: string,
): Promise<SessionRecord | undefined> {
  const path = sessionPath(stateDir, id);
  const lock = lockFolder(path);
  if (lock === undefined) {
    throw new Failure(
      "EBUSY",
      `Session ${id} is in use by another process: unmount it there first.`,
    );
  }
  try {
    let record: SessionRecord | undefined;
    try {
      record = loadRecord(sessionFiles(path), id);
    } catch {
      // A session whose record is damaged can be thrown away as well.
    }
    removeFolder(path);
    return record;
  } finally {
    fs.closeSync(lock);
  }
}

/** @throws Failure EINVAL where the text is no session id or it has ended, ENOENT where there is none */
function sessionPath(stateDir: string, id: string): string {
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

/** Under another name first, so that a removal that is cut off leaves no half session. */
function removeFolder(path: string): void {
  const gone = join(path, "..", `.gone-${randomBytes(6).toString("hex")}`);
  try {
    fs.renameSync(path, gone);
    fs.rmSync(gone, { recursive: true, force: true });
  } catch (error) {
    throw diskFailure("remove", path, error);
  }
}

/** What removals, and makings long ago, that were cut off have left. */
function removeLeftovers(folder: string): void {
  for (const name of fs.readdirSync(folder)) {
    const path = join(folder, name);
    const isOld = () => Date.now() - fs.statSync(path).mtimeMs > LEFT_AFTER_MS;
    if (name.startsWith(".gone-") || (name.startsWith(".new-") && isOld())) {
      fs.rmSync(path, { recursive: true, force: true });
    }
  }
}
