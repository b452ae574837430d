/**
 * Where an import keeps its ledger: one file a pending snapshot in the state folder, so that the same
 * command with the same client token, which the service answers with the same snapshot, finds it.
 * Ledgers that nobody came back for are removed once their snapshot must have expired.
 */
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { makeFolder } from "../common/make-folder.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { FileDigests } from "./digest-ledger.js";

/** A pending snapshot expires after 3 days without a put at most (StartSnapshot, Timeout). */
const KEEP_MS = 7 * 24 * 3600_000;
const SUFFIX = ".digests";

/**
 * @param folder made where it is missing.
 * @param resume false to forget what the file holds.
 * @throws Failure EBUSY while another import of the same snapshot runs.
 */
export async function openImportLedger(
  folder: string,
  snapshotId: SnapshotId,
  resume: boolean,
): Promise<FileDigests> {
  makeFolder(folder, 0o700);
  await removeOld(folder);
  return await FileDigests.open(join(folder, snapshotId + SUFFIX), !resume);
}

/** Call when the snapshot is completed. */
export async function removeImportLedger(folder: string, snapshotId: SnapshotId): Promise<void> {
  await rm(join(folder, snapshotId + SUFFIX), { force: true });
}

async function removeOld(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!name.endsWith(SUFFIX)) continue;
    const path = join(folder, name);
    const modified = await stat(path).then(
      (found) => found.mtimeMs,
      () => Number.POSITIVE_INFINITY,
    );
    if (modified < Date.now() - KEEP_MS) await rm(path, { force: true });
  }
}
