/**
 * The default driver: FUSE spoken to the kernel from TypeScript, no compiled code of its own. Root
 * mounts directly, others through fusermount3 (fuse-notes.md in the project's design folder has the
 * measurements behind this choice).
 */
import { closeSync } from "node:fs";
import { Failure } from "../../common/failure.js";
import type { FuseDriver, Mounted, MountRequest } from "../driver.js";
import { kernelOptions, parseMountOptions } from "../mount-options.js";
import { checkMountPoint } from "../mount-point.js";
import { findMount } from "../mount-table.js";
import { unmountEntry } from "../unmount.js";
import { Conversation } from "./conversation.js";
import { guardExit } from "./exit-guard.js";
import { mountAsRoot } from "./mount-as-root.js";
import { mountAsUser } from "./mount-as-user.js";
import { setReadAhead } from "./read-ahead.js";

export const kernelDriver: FuseDriver = { name: "kernel", mount };

async function mount(request: MountRequest): Promise<Mounted> {
  const parsed = parseMountOptions(request.options);
  const options = kernelOptions(parsed, request.fileSystem.readOnly);
  const mountPoint = await checkMountPoint(request.mountPoint);
  const conversation = new Conversation(request);
  let fd: number;
  try {
    const mountIt = process.getuid?.() === 0 ? mountAsRoot : mountAsUser;
    fd = await mountIt(mountPoint, request.source, options);
  } catch (error) {
    conversation.cancel();
    throw error;
  }
  const entry = await findMount(mountPoint);
  if (entry?.type.startsWith("fuse") !== true) {
    conversation.cancel();
    closeSync(fd);
    throw new Failure("EIO", `The new mount does not show at ${mountPoint} in the mount table.`);
  }
  conversation.start(fd);
  const release = guardExit(entry);
  conversation.ended.then(release, release);
  try {
    const version = await conversation.ready;
    request.log("debug", `Mounted at ${mountPoint}, FUSE ${version}, device ${entry.device}.`);
  } catch (error) {
    await unmountEntry(entry, true).catch(() => {});
    throw error;
  }
  if (request.readAheadBytes !== undefined) {
    if (!(await setReadAhead(entry.device, request.readAheadBytes))) {
      request.log("debug", "The kernel's readahead stays as it is: only root may change it.");
    }
  }
  return { ended: conversation.ended, unmount: (lazy = false) => unmountEntry(entry, lazy) };
}
