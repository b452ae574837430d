/** What `GET /_ebsmount/stats` answers: the counts of stats.ts and the snapshots that there are. */
import type { SnapshotStatus } from "../ebs/api.js";
import type { StatsTable } from "./stats.js";
import type { Store } from "./store.js";

export interface SnapshotSummary {
  readonly snapshotId: string;
  readonly status: SnapshotStatus;
  readonly volumeSizeGiB: number;
  readonly parentSnapshotId: string | undefined;
  readonly description: string | undefined;
  readonly tags: readonly { readonly Key: string; readonly Value: string }[];
  readonly clientToken: string | undefined;
  readonly synthetic: boolean;
  /** Blocks put, known once the snapshot has been completed. */
  readonly changedBlocksCount: number | undefined;
}

export interface EndpointStats {
  readonly operations: StatsTable;
  readonly snapshots: readonly SnapshotSummary[];
}

export function summarize(store: Store): SnapshotSummary[] {
  return store.list().map((record) => ({
    snapshotId: record.snapshotId,
    status: record.status,
    volumeSizeGiB: record.parameters.volumeSizeGiB,
    parentSnapshotId: record.parameters.parentSnapshotId,
    description: record.parameters.description,
    tags: record.parameters.tags,
    clientToken: record.parameters.clientToken,
    synthetic: record.synthetic !== undefined,
    changedBlocksCount: record.changedBlocksCount,
  }));
}
