/**
 * What the store knows of a snapshot besides its blocks: one JSON file a snapshot, replaced by an
 * atomic rename, so a reader of the folder sees the old state or the new one. Time-driven changes
 * (a pending snapshot times out, a completion ends) are not events but are worked out from the
 * record whenever somebody looks, so they happen while the server is down as well.
 */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { Failure } from "../common/failure.js";
import type { SnapshotStatus } from "../ebs/api.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import type { SyntheticSpec } from "./synthetic.js";

export interface Tag {
  readonly Key: string;
  readonly Value: string;
}

/** What StartSnapshot was asked, checked. */
export interface StartParameters {
  readonly volumeSizeGiB: number;
  readonly parentSnapshotId?: SnapshotId;
  readonly description?: string;
  readonly tags: readonly Tag[];
  readonly kmsKeyArn?: string;
  readonly timeoutMinutes: number;
  readonly clientToken?: string;
}

export interface SnapshotRecord {
  readonly snapshotId: SnapshotId;
  readonly parameters: StartParameters;
  /** Hash of the request, to tell a repeated ClientToken from a conflicting one. */
  readonly request: string;
  /** ms since the epoch. */
  readonly startedAt: number;
  readonly synthetic?: SyntheticSpec;
  status: SnapshotStatus;
  /** When the last put or complete was seen, ms since the epoch. */
  activeAt: number;
  /** Set by CompleteSnapshot: when the status turns to completed, ms since the epoch. */
  completesAt?: number;
  changedBlocksCount?: number;
  aggregate?: string;
  /** Removed by its user but kept for the snapshots that inherit its blocks. */
  removed?: boolean;
}

const RECORD_FILE = "snapshot.json";
const STATUSES: readonly unknown[] = ["pending", "completed", "error"] satisfies SnapshotStatus[];

/**
 * The record in a snapshot's folder; undefined where its creation never finished.
 * @throws Failure EIO, naming the file, where it is no record of that snapshot
 */
export function readRecord(folder: string): SnapshotRecord | undefined {
  const path = join(folder, RECORD_FILE);
  try {
    const record = JSON.parse(readFileSync(path, "utf8")) as SnapshotRecord | null;
    const isSound =
      record?.snapshotId === basename(folder) &&
      STATUSES.includes(record.status) &&
      Number.isInteger(record.parameters?.volumeSizeGiB);
    if (isSound) return record;
    throw new Error("it is no record of this snapshot");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    const why = (cause as Error).message;
    throw new Failure("EIO", `${path} cannot be read (${why}): restore it from a backup.`, {
      cause,
    });
  }
}

export function writeRecord(folder: string, record: SnapshotRecord, sync: boolean): void {
  replaceFile(join(folder, RECORD_FILE), JSON.stringify(record, undefined, 1), sync);
}

/** Puts a file in place of another in one step. @param sync wait for the disk. */
export function replaceFile(path: string, text: string, sync: boolean): void {
  writeFileSync(`${path}.new`, text, { mode: 0o600 });
  if (sync) syncPath(`${path}.new`);
  renameSync(`${path}.new`, path);
  if (sync) syncPath(join(path, ".."));
}

/** Makes a file's data, or a folder's names, durable. */
export function syncPath(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
