/**
 * The six EBS direct operations as this program uses them: numbers for block indexes, bytes for
 * blocks, one kind of error (errors.ts), every answer checked. Retries, deadlines, metering and the
 * SDK itself stay behind it. Source of all limits: EBS direct APIs reference, version 2019-11-02.
 */
import type { SnapshotId } from "./snapshot-id.js";

/** One page of ListSnapshotBlocks. Indexes ascend strictly; it may be empty and yet not the last. */
export interface BlockPage {
  readonly blockIndexes: Uint32Array;
  /** tokens[i] belongs to blockIndexes[i]. */
  readonly blockTokens: readonly string[];
  /** When the block tokens stop being valid, ms since the epoch. */
  readonly expiresAt: number;
  readonly volumeSizeGiB: number;
  /** undefined ends the list; nothing else does. */
  readonly nextToken: string | undefined;
}

/** One page of ListChangedBlocks. A token is undefined where that snapshot lacks the block. */
export interface ChangedBlockPage {
  readonly blockIndexes: Uint32Array;
  readonly firstTokens: readonly (string | undefined)[];
  readonly secondTokens: readonly (string | undefined)[];
  readonly expiresAt: number;
  readonly volumeSizeGiB: number;
  readonly nextToken: string | undefined;
}

export interface ListOptions {
  /** First block index wanted; ignored by the service when pageToken is given. */
  readonly startingBlockIndex?: number;
  /** 100 to 10000. */
  readonly maxResults?: number;
  readonly pageToken?: string;
  readonly signal?: AbortSignal;
}

export interface StartSnapshotOptions {
  /** GiB, 1 to 65536; not below the parent's. */
  readonly volumeSizeGiB: number;
  readonly parentSnapshotId?: SnapshotId;
  readonly description?: string;
  readonly tags?: readonly { readonly key: string; readonly value: string }[];
  /** Idempotency: the same token with the same options gives the same snapshot. Required here. */
  readonly clientToken: string;
  readonly encrypted?: boolean;
  readonly kmsKeyArn?: string;
  /** Minutes without a put or complete until the pending snapshot fails: 10 to 4320. */
  readonly timeoutMinutes?: number;
  readonly signal?: AbortSignal;
}

export interface StartedSnapshot {
  readonly snapshotId: SnapshotId;
  readonly status: SnapshotStatus;
  readonly volumeSizeGiB: number;
  readonly parentSnapshotId: SnapshotId | undefined;
  /** How long ago the service says that it was started, ms; 0 where it does not say. */
  readonly startedAgoMs: number;
  /** The key that it is encrypted with; undefined where the service names none. */
  readonly kmsKeyArn: string | undefined;
}

export type SnapshotStatus = "pending" | "completed" | "error";

export interface EbsApi {
  /** Blocks that are worth getting at a time now: what the line carries. Absent: as many as one likes. */
  readonly getsAtATime?: number;
  listSnapshotBlocks(snapshotId: SnapshotId, options?: ListOptions): Promise<BlockPage>;
  listChangedBlocks(
    firstSnapshotId: SnapshotId | undefined,
    secondSnapshotId: SnapshotId,
    options?: ListOptions,
  ): Promise<ChangedBlockPage>;
  /**
   * Fills `target` (exactly one block) with the block, its length and SHA-256 verified. Until it
   * resolves, target's content is undefined.
   * @param digest where given, takes the block's raw SHA-256, 32 bytes.
   */
  getSnapshotBlock(
    snapshotId: SnapshotId,
    blockIndex: number,
    blockToken: string,
    target: Uint8Array,
    signal?: AbortSignal,
    digest?: Uint8Array,
  ): Promise<void>;
  startSnapshot(options: StartSnapshotOptions): Promise<StartedSnapshot>;
  /**
   * Puts one block (exactly BLOCK_SIZE bytes, which must not change until it settles).
   * @returns the block's raw SHA-256 digest, 32 bytes.
   */
  putSnapshotBlock(
    snapshotId: SnapshotId,
    blockIndex: number,
    data: Uint8Array,
    signal?: AbortSignal,
  ): Promise<Uint8Array>;
  /** @param checksum the LINEAR aggregate: Base64 SHA-256 over the blocks' raw digests in order. */
  completeSnapshot(
    snapshotId: SnapshotId,
    changedBlocksCount: number,
    checksum?: string,
    signal?: AbortSignal,
  ): Promise<SnapshotStatus>;
  close(): Promise<void>;
}
