/** The small record beside an unfinished export: of which snapshot it is. Replaced as a whole. */
import { open, rename, rm } from "node:fs/promises";
import { Failure } from "../common/failure.js";
import { openOwnFile } from "../common/own-file.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";

export interface ExportRecord {
  readonly version: 2;
  readonly snapshotId: SnapshotId;
  readonly volumeSizeGiB: number;
}

/**
 * undefined where there is no record, or none that can be understood.
 * @throws Failure EEXIST where it is not this user's own, EIO
 */
export async function readExportRecord(path: string): Promise<ExportRecord | undefined> {
  const text = await readOwn(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "{}";
    if (error instanceof Failure) throw error;
    throw new Failure("EIO", `${path} cannot be read (${error.message}).`, { cause: error });
  });
  try {
    const record = JSON.parse(text) as Partial<ExportRecord>;
    const { version, snapshotId, volumeSizeGiB } = record ?? {};
    if (version !== 2) return undefined;
    if (typeof snapshotId !== "string" || typeof volumeSizeGiB !== "number") return undefined;
    return record as ExportRecord;
  } catch {
    return undefined;
  }
}

async function readOwn(path: string): Promise<string> {
  const file = await openOwnFile(path, false);
  return await file.readFile("utf8").finally(() => file.close());
}

export async function writeExportRecord(path: string, record: ExportRecord): Promise<void> {
  const temporary = `${path}.new`;
  await rm(temporary, { force: true });
  const file = await open(temporary, "wx", 0o600);
  try {
    await file.writeFile(`${JSON.stringify(record)}\n`);
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}
