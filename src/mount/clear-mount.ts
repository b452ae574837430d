/** Takes away a mount that has no process to ask: by umount(8) as root, else by fusermount3. */
import { Failure } from "../common/failure.js";
import { runUnmount } from "../fuse/unmount.js";

/** @throws Failure EBUSY or EPERM with the tool's own words. */
export async function clearMount(mountPoint: string, lazy: boolean): Promise<void> {
  const { status, message } = await runUnmount(mountPoint, lazy);
  if (status === 0) return;
  if (/busy/i.test(message)) {
    throw new Failure(
      "EBUSY",
      `${mountPoint} is in use: close its files, detach loop devices on them (losetup -d), then try again, or use --lazy.`,
    );
  }
  throw new Failure("EPERM", `${mountPoint} cannot be unmounted: ${message}`);
}
