/**
 * What `status` and `unmount` say to a mount's process over its control socket: one JSON object a
 * line. The caller sends one request; the process answers with any number of `progress` lines and
 * ends with one `done` or `failed`. The socket lies in a folder that only its user can enter, which
 * is all the protection there is and all that is needed.
 */
import { StringDecoder } from "node:string_decoder";
import type { ErrnoName } from "../common/failure.js";

export type ControlRequest =
  | { readonly command: "status" }
  | { readonly command: "unmount"; readonly lazy: boolean };

/** How far the commit is. */
export interface CommitProgress {
  readonly blocksDone: number;
  readonly blocksTotal: number;
}

/** What became of the changes when a mount ended. */
export interface MountOutcome {
  /** The new snapshot; absent where nothing was written, or the mount was not read-write. */
  readonly snapshotId?: string;
  /** A sentence for the user about the changes; absent for a read-only mount. */
  readonly message?: string;
}

export type ControlAnswer =
  | { readonly kind: "progress"; readonly progress: CommitProgress }
  | { readonly kind: "done"; readonly result: unknown }
  | { readonly kind: "failed"; readonly errno: ErrnoName; readonly message: string };

/** Longest line accepted, bytes: a status of many snapshots is some KiB. */
const MAX_LINE = 1024 * 1024;

/** Splits a byte stream into JSON lines. @throws where a line is too long or is not JSON. */
export function lineReader(onLine: (value: unknown) => void): (chunk: Buffer) => void {
  const decoder = new StringDecoder("utf8");
  let pending = "";
  return (chunk) => {
    pending += decoder.write(chunk);
    for (let end = pending.indexOf("\n"); end >= 0; end = pending.indexOf("\n")) {
      const line = pending.slice(0, end);
      pending = pending.slice(end + 1);
      onLine(JSON.parse(line));
    }
    if (pending.length > MAX_LINE) throw new Error("a control message is too long");
  };
}
