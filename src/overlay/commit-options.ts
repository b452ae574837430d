/** What a commit is asked for, and what comes of it. */
import type { SnapshotId } from "../ebs/snapshot-id.js";
import type { Upload } from "./upload.js";

export interface CommitProgress {
  readonly blocksDone: number;
  /** Grows while discarded ranges are looked through for blocks that the base has. */
  readonly blocksTotal: number;
  /** Bytes put in this run. */
  readonly bytes: number;
}

export interface CommitOptions {
  /** Blocks at a time, 512 KiB of memory each; 64 unless told otherwise. */
  readonly concurrency?: number;
  /** Wait until the snapshot can be read; true unless told otherwise. */
  readonly wait?: boolean;
  /** Longest wait for that, ms; an hour unless told otherwise. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: CommitProgress) => void;
  /** Of the background upload, where there was one: what it settled is not looked at again. */
  readonly upload?: Upload;
}

export interface CommitResult {
  /** undefined where nothing was written, or nothing that differs from the parent. */
  readonly snapshotId: SnapshotId | undefined;
  /**
   * The service has taken the snapshot and was not waited for: until it is completed nothing is sure,
   * and the session stays as it is.
   */
  readonly isPending?: boolean;
}
