/**
 * From the command line to a running mount: settles what is wanted, goes into the background unless
 * asked to stay, composes the layers, and then waits for the end: an unmount, or a signal.
 */
import { totalmem } from "node:os";
import { join, resolve } from "node:path";
import type { DiskReading } from "../cache/disk-cache.js";
import { errnoOf, Failure } from "../common/failure.js";
import { type Logger, openLog } from "../common/log.js";
import { formatSize } from "../common/sizes.js";
import { parseSnapshotId, type SnapshotId } from "../ebs/snapshot-id.js";
import { createFuseDriver } from "../fuse/create-driver.js";
import { parseMountOptions } from "../fuse/mount-options.js";
import { checkMountPoint } from "../fuse/mount-point.js";
import { backgroundLogFile, startInBackground, tellParent } from "../mount/background.js";
import { boundHeapGrowth } from "../mount/heap.js";
import { LiveMount } from "../mount/live-mount.js";
import { openSnapshotVolumes } from "../mount/snapshot-volumes.js";
import { newLogFile, openStateFolder } from "../mount/state-folder.js";
import type { Volumes } from "../mount/volumes.js";
import { Interrupted, interruptible, UsageFailure } from "./errors.js";
import type { ServiceOptions } from "./options.js";
import { printResult } from "./result.js";
import { openService, type Service } from "./service.js";

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

/** Bytes that the kernel reads ahead: enough for its own batching, ours looks further. */
const KERNEL_READ_AHEAD = 1024 * 1024;

/** @param places SNAPSHOT... MOUNTPOINT, as given. */
export async function mountSnapshots(
  places: readonly string[],
  options: MountCommandOptions,
): Promise<void> {
  const mountPoint = places.at(-1);
  const snapshots = places.slice(0, -1).map(parseSnapshotId);
  if (mountPoint === undefined || snapshots.length === 0) {
    throw new UsageFailure("Say what to mount and where: ebsmount mount SNAPSHOT... MOUNTPOINT.");
  }
  if (new Set(snapshots).size < snapshots.length) {
    throw new UsageFailure("A snapshot is named twice; name each once.");
  }
  await runMount(mountPoint, snapshots, "ro", options, (service, log) =>
    openSnapshotVolumes(service, snapshots, {
      cacheBytes: options.cacheSize,
      readAheadBytes: options.readahead,
      concurrency: options.concurrency,
      ioTimeoutMs: options.ioTimeout,
      log,
    }),
  );
}

/** @param mountPoint absolute, without symbolic links. */
export type OpenVolumes = (service: Service, log: Logger, mountPoint: string) => Promise<Volumes>;

/** Mounts, says so, and stays until the end. In the background only the child comes back here. */
export async function runMount(
  place: string,
  snapshots: readonly SnapshotId[],
  mode: "ro" | "rw" | "scratch",
  options: MountCommandOptions,
  openVolumes: OpenVolumes,
): Promise<void> {
  checkCacheSize(options.cacheSize);
  const mountPoint = await checkMountPoint(resolve(place));
  const folder = openStateFolder(options.stateDir);
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
  boundHeapGrowth();
  const log = openLog(options.logLevel, logFile);
  try {
    await interruptible(async (signal) => {
      const wanted = parseMountOptions(options.o);
      const driver = await createFuseDriver(options.fuseDriver);
      const bare = await openService(options, log);
      const { service, diskReading } = await withCacheFolder(bare, options);
      const volumes = await openVolumes(service, log, mountPoint);
      const live = await LiveMount.start({
        volumes,
        meter: service.meter,
        ...(diskReading && { diskReading }),
        driver,
        folder,
        mountPoint,
        snapshots,
        mode,
        mountOptions: options.o,
        fileSystem: {
          allowOther: wanted.allowOther,
          readOnly: mode === "ro" || wanted.readOnly === true,
          ...(wanted.uid === undefined ? {} : { uid: wanted.uid }),
          ...(wanted.gid === undefined ? {} : { gid: wanted.gid }),
          ...(wanted.umask === undefined ? {} : { umask: wanted.umask }),
        },
        kernelReadAhead: KERNEL_READ_AHEAD,
        ...(logFile === undefined ? {} : { logFile }),
        log,
      }).catch(async (error: unknown) => {
        await volumes.close();
        throw error;
      });
      if (logFile !== undefined) process.chdir("/");
      log.info({ snapshots, mountPoint, driver: options.fuseDriver }, "mounted");
      const images = volumes.list.map(({ name }) => join(mountPoint, name));
      // Stopped before anybody was told of it: as if it had never been.
      if (signal.aborted || !(await tellParent({ kind: "ready", images }))) {
        live.stopFinishing();
        await live.end(true).catch(() => {});
        throw signal.aborted
          ? signal.reason
          : new Failure("EINTR", "The command that mounts died.");
      }
      if (logFile === undefined) sayImages(images, log);
      await stayUntilEnd(live, signal, log);
      await service.api.close();
    });
  } catch (error) {
    log.error((error as Error).message);
    throw error;
  }
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
