/**
 * The volume of a mount that can be written: an overlay, kept in a session, over the parent snapshot
 * or over nothing. Finishing it commits the session and throws it away once the snapshot is made;
 * whatever goes wrong before that leaves the session as it is.
 */
import type { BlockCache } from "../cache/block-cache.js";
import type { DirectReads } from "../common/direct-reads.js";
import { Failure } from "../common/failure.js";
import { GIB } from "../common/sizes.js";
import { directReads } from "../device/direct-reads.js";
import type { SnapshotDevice } from "../device/snapshot-device.js";
import { ZeroDevice } from "../device/zero-device.js";
import type { EbsApi } from "../ebs/api.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { BackgroundUpload } from "../overlay/background-upload.js";
import { commit } from "../overlay/committer.js";
import { OverlayDevice } from "../overlay/overlay-device.js";
import { mayGoOn, type Session } from "../overlay/session.js";
import { Upload } from "../overlay/upload.js";
import type { CommitProgress, MountOutcome } from "./control-protocol.js";
import {
  openCache,
  openDevice,
  readingOf,
  type VolumeOptions,
  type VolumeService,
} from "./snapshot-volumes.js";
import type { CacheReading, Volumes } from "./volumes.js";

export interface SessionVolumeOptions extends VolumeOptions {
  /** Wait until the new snapshot is completed. */
  readonly wait: boolean;
  /** The session was made for this mount: if the mount never comes to be used, it is litter. */
  readonly isNew?: boolean;
  /** Most changed data to keep, bytes. */
  readonly overlayLimit?: number;
  /** Take discards as holes; refused unless set. */
  readonly takesDiscards?: boolean;
  /** Upload quiet blocks while mounted. */
  readonly writeback?: { readonly concurrency: number; readonly quietMs: number };
}

/** How often changes are flushed without anybody asking, ms. */
const FLUSH_EVERY = 5000;

/** A parent that is opened before there is a session for it: its size decides the session's. */
export interface OpenedParent {
  readonly cache: BlockCache;
  readonly device: SnapshotDevice;
}

/** One list call. @throws EbsError */
export async function openParent(
  service: VolumeService,
  parent: SnapshotId,
  options: VolumeOptions,
): Promise<OpenedParent> {
  const cache = openCache(service, options);
  try {
    return { cache, device: await openDevice(service, cache, parent, options) };
  } catch (error) {
    cache.close();
    throw error;
  }
}

export async function closeParent({ cache, device }: OpenedParent): Promise<void> {
  await device.close();
  cache.close();
}

/**
 * GiB of a volume that continues `parent`, at least `wanted` where that is given.
 * @throws Failure EINVAL where that is smaller than the parent.
 */
export function sizeAbove({ device }: OpenedParent, wanted: number | undefined): number {
  const parentGiB = device.size / GIB;
  if (wanted === undefined || wanted >= parentGiB) return wanted ?? parentGiB;
  throw new Failure(
    "EINVAL",
    `${device.snapshotId} has ${parentGiB} GiB: a volume can grow (--size), but not shrink.`,
  );
}

/**
 * Takes over the session, and the opened parent: closing the volumes closes both.
 * @throws Failure; then the session is still open, the parent is not.
 */
export async function openSessionVolume(
  service: VolumeService,
  session: Session,
  options: SessionVolumeOptions,
  parent?: OpenedParent,
): Promise<Volumes> {
  const { parentSnapshotId, kind } = session.record;
  const cache = parent?.cache ?? openCache(service, options);
  let below = parent?.device;
  let overlay: OverlayDevice | undefined;
  try {
    if (parentSnapshotId !== undefined) {
      below ??= await openDevice(service, cache, parentSnapshotId, options);
    }
    overlay = await OverlayDevice.open(session, below ?? new ZeroDevice(session.volumeBytes), {
      ...(options.overlayLimit === undefined ? {} : { limitBytes: options.overlayLimit }),
      ...(options.takesDiscards === undefined ? {} : { takesDiscards: options.takesDiscards }),
      flushEveryMs: FLUSH_EVERY,
    });
    const upload =
      options.writeback !== undefined && kind === "rw"
        ? await Upload.open(session, overlay, service.api)
        : undefined;
    return new SessionVolume({ api: service.api, session, options, cache, below, overlay, upload });
  } catch (error) {
    // The overlay closes what is below it.
    await (overlay ?? below)?.close();
    cache.close();
    throw error;
  }
}

