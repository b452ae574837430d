/**
 * `ebsmount mount --estimate`: what reading all of the snapshots once would cost, which is the most that
 * a reader can cause while blocks stay in the cache. What will be written is not known beforehand.
 */
import type { EbsApi } from "../ebs/api.js";
import { type CallRange, sumOfRanges } from "../ebs/estimate.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { BlockList } from "../snapshot/block-list.js";
import { estimateReading } from "../snapshot/estimate.js";
import { interruptible, UsageFailure } from "./errors.js";
import { type EstimateOptions, printEstimate } from "./estimate.js";
import { type ServiceOptions, snapshotArgument } from "./options.js";
import { openService } from "./service.js";

/** @param places SNAPSHOT... MOUNTPOINT, as given; the mount point is not looked at and can be left out. */
export async function estimateMount(
  places: readonly string[],
  options: ServiceOptions & EstimateOptions,
): Promise<void> {
  const last = places.at(-1) ?? "";
  const named = /^snap-[0-9a-f]+$/.test(last) ? places : places.slice(0, -1);
  const snapshots = [...new Set(named.map(snapshotArgument))];
  if (snapshots.length === 0) {
    throw new UsageFailure("Say what to mount: ebsmount mount --estimate SNAPSHOT...");
  }
  const { api, meter } = await openService(options);
  try {
    await interruptible(async (signal) => {
      const ranges: CallRange[] = [];
      for (const snapshot of snapshots) ranges.push(await estimateOne(api, snapshot, signal));
      const what = `Mount of ${snapshots.join(", ")}, all of it read once`;
      printEstimate(what, sumOfRanges(ranges), meter, options);
    });
  } finally {
    await api.close();
  }
}

async function estimateOne(
  api: EbsApi,
  snapshot: SnapshotId,
  signal: AbortSignal,
): Promise<CallRange> {
  return await estimateReading(await BlockList.open(api, snapshot, signal), signal);
}
