/** What the pool and its worker threads say to each other: numbers, ids, and shared memory. */
import type { ErrorDetails } from "./errors.js";
import type { SdkEbsOptions } from "./sdk-ebs.js";
import type { SnapshotId } from "./snapshot-id.js";

/** How a worker makes its client; survives structured clone. */
export interface WorkerSetup {
  readonly options: Omit<SdkEbsOptions, "meter" | "log">;
  readonly meter: SharedArrayBuffer;
}

/** One block to get into, or put from, BLOCK_SIZE bytes of `buffer` at `offset`. */
export interface BlockJob {
  readonly kind: "get" | "put";
  readonly id: number;
  readonly snapshotId: SnapshotId;
  readonly blockIndex: number;
  /** Of a get. */
  readonly blockToken: string;
  /** The block's digest is wanted back; of a put it always is. */
  readonly withDigest: boolean;
  readonly buffer: SharedArrayBuffer;
  readonly offset: number;
}

export type ToWorker = BlockJob | { readonly kind: "abort"; readonly id: number };

export type FromWorker =
  | { readonly kind: "ready" }
  /** After it the worker touches the job's memory no more. `digest` where it was wanted. */
  | { readonly kind: "done"; readonly id: number; readonly digest?: Uint8Array }
  | { readonly kind: "failed"; readonly id: number; readonly error: ErrorDetails }
  | { readonly kind: "log"; readonly level: "debug" | "warn"; readonly message: string };
