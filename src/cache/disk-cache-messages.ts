/** What the main thread and the disk cache's worker say to each other. */
import type { SnapshotId } from "../ebs/snapshot-id.js";

export interface DiskWorkerSetup {
  /** Absolute, checked by openCacheFolder. */
  readonly folder: string;
  /** Most that the files may take, bytes. */
  readonly bytes: number;
  /** Staging places, a block each. */
  readonly staging: SharedArrayBuffer;
}

/** Every request is answered once, in any order. */
export type ToDiskWorker =
  /** Read the first key's block into a place; where it is not there, say which others are held. */
  | {
      readonly kind: "read";
      readonly id: number;
      readonly place: number;
      readonly keys: readonly Uint8Array[];
    }
  | {
      readonly kind: "write";
      readonly id: number;
      readonly place: number;
      readonly key: Uint8Array;
    }
  | {
      readonly kind: "remember";
      readonly id: number;
      readonly namespace: string;
      readonly snapshotId: SnapshotId;
      readonly most: number;
    }
  | { readonly kind: "close" };

export type FromDiskWorker =
  /** held: positions in `keys` of those that are said to be here; empty where the block was read. */
  | {
      readonly kind: "read";
      readonly id: number;
      readonly found: boolean;
      readonly held: readonly number[];
    }
  | { readonly kind: "written"; readonly id: number; readonly isKept: boolean }
  | {
      readonly kind: "remembered";
      readonly id: number;
      readonly others: readonly SnapshotId[];
    }
  | {
      readonly kind: "trouble";
      readonly what: "off" | "read-only" | "damaged";
      readonly sentence: string;
    };
