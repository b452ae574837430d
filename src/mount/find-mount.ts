/**
 * Finds what is mounted at a place, from the records and the kernel's mount table together: a live
 * mount with its process, a stale one whose process died, or a mount that this user has no record of.
 */
import { readFileSync, readlinkSync, realpathSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { parseMountTable } from "../fuse/mount-table.js";
import { listRecords, type MountRecord, removeRecord } from "./mount-record.js";
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
  /** By the kernel's table; false where it is not in it any more. */
  readonly readOnly: boolean;
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
    const readOnly = isMounted && mounted.get(mountPoint)?.readOnly === true;
    const entry = { mountPoint, source, record, readOnly };
    if (alive) found.push({ state: isMounted ? "live" : "ending", ...entry });
    else if (isMounted) found.push({ state: "stale", ...entry });
    if (isMounted) claimed.add(mountPoint);
  }
  found.reverse();
  for (const { mountPoint, source, readOnly } of mounted.values()) {
    if (!claimed.has(mountPoint)) found.push({ state: "unknown", mountPoint, source, readOnly });
  }
  return found;
}

/**
 * The mount at a path: what is mounted there now, else the latest that is ending there.
 * @param path as the user gave it, symbolic links and all.
 */
export function findMount(folder: StateFolder, path: string): FoundMount | undefined {
  const all = findMounts(folder);
  for (const mountPoint of placesOf(path)) {
    const here = all.filter((found) => found.mountPoint === mountPoint);
    const found = here.find(({ state }) => state !== "ending") ?? here.at(-1);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Links that one path may lead through. */
const MOST_LINKS = 40;

/**
 * The path and what its links lead to, found without looking at what is mounted there: the mount of
 * a process that hangs would not answer.
 */
function placesOf(path: string): string[] {
  const places = [resolve(path)];
  try {
    let at = places[0] as string;
    for (let links = 0; links < MOST_LINKS; links += 1) {
      at = join(realpathSync(dirname(at)), basename(at));
      places.push(at);
      at = resolve(dirname(at), readlinkSync(at));
    }
  } catch {
    // No further link, or nothing there.
  }
  return places;
}

/** Removes the records of processes that are gone and have left no mount behind. */
export function removeOldRecords(folder: StateFolder): void {
  const stale = new Set(findMounts(folder).map(({ record }) => record?.id));
  for (const { record, alive } of listRecords(folder)) {
    if (!alive && !stale.has(record.id)) removeRecord(folder, record);
  }
}
