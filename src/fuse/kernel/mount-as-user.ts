/**
 * Mounting as an ordinary user: the setuid helper fusermount3 opens /dev/fuse, mounts, and sends the
 * descriptor back over a Unix socket whose number it finds in _FUSE_COMMFD. Source of this agreement:
 * libfuse, util/fusermount.c and doc/fusermount3.1.
 */
import { closeSync } from "node:fs";
import { Failure } from "../../common/failure.js";
import { run } from "../run.js";
import { receiveDescriptor, socketPair } from "./descriptor-passing.js";
import { deviceMissing } from "./mount-as-root.js";

const INHERITED_FD = 3;

/**
 * @param options the kernel's, complete (mount-options.ts).
 * @returns the descriptor of /dev/fuse, which the caller closes.
 * @throws Failure ENOENT, EACCES, EPERM with what to do.
 */
export async function mountAsUser(
  mountPoint: string,
  source: string,
  options: readonly string[],
): Promise<number> {
  const [ours, theirs] = socketPair();
  try {
    // A comma in a value would end it; fusermount3 knows the backslash.
    const name = source.replace(/[\\,]/g, "\\$&");
    // It adds these two itself, and wants no user to name default_permissions twice.
    const all = [...options, `fsname=${name}`, "subtype=ebsmount"].join(",");
    const args = ["-o", all, "--", mountPoint];
    const environment = { _FUSE_COMMFD: String(INHERITED_FD) };
    const ran = await run("fusermount3", args, theirs, environment);
    if (ran.status !== 0) throw explained(mountPoint, ran.status, ran.message);
    const fd = receiveDescriptor(ours);
    if (fd === undefined) {
      throw new Failure("EIO", `fusermount3 mounted ${mountPoint} but gave no descriptor back.`);
    }
    return fd;
  } finally {
    closeSync(ours);
    closeSync(theirs);
  }
}

function explained(mountPoint: string, status: number, message: string): Failure {
  if (status === 127) {
    return new Failure(
      "ENOENT",
      "fusermount3 is not installed, which an ordinary user needs to mount; install it (apt install fuse3, dnf install fuse3) or mount as root.",
    );
  }
  if (message.includes("user_allow_other")) {
    return new Failure(
      "EPERM",
      "allow_other is not enabled for ordinary users: root must add the line user_allow_other to /etc/fuse.conf.",
    );
  }
  if (/device not found|\/dev\/fuse: No such/i.test(message)) return deviceMissing();
  if (/\/dev\/fuse: Permission denied/i.test(message)) {
    return new Failure(
      "EACCES",
      "/dev/fuse is closed to ordinary users here: root must open it (chmod 666 /dev/fuse) or mount.",
    );
  }
  if (/no write access to mountpoint|sticky|not owned by user/i.test(message)) {
    return new Failure(
      "EACCES",
      `${mountPoint} is not yours to mount on: choose a directory that you own and can write to.`,
    );
  }
  if (message.includes("mount_max")) {
    return new Failure(
      "EBUSY",
      "There are too many FUSE mounts of ordinary users; unmount one, or root raises mount_max in /etc/fuse.conf.",
    );
  }
  return new Failure(
    "EPERM",
    `fusermount3 could not mount on ${mountPoint} (${message || `status ${status}`}); is it setuid root, and may this machine's users mount?`,
  );
}