interface Parts {
  readonly api: EbsApi;
  readonly session: Session;
  readonly options: SessionVolumeOptions;
  readonly cache: BlockCache;
  readonly below: SnapshotDevice | undefined;
  readonly overlay: OverlayDevice;
  readonly upload: Upload | undefined;
}

class SessionVolume implements Volumes {
  readonly list: Volumes["list"];
  readonly session: string;
  readonly #parts: Parts;
  readonly #background: BackgroundUpload | undefined;
  /** What becomes of the session at the end. */
  #end: "kept" | "committed" | "thrown away" = "kept";

  constructor(parts: Parts) {
    const { session, overlay, upload, options } = parts;
    this.#parts = parts;
    this.session = session.id;
    this.list = [{ name: `${session.record.parentSnapshotId ?? "volume"}.img`, device: overlay }];
    if (upload !== undefined) {
      this.#background = new BackgroundUpload(upload, {
        ...options.writeback,
        log: (level, message) => options.log[level](message),
      });
    }
  }

  directReads(inodes: readonly number[]): DirectReads | undefined {
    const { below, overlay } = this.#parts;
    if (below === undefined) return undefined;
    const dirtyFilter = overlay.filter.memory;
    return directReads([{ inode: inodes[0] as number, device: below, dirtyFilter }]);
  }

  cacheReading(): CacheReading {
    return readingOf(this.#parts.cache);
  }

  dirtyBytes(): number {
    return this.#parts.overlay.dirtyBytes;
  }

  pendingSnapshot(): string | undefined {
    return this.#parts.session.record.upload?.snapshotId;
  }

  async finish(
    onProgress: (progress: CommitProgress) => void,
    signal: AbortSignal,
  ): Promise<MountOutcome> {
    const { api, session, options, overlay, upload } = this.#parts;
    await this.#background?.stop();
    if (session.record.kind === "scratch") {
      this.#end = "thrown away";
      return { message: "The changes were scratch and are thrown away." };
    }
    try {
      const { snapshotId, isPending } = await commit(session, overlay, api, {
        concurrency: options.concurrency,
        wait: options.wait,
        signal,
        onProgress,
        ...(upload === undefined ? {} : { upload }),
      });
      if (isPending && snapshotId !== undefined) return { snapshotId, message: notYet(session) };
      this.#end = "committed";
      return snapshotId === undefined
        ? { message: "Nothing was changed: there is no new snapshot." }
        : { snapshotId, message: `The changes are snapshot ${snapshotId}.${leftBehind(session)}` };
    } catch (error) {
      throw new Failure(
        error instanceof Failure ? error.errno : "EIO",
        `The changes are not a snapshot yet: ${(error as Error).message} They are kept: ${howToGoOn(session)}.`,
        { cause: error },
      );
    }
  }

  async close(): Promise<void> {
    await this.#background?.stop();
    try {
      // It closes what is below it as well.
      await this.#parts.overlay.close();
    } finally {
      this.#parts.cache.close();
      await this.#part();
    }
  }

  /** Keeps the session, or what is worth keeping of it. */
  async #part(): Promise<void> {
    const { session, options, overlay } = this.#parts;
    try {
      if (this.#end === "committed") await session.retire();
      else if (this.#end === "thrown away" || (options.isNew && overlay.isUntouched))
        await session.remove();
    } finally {
      await session.close();
    }
  }
}

function howToGoOn({ id, record }: Session): string {
  const resume = mayGoOn(record) ? `, or go on with \`ebsmount mount --resume ${id}\`` : "";
  return `finish with \`ebsmount commit ${id}\`${resume}`;
}

function notYet({ id, record }: Session): string {
  const { snapshotId } = record.upload ?? {};
  return `The changes are snapshot ${snapshotId}, which is not completed yet; they are kept here as well until \`ebsmount commit ${id}\` has seen that it is.`;
}

/** Unfinished snapshots of attempts that the service lost. */
function leftBehind({ record }: Session): string {
  const { abandoned } = record;
  if (abandoned.length === 0) return "";
  return ` Unfinished ones from before end by themselves: ${abandoned.join(", ")}.`;
}
