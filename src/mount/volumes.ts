/**
 * The devices of one mount and what becomes of them at its end. A read-only mount has one device a
 * snapshot and nothing to finish; a mount with changes has one device over an overlay, and finishing
 * it makes the new snapshot (session-volume.ts).
 */
import type { DirectReads } from "../common/direct-reads.js";
import type { BlockDevice } from "../device/block-device.js";
import type { CommitProgress, MountOutcome } from "./control-protocol.js";

export interface Volume {
  /** The image file's name. */
  readonly name: string;
  readonly device: BlockDevice;
}

export interface CacheReading {
  readonly cached: number;
  readonly cacheSize: number;
  readonly hits: number;
  readonly misses: number;
}

export interface Volumes {
  readonly list: readonly Volume[];
  readonly session?: string;
  /** @param inodes of the files that show the volumes, in their order. */
  directReads(inodes: readonly number[]): DirectReads | undefined;
  cacheReading(): CacheReading;
  /** Bytes changed and not in a completed snapshot. */
  dirtyBytes(): number | undefined;
  /** The snapshot that the changes are being put into, once there is one. */
  pendingSnapshot(): string | undefined;
  /**
   * Called once when nobody can read or write any more.
   * @throws Failure where the changes could not be made a snapshot; they are kept in the session.
   */
  finish(
    onProgress: (progress: CommitProgress) => void,
    signal: AbortSignal,
  ): Promise<MountOutcome>;
  /** Gives everything back; changes not finished stay in the session. */
  close(): Promise<void>;
}
