/** What a mount's process tells of itself, and how the state of all mounts is put together. */
import type { DiskReading } from "../cache/disk-cache.js";
import type { BudgetLimits } from "../ebs/budget.js";
import type { MeterReading } from "../ebs/meter.js";
import { askMount } from "./control-client.js";
import type { CommitProgress } from "./control-protocol.js";
import { type FoundMount, findMounts } from "./find-mount.js";
import type { StateFolder } from "./state-folder.js";

/** One image file of a mount. Sizes in bytes. */
export interface VolumeStatus {
  readonly name: string;
  readonly size: number;
  /** Written in the snapshot; absent while that is not known without listing it all. */
  readonly written?: number;
}

/** Sizes in bytes. */
export interface MountStatus {
  readonly phase: "mounted" | "committing";
  readonly volumes: readonly VolumeStatus[];
  /** Block data held in memory. */
  readonly cached: number;
  readonly cacheSize: number;
  /** Reads of a block that was, or was not, in the cache. */
  readonly hits: number;
  readonly misses: number;
  /** Of the cache folder, in blocks; absent without one. */
  readonly disk?: DiskReading;
  /** Changed data not yet in a completed snapshot; absent for a read-only mount. */
  readonly dirty?: number;
  /** The snapshot that the changes are being put into; absent before the first upload. */
  readonly becoming?: string;
  readonly commit?: CommitProgress;
  readonly service: MeterReading;
  /** What all requests together may cost. */
  readonly limits: BudgetLimits;
  /** What requests go over: `libcurl 7.88.1, OpenSSL/3.0.19`. */
  readonly transport: string;
  /** Resident memory of the process. */
  readonly memory: number;
}

export interface StatusEntry extends FoundMount {
  /** Absent where the process is gone or does not answer. */
  readonly status?: MountStatus;
  /** What to do, where something is wrong. */
  readonly advice?: string;
}

/** How long a mount's process may take to say how it is, ms. */
const ANSWER_LIMIT = 3000;

export async function statusOfMounts(folder: StateFolder): Promise<StatusEntry[]> {
  return Promise.all(findMounts(folder).map(describe));
}

async function describe(found: FoundMount): Promise<StatusEntry> {
  if (found.state === "stale") {
    return {
      ...found,
      advice: `its process is gone: clear it with \`ebsmount unmount ${found.mountPoint}\``,
    };
  }
  if (found.record === undefined) {
    return {
      ...found,
      advice: `mounted with another state folder or by another user: \`umount ${found.mountPoint}\` ends it`,
    };
  }
  try {
    const status = await askMount(
      found.record.controlSocket,
      { command: "status" },
      { timeoutMs: ANSWER_LIMIT },
    );
    return { ...found, status: status as MountStatus };
  } catch (error) {
    return { ...found, advice: (error as Error).message };
  }
}
