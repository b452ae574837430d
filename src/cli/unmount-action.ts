import { resolve } from "node:path";
import { errnoOf, Failure } from "../common/failure.js";
import { clearMount } from "../mount/clear-mount.js";
import { askMount } from "../mount/control-client.js";
import type { CommitProgress, MountOutcome } from "../mount/control-protocol.js";
import { findMount } from "../mount/find-mount.js";
import { type MountRecord, removeRecord } from "../mount/mount-record.js";
import { openStateFolder } from "../mount/state-folder.js";
import { Interrupted, interruptible } from "./errors.js";
import { mountPointArgument } from "./options.js";
import { CommitBar } from "./progress.js";
import { printResult } from "./result.js";

/** After so long without a word from the mount's process, ms, the user is told who is waited for. */
const HINT_AFTER_MS = 10_000;

/** @throws Failure ENOENT where nothing is mounted; EBUSY; what the commit failed with. */
export async function unmount(path: string, lazy: boolean, stateDir?: string): Promise<void> {
  const folder = openStateFolder(stateDir);
  const found = findMount(folder, mountPointArgument(path));
  if (found === undefined) {
    throw new Failure(
      "ENOENT",
      `Nothing of ebsmount is mounted at ${resolve(path)}; \`ebsmount status\` lists the mounts.`,
    );
  }
  if (found.record === undefined) {
    await clearMount(found.mountPoint, lazy);
    if (found.readOnly) return;
    throw new Failure(
      "ENOENT",
      `${found.mountPoint} is unmounted, but it was not mounted with the state folder ${folder.path} by this user: whether its changes become a snapshot, and which, is told by \`ebsmount status\` with the state folder of its mount (--state-dir).`,
    );
  }
  if (found.state === "stale") {
    await clearMount(found.mountPoint, true);
    removeRecord(folder, found.record);
    const { record } = found;
    process.stderr.write(
      `The process of ${found.mountPoint} had died; its mount point is cleared.${kept(record)}\n`,
    );
    if (record.session !== undefined) process.exitCode = 1;
    return;
  }
  const bar = new CommitBar();
  const { controlSocket, pid } = found.record;
  const hint = setTimeout(() => {
    const advice = "Ctrl-C ends the waiting, not the unmount.";
    process.stderr.write(`Waiting for process ${pid}, which has not answered yet; ${advice}\n`);
  }, HINT_AFTER_MS);
  let outcome: MountOutcome;
  try {
    const onProgress = (progress: CommitProgress) => {
      clearTimeout(hint);
      bar.update(progress);
    };
    const asked = askMount(controlSocket, { command: "unmount", lazy }, { onProgress });
    outcome = (await interruptible((signal) => unlessStopped(asked, signal))) as MountOutcome;
  } catch (cause) {
    if (errnoOf(cause) === "ENOTCONN") {
      const { message } = cause as Error;
      throw new Failure("ENOTCONN", `${message}${kept(found.record)}`, { cause });
    }
    if (!(cause instanceof Interrupted)) throw cause;
    const advice = "the unmount itself goes on: `ebsmount status` shows how far it is.";
    throw new Failure("EINTR", `Interrupted; ${advice}`, { cause });
  } finally {
    clearTimeout(hint);
    bar.stop();
  }
  if (outcome.message !== undefined) process.stderr.write(`${outcome.message}\n`);
  if (outcome.snapshotId !== undefined) {
    printResult([outcome.snapshotId], `The changes are snapshot ${outcome.snapshotId}`);
  }
}

/** What is left of the changes of a mount whose process is gone. */
function kept({ session, mode }: MountRecord): string {
  if (session === undefined) return "";
  return mode === "scratch"
    ? ` Its changes were scratch; remove them with \`ebsmount discard ${session}\`.`
    : ` What was flushed to it is kept: finish it with \`ebsmount commit ${session}\` or go on with \`ebsmount mount --resume ${session} MOUNTPOINT\`.`;
}

/** The work goes on elsewhere: only the waiting for it is stopped. */
async function unlessStopped<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  work.catch(() => {});
  return await Promise.race([
    work,
    new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    }),
  ]);
}
