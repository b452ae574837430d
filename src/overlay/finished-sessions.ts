/**
 * What is left of a session that has become a snapshot: its record, by which whoever missed the
 * moment (a plain umount, a signal, a lost terminal) still learns the snapshot's id. The dirty data is
 * gone. The record is a second name of the session's own session.json, given before the session folder
 * goes, so at every instant one of the two tells what became of the session, and a full disk is no
 * hindrance. Only the newest are kept.
 */
import * as fs from "node:fs";
import { basename, join } from "node:path";
import { makeFolder } from "../common/make-folder.js";
import { sessionFiles } from "./disk-file.js";
import { loadRecord, RECORD_FILE, type SessionRecord } from "./session-record.js";

/** Records that are kept, the newest; their names sort by the time the session began. */
const KEPT = 200;

function finishedFolder(stateDir: string): string {
  return join(stateDir, "finished");
}

function fileOf(folder: string, id: string): string {
  return join(folder, `${id}.json`);
}

/**
 * Keeps the record of the session at `path`, whose state is `committed`. Never throws: the snapshot
 * is made, and a record that cannot be kept must not make that a failure.
 * @returns whether it is kept
 */
export function keepFinished(stateDir: string, path: string): boolean {
  const folder = finishedFolder(stateDir);
  try {
    makeFolder(folder, 0o700);
    for (const name of fs
      .readdirSync(folder)
      .sort()
      .slice(0, -(KEPT - 1))) {
      fs.rmSync(join(folder, name), { force: true });
    }
    const kept = fileOf(folder, basename(path));
    fs.rmSync(kept, { force: true });
    try {
      fs.linkSync(join(path, RECORD_FILE), kept);
    } catch {
      // A file system without hard links.
      fs.copyFileSync(join(path, RECORD_FILE), kept);
    }
    return true;
  } catch {
    return false;
  }
}

/** The records that are kept, oldest first; what cannot be read is passed over. */
export function listFinished(stateDir: string): SessionRecord[] {
  const folder = finishedFolder(stateDir);
  if (!fs.existsSync(folder)) return [];
  const ids = fs.readdirSync(folder).map((name) => basename(name, ".json"));
  return ids.sort().flatMap((id) => findFinished(stateDir, id) ?? []);
}

/** The record of one session, if it has become a snapshot (or had nothing to become one). */
export function findFinished(stateDir: string, id: string): SessionRecord | undefined {
  try {
    return loadRecord(sessionFiles(finishedFolder(stateDir)), id, `${basename(id)}.json`);
  } catch {
    return undefined;
  }
}
