/**
 * Lets the process exit while a mount is still there. Node joins its worker threads when it exits,
 * and ours is inside read(2) on /dev/fuse, which nothing in Node can end: without this the process
 * would hang for ever after an uncaught exception. So on exit the kernel is told to abort the
 * connection, which ends that read; the mount point is then stale, as after any daemon's death.
 */
import { writeFileSync } from "node:fs";
import { loadLibc } from "../../common/libc.js";
import type { MountEntry } from "../mount-table.js";

const MNT_FORCE = 1;
const UMOUNT_NOFOLLOW = 8;

const live = new Set<MountEntry>();

/** @returns what to call when the mount has ended. */
export function guardExit(mount: MountEntry): () => void {
  if (live.size === 0) process.on("exit", abortAll);
  live.add(mount);
  return () => {
    live.delete(mount);
    if (live.size === 0) process.off("exit", abortAll);
  };
}

function abortAll(): void {
  for (const mount of live) {
    if (!abortThroughSysfs(mount) && !abortByForce(mount)) {
      // Better a killed process than one that can never end.
      process.kill(process.pid, "SIGKILL");
    }
  }
}

/** The connection's number is its device's minor. Needs fusectl mounted; its owner may write. */
function abortThroughSysfs(mount: MountEntry): boolean {
  try {
    writeFileSync(`/sys/fs/fuse/connections/${mount.device.split(":")[1]}/abort`, "1");
    return true;
  } catch {
    return false;
  }
}

/** umount2(2) with MNT_FORCE aborts a FUSE connection even where the unmounting itself fails. */
function abortByForce(mount: MountEntry): boolean {
  if (process.getuid?.() !== 0) return false;
  try {
    const umount2 = loadLibc().func("int umount2(const char *target, int flags)");
    umount2(mount.mountPoint, MNT_FORCE | UMOUNT_NOFOLLOW);
    return true;
  } catch {
    return false;
  }
}
