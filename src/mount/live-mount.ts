/**
 * One mount from start to end, inside its own process: volumes → file system → driver, then the
 * record and the control socket by which other commands find it. However the mount ends (unmount
 * command, umount, fusermount3 -u, a signal), the driver's `ended` is the one place where the end is
 * seen, and the volumes are finished from there. Whoever waits for the outcome gets the same one.
 */

import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { DiskReading } from "../cache/disk-cache.js";
import type { Logger } from "../common/log.js";
import { sharedAbort } from "../common/shared-abort.js";
import type { BudgetLimits } from "../ebs/budget.js";
import type { Meter } from "../ebs/meter.js";
import { ROOT_INODE } from "../filesystem/filesystem.js";
import { createFileSystem, type ImageDirectoryOptions } from "../filesystem/image-directory.js";
import type { FuseDriver, Mounted } from "../fuse/driver.js";
import { transportDescription } from "../http/create.js";
import type { CommitProgress, MountOutcome } from "./control-protocol.js";
import { type ControlServer, listenForControl } from "./control-server.js";
import { removeOldRecords } from "./find-mount.js";
import { type MountRecord, removeRecord, writeRecord } from "./mount-record.js";
import type { MountStatus } from "./mount-status.js";
import { startTicks } from "./process-identity.js";
import type { StateFolder } from "./state-folder.js";
import type { Volumes } from "./volumes.js";

export interface LiveMountOptions {
  readonly volumes: Volumes;
  readonly meter: Meter;
  /** What all requests together may cost; absent where they may cost anything. */
  readonly limits?: BudgetLimits;
  /** Of the disk cache, where there is one. */
  readonly diskReading?: () => DiskReading;
  readonly driver: FuseDriver;
  readonly folder: StateFolder;
  /** Absolute. */
  readonly mountPoint: string;
  readonly snapshots: readonly string[];
  readonly mode: MountRecord["mode"];
  /** -o options as the user gave them. */
  readonly mountOptions: readonly string[];
  readonly fileSystem: ImageDirectoryOptions;
  /** Bytes that the kernel may read ahead of a sequential reader. */
  readonly kernelReadAhead: number;
  readonly logFile?: string;
  readonly log: Logger;
}

export class LiveMount {
  /** Settles when the mount is gone and its changes are a snapshot, or could not be made one. */
  readonly outcome: Promise<MountOutcome>;
  readonly #options: LiveMountOptions;
  readonly #stopping = sharedAbort();
  readonly #watchers = new Set<(progress: CommitProgress) => void>();
  #mounted!: Mounted;
  #control: ControlServer | undefined;
  #record: MountRecord | undefined;
  #commit: CommitProgress | undefined;
  #phase: MountStatus["phase"] = "mounted";

  /**
   * Resolves when the mount answers. The volumes are its own from the call on: it closes them at its end.
   * @throws Failure; then nothing is left behind.
   */
  static async start(options: LiveMountOptions): Promise<LiveMount> {
    let mounted: Mounted;
    try {
      mounted = await mountVolumes(options);
    } catch (error) {
      await options.volumes.close();
      throw error;
    }
    const live = new LiveMount(options, mounted);
    try {
      await live.#announce();
    } catch (error) {
      await live.undo();
      throw error;
    }
    return live;
  }

  private constructor(options: LiveMountOptions, mounted: Mounted) {
    this.#options = options;
    this.#mounted = mounted;
    this.outcome = this.#runToEnd();
    // Someone always waits for it in the end; until then a failure is not "unhandled".
    this.outcome.catch(() => {});
  }

  /**
   * Takes the mount away and waits for the outcome.
   * @throws Failure EBUSY while files are open, unless lazy; what finishing failed with.
   */
  async end(lazy: boolean, onProgress?: (progress: CommitProgress) => void): Promise<MountOutcome> {
    if (onProgress !== undefined) this.#watchers.add(onProgress);
    if (this.#phase === "mounted") await this.#mounted.unmount(lazy);
    return this.outcome;
  }

  /** Ends a mount that nobody was told of, as if it had never been: nothing is made of its changes. */
  async undo(): Promise<void> {
    this.#stopping.abort();
    await this.end(true).catch(() => {});
  }

  /** Of the image files, without their folder. */
  get imageNames(): string[] {
    return this.#options.volumes.list.map(({ name }) => name);
  }

  status(): MountStatus {
    const { volumes, meter, limits = {}, diskReading } = this.#options;
    return {
      phase: this.#phase,
      volumes: volumes.list.map(({ name, device }) => ({
        name,
        size: device.size,
        written: device.allocatedBytes(),
      })),
      ...volumes.cacheReading(),
      ...(diskReading && { disk: diskReading() }),
      dirty: volumes.dirtyBytes(),
      becoming: volumes.pendingSnapshot(),
      commit: this.#commit,
      service: meter.read(),
      limits,
      transport: transportDescription(),
      memory: process.memoryUsage.rss(),
    };
  }

  async #announce(): Promise<void> {
    const { folder, mountPoint, snapshots, driver, mode, volumes, logFile } = this.#options;
    removeOldRecords(folder);
    const id = randomBytes(6).toString("hex");
    this.#control = await listenForControl(join(folder.mounts, `${id}.sock`), {
      status: async () => this.status(),
      unmount: (lazy, onProgress) => this.end(lazy, onProgress),
    });
    this.#record = {
      id,
      pid: process.pid,
      startTicks: startTicks(process.pid) ?? "",
      mountPoint,
      snapshots,
      driver: driver.name,
      mode,
      ...(volumes.session === undefined ? {} : { session: volumes.session }),
      controlSocket: this.#control.path,
      ...(logFile === undefined ? {} : { logFile }),
      startedAt: new Date().toISOString(),
    };
    writeRecord(folder, this.#record);
  }

  async #runToEnd(): Promise<MountOutcome> {
    const { volumes, log, folder, mountPoint } = this.#options;
    try {
      await this.#mounted.ended;
      log.info(`${mountPoint} is unmounted`);
      this.#phase = "committing";
      const outcome = await volumes.finish((progress) => {
        this.#commit = progress;
        for (const watcher of this.#watchers) watcher(progress);
      }, this.#stopping.signal);
      if (outcome.message !== undefined) log.info(outcome.message);
      return outcome;
    } catch (error) {
      log.error((error as Error).message);
      throw error;
    } finally {
      // What became of the changes is settled: a failure here must not be told in its place.
      await volumes.close().catch((error: unknown) => {
        log.error(`Closing the mount's volumes failed: ${(error as Error).message}`);
      });
      this.#control?.close();
      if (this.#record !== undefined) removeRecord(folder, this.#record);
    }
  }
}

async function mountVolumes(options: LiveMountOptions): Promise<Mounted> {
  const { volumes, mountPoint, snapshots, driver, log } = options;
  const fileSystem = createFileSystem(volumes.list, options.fileSystem);
  return driver.mount({
    mountPoint,
    source: snapshots.join(",") || "blank",
    fileSystem,
    options: options.mountOptions,
    readAheadBytes: options.kernelReadAhead,
    directReads: volumes.directReads(
      volumes.list.map(({ name }) => fileSystem.lookup(ROOT_INODE, name).inode),
    ),
    log: (level, message) => log[level](message),
  });
}
