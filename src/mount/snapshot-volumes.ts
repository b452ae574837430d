/** The volumes of a read-only mount: one device a snapshot, all over one cache and one fetch queue. */
import type { BlockCache } from "../cache/block-cache.js";
import type { Logger } from "../common/log.js";
import { directReads } from "../device/direct-reads.js";
import {
  createBlockCache,
  openSnapshotDevice,
  type SnapshotDevice,
} from "../device/snapshot-device.js";
import type { EbsApi } from "../ebs/api.js";
import type { Meter } from "../ebs/meter.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import type { CacheReading, Volumes } from "./volumes.js";

export interface VolumeService {
  readonly api: EbsApi;
  readonly meter: Meter;
}

/** Sizes in bytes, times in ms. */
export interface VolumeOptions {
  readonly cacheBytes: number;
  readonly readAheadBytes: number;
  readonly concurrency: number;
  readonly ioTimeoutMs: number;
  readonly log: Logger;
}

/** One list call a snapshot. @throws EbsError; then nothing is left open. */
export async function openSnapshotVolumes(
  service: VolumeService,
  snapshots: readonly SnapshotId[],
  options: VolumeOptions,
): Promise<Volumes> {
  const cache = openCache(service, options);
  const devices: SnapshotDevice[] = [];
  try {
    for (const snapshotId of snapshots) {
      devices.push(await openDevice(service, cache, snapshotId, options));
    }
  } catch (error) {
    await Promise.all(devices.map((device) => device.close()));
    cache.close();
    throw error;
  }
  return {
    list: devices.map((device) => ({ name: `${device.snapshotId}.img`, device })),
    directReads: (inodes) =>
      directReads(devices.map((device, i) => ({ inode: inodes[i] as number, device }))),
    cacheReading: () => readingOf(cache),
    dirtyBytes: () => undefined,
    pendingSnapshot: () => undefined,
    finish: async () => ({}),
    close: async () => {
      await Promise.all(devices.map((device) => device.close()));
      cache.close();
    },
  };
}

export function openCache(service: VolumeService, options: VolumeOptions): BlockCache {
  return createBlockCache({
    bytes: options.cacheBytes,
    concurrency: options.concurrency,
    ioTimeoutMs: options.ioTimeoutMs,
    // Each operation has a quota of its own: uploads that are throttled say nothing of fetches.
    throttles: () => service.meter.throttles("GetSnapshotBlock"),
    line: () => service.api.getsAtATime ?? Number.POSITIVE_INFINITY,
  });
}

export function openDevice(
  service: VolumeService,
  cache: BlockCache,
  snapshotId: SnapshotId,
  options: VolumeOptions,
): Promise<SnapshotDevice> {
  return openSnapshotDevice({
    api: service.api,
    cache,
    snapshotId,
    readaheadBytes: options.readAheadBytes,
  });
}

export function readingOf(cache: BlockCache): CacheReading {
  const { cachedBytes, capacityBytes, hits, misses } = cache.statistics();
  return { cached: cachedBytes, cacheSize: capacityBytes, hits, misses };
}
