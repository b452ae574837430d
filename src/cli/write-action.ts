/**
 * Mounts that can be written: of a snapshot, of an interrupted session, and of a blank volume. What only
 * the mount's own process needs is loaded only there.
 */
import { GIB } from "../common/sizes.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import type { SessionVolumeOptions } from "../mount/session-volume.js";
import { openStateFolder } from "../mount/state-folder.js";
import type { Session } from "../overlay/session.js";
import { UsageFailure } from "./errors.js";
import { type MountCommandOptions, type OpenVolumes, runMount } from "./mount-action.js";
import { snapshotArgument } from "./options.js";
import { withSessionPlace } from "./session-options.js";
import {
  checkSnapshotOptions,
  type SnapshotOptions,
  snapshotSettings,
} from "./snapshot-options.js";

export interface WriteCommandOptions extends MountCommandOptions, SnapshotOptions {
  readonly rw?: boolean;
  readonly scratch?: boolean;
  readonly resume?: string;
  /** Bytes. */
  readonly size?: number;
  readonly overlayLimit: number;
  readonly discard: "refuse" | "holes";
  readonly writeback: boolean;
  readonly writebackConcurrency: number;
  /** Milliseconds. */
  readonly writebackDelay: number;
}

/** `mount --rw`, `--scratch` and `--resume`. @param places as given. */
export async function mountForWriting(
  places: readonly string[],
  options: WriteCommandOptions,
): Promise<void> {
  if (options.resume !== undefined) {
    const [mountPoint, ...more] = places;
    if (mountPoint === undefined || more.length > 0) {
      throw new UsageFailure(
        "A session knows its snapshot: ebsmount mount --resume SESSION MOUNTPOINT.",
      );
    }
    return resume(options.resume, mountPoint, options);
  }
  const [snapshot, mountPoint, ...more] = places;
  if (snapshot === undefined || mountPoint === undefined || more.length > 0) {
    throw new UsageFailure(
      "One snapshot is mounted for writing at a time: ebsmount mount --rw SNAPSHOT MOUNTPOINT.",
    );
  }
  const parent = snapshotArgument(snapshot);
  checkSnapshotOptions(options, true);
  await mountNew(parent, mountPoint, options.scratch ? "scratch" : "rw", options);
}

/** `create`: a volume with nothing below it. */
export async function createBlank(mountPoint: string, options: WriteCommandOptions): Promise<void> {
  if (options.size === undefined) {
    throw new UsageFailure("Say how large the volume is: ebsmount create --size 8GiB MOUNTPOINT.");
  }
  checkSnapshotOptions(options, false);
  await mountNew(undefined, mountPoint, "rw", options);
}

async function mountNew(
  parent: SnapshotId | undefined,
  place: string,
  kind: "rw" | "scratch",
  options: WriteCommandOptions,
): Promise<void> {
  const open: OpenVolumes = async (service, log, mountPoint) => {
    const [{ closeParent, openParent, openSessionVolume, sizeAbove }, { createSession }] =
      await Promise.all([import("../mount/session-volume.js"), import("../overlay/session.js")]);
    const { settledOptions } = await import("../ebs/client.js");
    const wanted = options.size === undefined ? undefined : Math.ceil(options.size / GIB);
    const volume = { ...volumeOptions(options, kind, log), isNew: true };
    const opened = parent && (await openParent(service, parent, volume));
    let session: Session;
    try {
      session = await createSession(openStateFolder(options.stateDir).path, {
        kind,
        volumeSizeGiB: opened === undefined ? (wanted ?? 0) : sizeAbove(opened, wanted),
        mountPoint,
        ...(parent === undefined ? {} : { parentSnapshotId: parent }),
        commit: snapshotSettings(options),
        context: await settledOptions(options),
      });
    } catch (error) {
      if (opened !== undefined) await closeParent(opened);
      throw error;
    }
    try {
      return await openSessionVolume(service, session, volume, opened);
    } catch (error) {
      // Nothing was written: an empty session would only be litter.
      await session.remove();
      throw error;
    }
  };
  await runMount(place, parent === undefined ? [] : [parent], kind, options, open);
}

async function resume(id: string, place: string, options: WriteCommandOptions): Promise<void> {
  const { openSession } = await import("../overlay/session.js");
  const { path } = openStateFolder(options.stateDir);
  // Only a look, for what must be known before; the process that mounts takes the lock for good.
  const looked = await openSession(path, id, true);
  await looked.close();
  const { record } = looked;
  const parents = record.parentSnapshotId === undefined ? [] : [record.parentSnapshotId];
  const isProven = options.endpointUrl === undefined;
  const merged = { ...(await withSessionPlace(record.context, options)), isProven };
  await runMount(place, parents, record.kind, merged, async (service, log, mountPoint) => {
    const [{ openSessionVolume }, { settlePlace }] = await Promise.all([
      import("../mount/session-volume.js"),
      import("./session-place.js"),
    ]);
    const session = await openSession(path, id, true);
    try {
      await settlePlace(session, service.api, merged);
      await session.update({ mountPoint });
      return await openSessionVolume(service, session, volumeOptions(options, record.kind, log));
    } catch (error) {
      await session.close();
      throw error;
    }
  });
}

function volumeOptions(
  options: WriteCommandOptions,
  kind: "rw" | "scratch",
  log: SessionVolumeOptions["log"],
): SessionVolumeOptions {
  return {
    cacheBytes: options.cacheSize,
    readAheadBytes: options.readahead,
    concurrency: options.concurrency,
    ioTimeoutMs: options.ioTimeout,
    log,
    wait: options.wait,
    overlayLimit: options.overlayLimit,
    // A scratch mount becomes no volume, where a hole could read as anything but zeros.
    takesDiscards: kind === "scratch" || options.discard === "holes",
    ...(options.writeback
      ? {
          writeback: {
            concurrency: options.writebackConcurrency,
            quietMs: options.writebackDelay,
          },
        }
      : {}),
  };
}
