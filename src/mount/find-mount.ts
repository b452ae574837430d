/**
 * Finds what is mounted at a place, from the records and the kernel's mount table together: a live
 * mount with its process, a stale one whose process died, or a mount that this user has no record of.
 */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseMountTable } from "../fuse/mount-table.js";
import { listRecords, type MountRecord } from "./mount-record.js";
import type { StateFolder } from "./state-folder.js";

/** As what the two drivers' mounts show up in the kernel's table. */
const TYPES = new Set(["fuse.ebsmount", "fuse.ebsmount-libfuse"]);

export interface FoundMount {
  /**
   * live: its process runs; ending: unmounted, its process still commits; stale: its process is gone,
   * the mount point is dead; unknown: mounted, with no record in this state folder.
   */
  readonly state: "live" | "ending" | "stale" | "unknown";
  readonly mountPoint: string;
  readonly source: string;
  readonly record?: MountRecord;
}

/** All mounts. Records of processes that are gone and left no mount are passed over. */
export function findMounts(folder: StateFolder): FoundMount[] {
  const table = parseMountTable(readFileSync("/proc/self/mountinfo", "utf8"));
  const ours = table.filter(({ type }) => TYPES.has(type));
  const mounted = new Map(ours.map((entry) => [entry.mountPoint, entry]));
  const found: FoundMount[] = [];
  const claimed = new Set<string>();
  // The newest record of a mount point first: an older dead one there is only litter.
  for (const { record, alive } of listRecords(folder).reverse()) {
    const { mountPoint } = record;
    const source = record.snapshots.join(",");
    const isMounted = mounted.has(mountPoint) && !claimed.has(mountPoint);
    if (alive) found.push({ state: isMounted ? "live" : "ending", mountPoint, source, record });
    else if (isMounted) found.push({ state: "stale", mountPoint, source, record });
    if (isMounted) claimed.add(mountPoint);
  }
  found.reverse();
  for (const { mountPoint, source } of mounted.values()) {
    if (!claimed.has(mountPoint)) found.push({ state: "unknown", mountPoint, source });
  }
  return found;
}

/** @param path as the user gave it; symbolic links in it are not followed, which could hang. */
export function findMount(folder: StateFolder, path: string): FoundMount | undefined {
  const mountPoint = resolve(path);
  return findMounts(folder).find((found) => found.mountPoint === mountPoint);
}
