/**
 * What a session is and how far its commit has come: session.json in the session folder. It is
 * replaced as a whole (write aside, sync, rename, sync the folder), so a crash leaves either the old
 * record or the new.
 */
import { Failure } from "../common/failure.js";
import { MAX_VOLUME_GIB } from "../common/sizes.js";
import { parseSnapshotId, type SnapshotId } from "../ebs/snapshot-id.js";
import type { SessionFiles } from "./disk-file.js";
import type { Reserve } from "./reserve.js";

/**
 * 2: the journal tells zeros from holes. In sessions of schema 1 all zeros are taken as written; opened
 * for use they become schema 2, which an older ebsmount refuses instead of losing zeros.
 */
export const SCHEMA = 2;
const OLDEST_SCHEMA = 1;
export const RECORD_FILE = "session.json";
const RECORD_ASIDE = "session.json.new";

/** What StartSnapshot will be asked for. */
export interface CommitSettings {
  readonly description?: string;
  readonly tags?: readonly { readonly key: string; readonly value: string }[];
  readonly encrypted?: boolean;
  readonly kmsKeyArn?: string;
  /** 10 to 4320. */
  readonly timeoutMinutes?: number;
}

/** One try to make the snapshot; there is another only when the service lost the pending one. */
export interface UploadRecord {
  /** From 1; names the upload log. */
  readonly attempt: number;
  /** Written here before StartSnapshot is called with it. */
  readonly clientToken: string;
  readonly snapshotId?: SnapshotId;
  /** CompleteSnapshot has been called or is about to be: nothing may be put any more. */
  readonly completing?: boolean;
}

export interface SessionRecord {
  readonly schema: number;
  readonly id: string;
  /** rw: becomes a snapshot; scratch: is thrown away. */
  readonly kind: "rw" | "scratch";
  /** Absent for a blank volume. */
  readonly parentSnapshotId?: SnapshotId;
  readonly volumeSizeGiB: number;
  readonly mountPoint?: string;
  readonly commit: CommitSettings;
  /** Whatever the caller needs to go on later, e.g. region, profile, endpoint. No secrets. */
  readonly context: Readonly<Record<string, string>>;
  readonly state: "open" | "committing" | "committed";
  readonly upload?: UploadRecord;
  /** Pending snapshots of earlier attempts, which the service will drop by itself. */
  readonly abandoned: readonly SnapshotId[];
  /** In state committed; absent where nothing differed from the parent. */
  readonly resultSnapshotId?: SnapshotId;
  /** ms since the epoch */
  readonly createdAt: number;
  readonly updatedAt: number;
}

export type NewSession = Pick<SessionRecord, "kind" | "volumeSizeGiB"> &
  Partial<Pick<SessionRecord, "parentSnapshotId" | "mountPoint" | "commit" | "context">>;

/** @throws Failure EINVAL where the volume size is none */
export function newRecord(id: string, session: NewSession): SessionRecord {
  const { volumeSizeGiB } = session;
  if (!Number.isInteger(volumeSizeGiB) || volumeSizeGiB < 1 || volumeSizeGiB > MAX_VOLUME_GIB) {
    throw new Failure("EINVAL", `A volume has 1 to ${MAX_VOLUME_GIB} whole GiB.`);
  }
  const now = Date.now();
  return {
    commit: {},
    context: {},
    ...session,
    schema: SCHEMA,
    id,
    state: "open",
    abandoned: [],
    createdAt: now,
    updatedAt: now,
  };
}

/** Replaces the record on disk, durably. @throws Failure ENOSPC, EIO: the old one is still there */
export async function saveRecord(
  files: SessionFiles,
  reserve: Reserve,
  record: SessionRecord,
): Promise<void> {
  const text = Buffer.from(`${JSON.stringify(record, undefined, 2)}\n`);
  const file = files.open(RECORD_ASIDE);
  try {
    reserve.spendOn(() => {
      file.truncate(0);
      file.writeAt(0, text);
    });
    await file.sync();
  } finally {
    file.close();
  }
  await files.replace(RECORD_ASIDE, RECORD_FILE);
}

/** @throws Failure EIO where the record is unreadable, EINVAL where a newer ebsmount wrote it */
export function loadRecord(
  files: SessionFiles,
  id: string,
  name: string = RECORD_FILE,
): SessionRecord {
  if (!files.exists(name)) {
    throw new Failure("ENOENT", `Session ${id} has no ${name}: it cannot be used.`);
  }
  const file = files.open(name);
  try {
    const text = Buffer.alloc(file.size);
    const n = file.readAt(0, text);
    return parseRecord(text.toString("utf8", 0, n), id);
  } finally {
    file.close();
  }
}

function parseRecord(text: string, id: string): SessionRecord {
  let record: SessionRecord;
  try {
    record = JSON.parse(text) as SessionRecord;
  } catch (cause) {
    throw new Failure("EIO", `The record of session ${id} is damaged: ${RECORD_FILE} is no JSON.`, {
      cause,
    });
  }
  const damaged = () =>
    new Failure("EIO", `The record of session ${id} is damaged: check its ${RECORD_FILE}.`);
  if (typeof record !== "object" || record === null) throw damaged();
  if (!(record.schema >= OLDEST_SCHEMA && record.schema <= SCHEMA)) {
    throw new Failure(
      "EINVAL",
      `Session ${id} was made by another version of ebsmount (schema ${record.schema}); use that version.`,
    );
  }
  if (!Number.isInteger(record.volumeSizeGiB) || record.id !== id) throw damaged();
  for (const snapshot of [record.parentSnapshotId, record.upload?.snapshotId]) {
    if (snapshot !== undefined) parseSnapshotId(snapshot);
  }
  return record;
}
