/**
 * The process that is a mount, in front or in the background: composes the layers, says when the mount
 * is usable, and stays until its end, an unmount or a signal.
 */
import { join } from "node:path";
import type { DiskReading } from "../cache/disk-cache.js";
import { errnoOf, Failure } from "../common/failure.js";
import { type Logger, openLog } from "../common/log.js";
import type { ImageDirectoryOptions } from "../filesystem/image-directory.js";
import { createFuseDriver } from "../fuse/create-driver.js";
import type { MountOptions } from "../fuse/mount-options.js";
import { backgroundLogFile, tellParent } from "../mount/background.js";
import { boundHeapGrowth } from "../mount/heap.js";
import { LiveMount } from "../mount/live-mount.js";
import type { StateFolder } from "../mount/state-folder.js";
import { Interrupted, interruptible } from "./errors.js";
import type { MountCommandOptions, MountPlan } from "./mount-action.js";
import { printResult } from "./result.js";
import { openService, type Service } from "./service.js";

/** Threads that serve the kernel's requests. */
const FUSE_THREADS = 1;

/** Bytes that the kernel reads ahead: enough for its own batching, ours looks further. */
const KERNEL_READ_AHEAD = 1024 * 1024;

/** @param logFile undefined in front. @throws Failure, UsageFailure; what was opened is closed again. */
export async function serveMount(
  { mountPoint, snapshots, mode, options, wanted, open }: MountPlan,
  folder: StateFolder,
  logFile: string | undefined,
): Promise<void> {
  boundHeapGrowth();
  const log = openLog(options.logLevel, logFile);
  try {
    await interruptible(async (signal) => {
      const driver = await createFuseDriver(options.fuseDriver);
      const bare = await openService(options, log, FUSE_THREADS);
      const { service, diskReading } = await withCacheFolder(bare, options);
      try {
        const live = await LiveMount.start({
          volumes: await open(service, log, mountPoint),
          meter: service.meter,
          limits: service.budget.limits,
          ...(diskReading && { diskReading }),
          driver,
          folder,
          mountPoint,
          snapshots,
          mode,
          mountOptions: options.o,
          fileSystem: fileSystemOptions(wanted, mode),
          kernelReadAhead: KERNEL_READ_AHEAD,
          ...(logFile === undefined ? {} : { logFile }),
          log,
        });
        if (logFile !== undefined) process.chdir("/");
        log.info({ snapshots, mountPoint, driver: options.fuseDriver }, "mounted");
        const images = live.imageNames.map((name) => join(mountPoint, name));
        if (signal.aborted || !(await tellParent({ kind: "ready", images }))) {
          await live.undo();
          throw signal.aborted
            ? signal.reason
            : new Failure("EINTR", "The command that mounts died.");
        }
        if (logFile === undefined) sayImages(images, log);
        await stayUntilEnd(live, signal, log);
      } finally {
        await service.api.close();
      }
    });
  } catch (error) {
    log.error((error as Error).message);
    throw error;
  }
}

/** What of the -o options is for our own file system. */
function fileSystemOptions(wanted: MountOptions, mode: MountPlan["mode"]): ImageDirectoryOptions {
  const { allowOther, readOnly, uid, gid, umask } = wanted;
  return {
    allowOther,
    readOnly: mode === "ro" || readOnly === true,
    ...(uid !== undefined && { uid }),
    ...(gid !== undefined && { gid }),
    ...(umask !== undefined && { umask }),
  };
}

/** Closing the service closes the disk cache too. Loads it only where it is wanted. */
async function withCacheFolder(
  service: Service,
  options: MountCommandOptions,
): Promise<{ service: Service; diskReading?: () => DiskReading }> {
  const { cacheDir, cacheDirSize, region, profile, endpointUrl } = options;
  // An empty variable in the environment is none.
  if (!cacheDir) return { service };
  const { openCachedService } = await import("../mount/cache-folder.js");
  const { api, reading } = openCachedService(
    service.api,
    {
      folder: cacheDir,
      bytes: cacheDirSize,
      ...(region !== undefined && { region }),
      ...(profile !== undefined && { profile }),
      ...(endpointUrl !== undefined && { endpointUrl }),
    },
    service.log,
  );
  return { service: { ...service, api }, ...(reading && { diskReading: reading }) };
}

/** In front the mount is what was asked for, and the words go with it. */
function sayImages(images: readonly string[], log: Logger): void {
  try {
    printResult(images, "The mount is there");
  } catch (error) {
    log.warn((error as Error).message);
  }
}

/** A signal unmounts; with files open it detaches the mount and serves them until they are closed. */
async function stayUntilEnd(live: LiveMount, signal: AbortSignal, log: Logger): Promise<void> {
  const onSignal = () => {
    log.info("a signal asks for the end: unmounting");
    live.end(false).catch((error: unknown) => {
      if (errnoOf(error) !== "EBUSY") return;
      log.warn("files are open: detached, going on until the last one is closed");
      live.end(true).catch(() => {});
    });
  };
  if (signal.aborted) onSignal();
  signal.addEventListener("abort", onSignal, { once: true });
  const outcome = await live.outcome;
  if (outcome.snapshotId !== undefined && backgroundLogFile() === undefined) {
    printResult([outcome.snapshotId], `The changes are snapshot ${outcome.snapshotId}`);
  }
  // The user asked for this end: what has been done is all there was to do.
  if (signal.aborted && !(signal.reason instanceof Interrupted)) throw signal.reason;
}
