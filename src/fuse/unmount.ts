/**
 * Takes a mount away: root with umount(8), others with the setuid fusermount3, both as children,
 * for they may ask our own file system something on their way. Only the mount it was given is
 * touched: if another has been put over it since, nothing is done to that one.
 */
import { Failure } from "../common/failure.js";
import { findMount, isMounted, type MountEntry } from "./mount-table.js";
import { type Ran, run } from "./run.js";

/**
 * Resolves when the mount is detached (at once where it was already).
 * @param lazy detach now, end when the last file is closed.
 * @throws Failure EBUSY while files are open there or another mount lies on top, EPERM.
 */
export async function unmountEntry(mount: MountEntry, lazy: boolean): Promise<void> {
  const { mountPoint } = mount;
  if (!(await isMounted(mount))) return;
  const top = await findMount(mountPoint);
  if (top?.id !== mount.id) {
    throw new Failure(
      "EBUSY",
      `Another file system (${top?.type ?? "unknown"}) is mounted over ${mountPoint}; unmount that first.`,
    );
  }
  const asRoot = process.getuid?.() === 0;
  const ran = await runUnmount(mountPoint, lazy);
  if (ran.status === 0 || !(await isMounted(mount))) return;
  if (/busy/i.test(ran.message)) {
    throw new Failure(
      "EBUSY",
      `${mountPoint} is in use: close what is open there (lsof +D or fuser -vm ${mountPoint}; loop devices: losetup -a) and try again, or detach it lazily.`,
    );
  }
  if (ran.status === 127) {
    throw new Failure(
      "ENOENT",
      `${asRoot ? "umount" : "fusermount3"} is not installed here; ${asRoot ? "install util-linux" : "install fuse3 (apt install fuse3)"} and try again.`,
    );
  }
  throw new Failure("EPERM", `${mountPoint} cannot be unmounted: ${ran.message}`);
}

/** Runs the program that takes away whatever is on top at a mount point; nothing is looked at before. */
export function runUnmount(mountPoint: string, lazy: boolean): Promise<Ran> {
  return process.getuid?.() === 0
    ? run("umount", ["-i", ...(lazy ? ["-l"] : []), "--", mountPoint])
    : run("fusermount3", ["-u", ...(lazy ? ["-z"] : []), "--", mountPoint]);
}
