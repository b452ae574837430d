/**
 * The small record beside an unfinished export: of which snapshot it is and up to which block the
 * file on disk is known to be right. It is written only after the data it speaks of is durable, and
 * replaced as a whole, so after a crash or power cut it may say less than is there, never more.
 */
import { open, readFile, rename, rm } from "node:fs/promises";
import { Failure } from "../common/failure.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";

export interface ExportRecord {
  readonly version: 1;
  readonly snapshotId: SnapshotId;
  readonly volumeSizeGiB: number;
  /** All blocks below this index are durable in the file. */
  readonly nextBlockIndex: number;
}

/** undefined where there is no record, or none that can be understood. */
export async function readExportRecord(path: string): Promise<ExportRecord | undefined> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "{}";
    throw new Failure("EIO", `${path} cannot be read (${error.message}).`, { cause: error });
  });
  try {
    const record = JSON.parse(text) as Partial<ExportRecord>;
    const { nextBlockIndex: next, version, snapshotId, volumeSizeGiB } = record;
    if (version !== 1 || !Number.isSafeInteger(next) || (next as number) < 0) return undefined;
    if (typeof snapshotId !== "string" || typeof volumeSizeGiB !== "number") return undefined;
    return record as ExportRecord;
  } catch {
    return undefined;
  }
}

export async function writeExportRecord(path: string, record: ExportRecord): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, "w", 0o600);
  try {
    await file.writeFile(`${JSON.stringify(record)}\n`);
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}

export async function removeExportRecord(path: string): Promise<void> {
  await rm(path, { force: true });
  await rm(`${path}.new`, { force: true });
}
