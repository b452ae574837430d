/**
 * What the store knows of a snapshot besides its blocks: one JSON file a snapshot, replaced by an
 * atomic rename, so a reader of the folder sees the old state or the new one. Time-driven changes
 * (a pending snapshot times out, a completion ends) are not events but are worked out from the
 * record whenever somebody looks, so they happen while the server is down as well.
 */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
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

/** The record in a snapshot's folder; undefined where its creation never finished. */
export function readRecord(folder: string): SnapshotRecord | undefined {
  let text: string;
  try {
    text = readFileSync(join(folder, RECORD_FILE), "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  return JSON.parse(text) as SnapshotRecord;
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

function syncPath(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
