/**
 * From the command line to a mount: settles what is wanted, and goes into the background unless asked
 * to stay. The command that goes there has a process started and waits for it; what only that process
 * needs (serve-mount.ts and all the layers below it) is loaded only there.
 */
import { totalmem } from "node:os";
import { resolve } from "node:path";
import { errnoOf } from "../common/failure.js";
import type { Logger } from "../common/log.js";
import { formatSize } from "../common/sizes.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { type MountOptions, parseMountOptions } from "../fuse/mount-options.js";
import { checkMountPoint } from "../fuse/mount-point.js";
import { backgroundLogFile, startInBackground, tellParent } from "../mount/background.js";
import type { MountRecord } from "../mount/mount-record.js";
import { checkOutside } from "../mount/outside.js";
import { newLogFile, openStateFolder } from "../mount/state-folder.js";
import type { Volumes } from "../mount/volumes.js";
import { interruptible, UsageFailure } from "./errors.js";
import { mountPointArgument, type ServiceOptions, snapshotArgument } from "./options.js";
import { printResult } from "./result.js";
import type { Service } from "./service.js";

/** What the options of a command that mounts come to. Sizes in bytes. */
export interface MountCommandOptions extends ServiceOptions {
  readonly foreground?: boolean;
  readonly o: readonly string[];
  readonly cacheSize: number;
  readonly cacheDir?: string;
  readonly cacheDirSize: number;
  readonly readahead: number;
  readonly fuseDriver: "kernel" | "libfuse";
  readonly logFile?: string;
  readonly stateDir?: string;
}

/** @param places SNAPSHOT... MOUNTPOINT, as given. */
export async function mountSnapshots(
  places: readonly string[],
  options: MountCommandOptions,
): Promise<void> {
  const mountPoint = places.at(-1);
  const snapshots = places.slice(0, -1).map(snapshotArgument);
  if (mountPoint === undefined || snapshots.length === 0) {
    throw new UsageFailure("Say what to mount and where: ebsmount mount SNAPSHOT... MOUNTPOINT.");
  }
  if (new Set(snapshots).size < snapshots.length) {
    throw new UsageFailure("A snapshot is named twice; name each once.");
  }
  await runMount(mountPoint, snapshots, "ro", options, async (service, log) => {
    const { openSnapshotVolumes } = await import("../mount/snapshot-volumes.js");
    return openSnapshotVolumes(service, snapshots, {
      cacheBytes: options.cacheSize,
      readAheadBytes: options.readahead,
      concurrency: options.concurrency,
      ioTimeoutMs: options.ioTimeout,
      log,
    });
  });
}

/** What one mount is. */
export interface MountPlan {
  /** Absolute, without symbolic links. */
  readonly mountPoint: string;
  readonly snapshots: readonly SnapshotId[];
  readonly mode: MountRecord["mode"];
  readonly options: MountCommandOptions;
  /** What options.o says. */
  readonly wanted: MountOptions;
  readonly open: OpenVolumes;
}

/** @param mountPoint absolute, without symbolic links. */
export type OpenVolumes = (service: Service, log: Logger, mountPoint: string) => Promise<Volumes>;

/** Mounts, says so, and stays until the end. In the background only the child comes back here. */
export async function runMount(
  place: string,
  snapshots: readonly SnapshotId[],
  mode: MountRecord["mode"],
  options: MountCommandOptions,
  open: OpenVolumes,
): Promise<void> {
  checkCacheSize(options.cacheSize);
  const wanted = parseMountOptions(options.o);
  if (wanted.readOnly === true && mode !== "ro") {
    throw new UsageFailure("A mount to be written cannot be read-only: leave -o ro out.");
  }
  const mountPoint = await checkMountPoint(resolve(mountPointArgument(place)));
  const folder = openStateFolder(options.stateDir);
  checkOutside(mountPoint, {
    "the state folder": folder.path,
    "--cache-dir": options.cacheDir,
    "--log-file": options.logFile,
  });
  const logFile = backgroundLogFile();
  if (!options.foreground && logFile === undefined) {
    const file = options.logFile === undefined ? newLogFile(folder) : resolve(options.logFile);
    const images = await interruptible(async (signal) => {
      const made = await startInBackground(file, signal);
      signal.throwIfAborted();
      return made;
    });
    printResult(images, mounted(mountPoint));
    return;
  }
  const { serveMount } = await import("./serve-mount.js");
  await serveMount({ mountPoint, snapshots, mode, options, wanted, open }, folder, logFile);
}

/** Runs all of a command that mounts; in the background, its parent is told why it failed. */
export async function tellingParent(command: () => Promise<void>): Promise<void> {
  try {
    await command();
  } catch (error) {
    const { message } = error as Error;
    await tellParent({ kind: "failed", errno: errnoOf(error), message });
    throw error;
  }
}

/** @throws UsageFailure where this machine, or what the process may have of it, is smaller. */
function checkCacheSize(bytes: number): void {
  const memory = Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
  if (bytes < memory) return;
  throw new UsageFailure(
    `--cache-size ${formatSize(bytes)} is more than the ${formatSize(memory)} of memory here; --cache-dir keeps more, on disk.`,
  );
}

function mounted(mountPoint: string): string {
  return `It is mounted at ${mountPoint}, and \`ebsmount unmount ${mountPoint}\` ends that`;
}
