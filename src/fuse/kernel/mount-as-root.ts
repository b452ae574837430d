/**
 * Mounting as root: open /dev/fuse, then let mount(8) do the mounting with that descriptor inherited
 * as its number 3, so that /etc/mtab, SELinux and the like are as everywhere. Neither libfuse nor
 * fusermount3 is needed. Source of the options: kernel Documentation/filesystems/fuse.rst.
 */
import { closeSync, openSync } from "node:fs";
import { Failure } from "../../common/failure.js";
import { run } from "../run.js";

const DEVICE = "/dev/fuse";
const INHERITED_FD = 3;

/**
 * @param options the kernel's, complete (mount-options.ts).
 * @returns the descriptor of /dev/fuse, which the caller closes.
 * @throws Failure ENOENT, EACCES, EPERM with what to do.
 */
export async function mountAsRoot(
  mountPoint: string,
  source: string,
  options: readonly string[],
): Promise<number> {
  const fd = openDevice();
  const owner = `user_id=${process.getuid?.() ?? 0},group_id=${process.getgid?.() ?? 0}`;
  const all = [`fd=${INHERITED_FD},rootmode=40000,${owner}`, ...options].join(",");
  const args = ["-i", "-t", "fuse.ebsmount", "-o", all, "--", source, mountPoint];
  const ran = await run("mount", args, fd);
  if (ran.status === 0) return fd;
  closeSync(fd);
  if (ran.status === 127) {
    throw new Failure("ENOENT", "mount is not installed here; install util-linux and try again.");
  }
  if (/permission denied|must be superuser|not permitted/i.test(ran.message)) {
    throw new Failure(
      "EPERM",
      `Root may not mount on ${mountPoint} here; in a container add --cap-add SYS_ADMIN --device /dev/fuse (mount said: ${ran.message}).`,
    );
  }
  throw new Failure("EIO", `Mounting on ${mountPoint} failed: ${ran.message}`);
}

function openDevice(): number {
  try {
    return openSync(DEVICE, "r+");
  } catch (cause) {
    switch ((cause as NodeJS.ErrnoException).code) {
      case "ENOENT":
      case "ENODEV":
      case "ENXIO":
        throw deviceMissing();
      case "EACCES":
      case "EPERM":
        throw new Failure(
          "EACCES",
          `${DEVICE} cannot be opened; in a container add --device ${DEVICE} --cap-add SYS_ADMIN.`,
        );
      default:
        throw cause;
    }
  }
}

export function deviceMissing(): Failure {
  return new Failure(
    "ENOENT",
    `There is no ${DEVICE}; load the kernel module (modprobe fuse) or, in a container, add --device ${DEVICE} --cap-add SYS_ADMIN.`,
  );
}
