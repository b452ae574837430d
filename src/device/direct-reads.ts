/** Puts together what a driver's thread needs to answer cached reads itself (direct-reader.ts). */
import type { DirectFile, DirectReaderData } from "../cache/direct-reader.js";
import type { DirectReads } from "../common/direct-reads.js";
import { workerUrl } from "../common/worker-url.js";
import type { SnapshotDevice } from "./snapshot-device.js";

/** A file of the mount and the snapshot it shows, or shows under an overlay. */
export interface FileOnSnapshot {
  readonly inode: number;
  readonly device: SnapshotDevice;
  /** For a file that can be written: the overlay's filter (src/cache/dirty-filter.ts). */
  readonly dirtyFilter?: SharedArrayBuffer;
}

/** @returns undefined where there is nothing to read directly. All devices must share one cache. */
export function directReads(files: readonly FileOnSnapshot[]): DirectReads | undefined {
  const cache = files[0]?.device.cache;
  if (cache === undefined) return undefined;
  const data: DirectReaderData = {
    memory: cache.pool.memory,
    channel: cache.signalChannel(),
    files: files.map(({ inode, device, dirtyFilter }): DirectFile => {
      const file = { inode, device: device.number, size: device.size };
      return dirtyFilter === undefined ? file : { ...file, dirtyFilter };
    }),
  };
  return { module: workerUrl(import.meta.url, "../cache/direct-reader.js").href, data };
}
