/**
 * What sessions there are, without taking part in them: records are read, journals replayed into a
 * map that is thrown away, and the lock is only tried. A session that another process is writing to
 * may change while it is looked at; what cannot be told then is left out.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { Failure } from "../common/failure.js";
import { GIB, SECTOR_SIZE } from "../common/sizes.js";
import { DirtyMap } from "./dirty-map.js";
import { sessionFiles } from "./disk-file.js";
import { JOURNAL } from "./journal.js";
import { applyRecord } from "./map-codec.js";
import { replay } from "./record-log.js";
import { NO_MASKS } from "./sector-masks.js";
import { lockFolder, sessionsFolder } from "./session-folder.js";
import { loadRecord, type SessionRecord } from "./session-record.js";

export interface ListedSession {
  readonly id: string;
  readonly path: string;
  /** Absent where it cannot be read; `problem` says why. */
  readonly record?: SessionRecord;
  /** Another process holds it. */
  readonly inUse: boolean;
  /** Bytes of flushed dirty data; absent where that could not be told. */
  readonly dirtyBytes?: number;
  /** One sentence, where something is wrong with it. */
  readonly problem?: string;
}

/** The sessions of a state folder, oldest first. @throws Failure EIO */
export function listSessions(stateDir: string): ListedSession[] {
  const folder = sessionsFolder(stateDir);
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder)
    .filter((name) => !name.startsWith("."))
    .sort()
    .map((id) => listed(join(folder, id), id));
}

function listed(path: string, id: string): ListedSession {
  const inUse = isInUse(path);
  try {
    const record = loadRecord(sessionFiles(path), id);
    try {
      return { id, path, record, inUse, dirtyBytes: dirtyBytes(path, record) };
    } catch (error) {
      // Beside a process that appends, half a record can look like damage.
      return inUse ? { id, path, record, inUse } : { id, path, record, inUse, problem: why(error) };
    }
  } catch (error) {
    return { id, path, inUse, problem: why(error) };
  }
}

function why(error: unknown): string {
  if (error instanceof Failure) return error.message;
  return error instanceof Error ? error.message : String(error);
}

function isInUse(path: string): boolean {
  try {
    const lock = lockFolder(path);
    if (lock !== undefined) fs.closeSync(lock);
    return lock === undefined;
  } catch {
    return false;
  }
}

function dirtyBytes(path: string, record: SessionRecord): number {
  const files = sessionFiles(path);
  if (!files.exists(JOURNAL)) return 0;
  const file = files.open(JOURNAL);
  try {
    const map = new DirtyMap(NO_MASKS);
    const sectors = (record.volumeSizeGiB * GIB) / SECTOR_SIZE;
    replay(file, JOURNAL, (payload) => applyRecord(map, payload, sectors));
    return map.dataSectors * SECTOR_SIZE;
  } finally {
    file.close();
  }
}
