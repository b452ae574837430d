/**
 * The second driver: the npm package fuse-native (libfuse 2.9 inside), for whoever trusts libfuse
 * more than our own protocol code. It is an optional dependency, found out only when asked for. Its
 * habits are kept in check here: its 15 s timeouts are off (a slow network must never become a wrong
 * answer), its options are replaced by ours (it knows too few), and it never unmounts by itself (it
 * would do so lazily and through a shell), and its descriptor is kept from child processes, which would
 * keep a dead mount from being noticed. It does not say when a mount has ended: its descriptor is
 * looked at, which it closes when the kernel has let go, while a detached mount with open files is in
 * no mount table any more but goes on.
 */
import { readdirSync, readlinkSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type FuseNative from "fuse-native";
import { Failure } from "../../common/failure.js";
import { closeOnExec } from "../../common/posix.js";
import { AnswerLog } from "../answer-log.js";
import {
  CONGESTION_THRESHOLD,
  type FuseDriver,
  MAX_BACKGROUND,
  type Mounted,
  type MountRequest,
} from "../driver.js";
import { kernelOptions, parseMountOptions } from "../mount-options.js";
import { checkMountPoint } from "../mount-point.js";
import { findMount, isMounted, type MountEntry } from "../mount-table.js";
import { unmountEntry } from "../unmount.js";
import { loadFuseNative } from "./load.js";
import { nativeOperations } from "./operations.js";

export const libfuseDriver: FuseDriver = { name: "libfuse", mount };

/** How often it is looked whether the mount is still there. */
const LOOK_EVERY_MS = 250;
const READY_WITHIN_MS = 15_000;
/** fuse-native keeps path and options in buffers of 1024 bytes and cuts what is longer. */
const MAX_TEXT_BYTES = 1023;
/** Mount options newer than libfuse 2.9's table: it would refuse them after it had mounted. */
const UNKNOWN_TO_LIBFUSE = new Set([
  "relatime",
  "norelatime",
  "strictatime",
  "diratime",
  "nodiratime",
]);

async function mount(request: MountRequest): Promise<Mounted> {
  const parsed = parseMountOptions(request.options);
  const unknown = parsed.kernel.find((option) => UNKNOWN_TO_LIBFUSE.has(option));
  if (unknown !== undefined) {
    throw new Failure(
      "EINVAL",
      `Mount option "${unknown}" is not known to libfuse 2.9; leave it out or use --fuse-driver kernel.`,
    );
  }
  const Fuse = loadFuseNative();
  // Ours (unmount.ts) has then been there already; see above.
  Fuse.unmount = (_mountPoint, done) => done(null);
  const mountPoint = await checkMountPoint(request.mountPoint);
  const files = request.fileSystem;
  const text = optionText(request, kernelOptions(parsed, files.readOnly), files.timeToLive);
  if (Buffer.byteLength(mountPoint) > MAX_TEXT_BYTES || Buffer.byteLength(text) > MAX_TEXT_BYTES) {
    throw new Failure(
      "EINVAL",
      `${mountPoint} with its options is too long for the libfuse driver; use --fuse-driver kernel.`,
    );
  }
  const log = new AnswerLog((level, message) => request.log(level, message));
  const operations = nativeOperations(files, log);
  const fuse = new Fuse(mountPoint, operations, { timeout: false });
  fuse._fuseOptions = () => text;
  const entry = await established(fuse, mountPoint);
  const descriptors = openDescriptors();
  descriptors.forEach(closeOnExec);
  return {
    ended: gone(fuse, entry, descriptors),
    unmount: (lazy = false) => unmountEntry(entry, lazy),
  };
}

function optionText(request: MountRequest, options: readonly string[], timeToLive: number): string {
  const name = request.source.replace(/[\\,]/g, "\\$&");
  const own = [
    `fsname=${name}`,
    "subtype=ebsmount",
    "use_ino",
    "big_writes",
    "kernel_cache",
    `max_background=${MAX_BACKGROUND},congestion_threshold=${CONGESTION_THRESHOLD}`,
    `entry_timeout=${timeToLive}`,
    `attr_timeout=${timeToLive}`,
  ];
  return `-o${[...options, ...own].join(",")}`;
}

/** Mounts, and waits until the kernel has asked and been answered. */
async function established(fuse: FuseNative, mountPoint: string): Promise<MountEntry> {
  let timer: NodeJS.Timeout | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      timer = setTimeout(() => reject(new Error("no answer from the kernel")), READY_WITHIN_MS);
      fuse.mount((error) => (error ? reject(error) : resolve()));
    });
  } catch (cause) {
    const left = await findMount(mountPoint);
    if (left?.type === "fuse.ebsmount") await unmountEntry(left, true).catch(() => {});
    throw explained(mountPoint, cause as Error);
  } finally {
    clearTimeout(timer);
  }
  const entry = await findMount(mountPoint);
  if (entry?.type.startsWith("fuse") !== true) {
    throw new Failure("EIO", `The new mount does not show at ${mountPoint} in the mount table.`);
  }
  return entry;
}

function explained(mountPoint: string, cause: Error): Failure {
  if (/in use/i.test(cause.message)) {
    return new Failure(
      "EBUSY",
      `${mountPoint} is itself a mount point, where the libfuse driver cannot mount; use a directory inside it or --fuse-driver kernel.`,
    );
  }
  return new Failure(
    "EPERM",
    `libfuse could not mount on ${mountPoint} (${cause.message}); its own message is in the log, or on standard error with -f. Check that /dev/fuse exists, that fusermount is installed (apt install fuse3) and, for allow_other, that /etc/fuse.conf has user_allow_other; or try --fuse-driver kernel, which explains more.`,
    { cause },
  );
}

async function gone(
  fuse: FuseNative,
  entry: MountEntry,
  descriptors: readonly number[],
): Promise<void> {
  while ((await isMounted(entry)) || descriptors.some(isOpen)) await sleep(LOOK_EVERY_MS);
  // Lets go of the event loop; nothing is unmounted here.
  await new Promise<void>((resolve) => fuse.unmount(() => resolve()));
}

/** Of /dev/fuse in this process: the mount's, which fuse-native does not tell. */
function openDescriptors(): number[] {
  return readdirSync("/proc/self/fd").map(Number).filter(isOpen);
}

function isOpen(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === "/dev/fuse";
  } catch {
    return false;
  }
}
