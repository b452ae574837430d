import { Failure } from "../common/failure.js";

/** A snapshot's id, known to be well formed. */
export type SnapshotId = `snap-${string}`;

/**
 * @throws Failure EINVAL where the text is no snapshot id.
 * Source of the pattern: EBS direct APIs reference, `^snap-[0-9a-f]+$`, at most 64 characters.
 */
export function parseSnapshotId(text: string): SnapshotId {
  if (text.length <= 64 && /^snap-[0-9a-f]+$/.test(text)) return text as SnapshotId;
  throw new Failure(
    "EINVAL",
    `"${text}" is not a snapshot id: it looks like snap-0123456789abcdef0 (lower-case hexadecimal).`,
  );
}
