/**
 * Sessions: folders under `<state-dir>/sessions`, each the writable life of one volume. A folder gets
 * its name only once everything in it is on disk.
 */
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure } from "../common/failure.js";
import { makeFolder } from "../common/make-folder.js";
import { GIB } from "../common/sizes.js";
import { diskFailure, type SessionFiles, sessionFiles, syncDirectory } from "./disk-file.js";
import { keepFinished } from "./finished-sessions.js";
import { JOURNAL } from "./journal.js";
import { RecordLog } from "./record-log.js";
import { Reserve } from "./reserve.js";
import {
  lockFolder,
  removeFolder,
  removeLeftovers,
  sessionPath,
  sessionsFolder,
} from "./session-folder.js";
import {
  loadRecord,
  type NewSession,
  newRecord,
  SCHEMA,
  type SessionRecord,
  saveRecord,
} from "./session-record.js";

/** Listing sessions holds each lock for an instant: how often, and how far apart, we try again. */
const LOCK_TRIES = 8;
const LOCK_PAUSE_MS = 50;
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
    const session = new Session(path, files, new Reserve(files), record, lock);
    if (record.schema !== SCHEMA) await session.update({ schema: SCHEMA });
    return session;
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
