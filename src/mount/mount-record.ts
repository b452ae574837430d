/**
 * One small file a live mount, so that `status` and `unmount` find its process. A record says where
 * the process listens; what it is doing right now it says itself (control-server.ts). A record whose
 * process is gone is stale: that daemon died, and its mount point needs clearing.
 */
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isAlive } from "./process-identity.js";
import type { StateFolder } from "./state-folder.js";

export interface MountRecord {
  readonly id: string;
  readonly pid: number;
  /** Tells the process from a later one with its pid; see process-identity.ts. */
  readonly startTicks: string;
  readonly mountPoint: string;
  readonly snapshots: readonly string[];
  readonly driver: string;
  /** ro: read only; rw: changes become a snapshot; scratch: changes are thrown away. */
  readonly mode: "ro" | "rw" | "scratch";
  /** The mount session that holds the changes; absent for ro. */
  readonly session?: string;
  readonly controlSocket: string;
  /** Absent where the process logs to its terminal. */
  readonly logFile?: string;
  /** ISO 8601. */
  readonly startedAt: string;
}

const file = (folder: StateFolder, id: string) => join(folder.mounts, `${id}.json`);

export function writeRecord(folder: StateFolder, record: MountRecord): void {
  const path = file(folder, record.id);
  writeFileSync(`${path}.new`, `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

export function removeRecord(folder: StateFolder, record: MountRecord): void {
  rmSync(file(folder, record.id), { force: true });
  rmSync(record.controlSocket, { force: true });
}

/** All records, oldest first, live and stale ones. A file that is no record is passed over. */
export function listRecords(folder: StateFolder): { record: MountRecord; alive: boolean }[] {
  const found: { record: MountRecord; alive: boolean }[] = [];
  for (const name of readdirSync(folder.mounts)) {
    if (!name.endsWith(".json")) continue;
    try {
      const record = JSON.parse(readFileSync(join(folder.mounts, name), "utf8")) as MountRecord;
      if (!isRecord(record)) continue;
      found.push({ record, alive: isAlive(record.pid, record.startTicks) });
    } catch {
      // It was removed meanwhile, or is not ours.
    }
  }
  return found.sort((a, b) => a.record.startedAt.localeCompare(b.record.startedAt));
}

function isRecord({ pid, startTicks, mountPoint, snapshots, ...more }: MountRecord): boolean {
  const texts = [startTicks, mountPoint, more.controlSocket, more.startedAt, more.mode, more.id];
  return (
    typeof pid === "number" &&
    texts.every((text) => typeof text === "string") &&
    Array.isArray(snapshots)
  );
}
