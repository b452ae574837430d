/** How a session that has ended is told of, by `status` and by `sessions --all`. */
import type { SessionRecord } from "../overlay/session-record.js";

export function finishedToText(record: SessionRecord): string {
  const { id, mountPoint, parentSnapshotId, resultSnapshotId } = record;
  const became =
    resultSnapshotId === undefined
      ? "nothing was changed, no snapshot"
      : `became ${resultSnapshotId}`;
  return [
    `${id}  finished`,
    `  ${parentSnapshotId ?? "blank"} at ${mountPoint}: ${became}`,
    `  since ${new Date(record.createdAt).toISOString()}, until ${endOf(record)}`,
  ].join("\n");
}

export function finishedToJson(record: SessionRecord): object {
  const { id, kind, state, mountPoint, parentSnapshotId, resultSnapshotId, volumeSizeGiB } = record;
  return {
    id,
    inUse: false,
    kind,
    state,
    parentSnapshotId,
    resultSnapshotId,
    volumeSizeGiB,
    mountPoint,
    createdAt: new Date(record.createdAt).toISOString(),
    finishedAt: endOf(record),
  };
}

function endOf({ updatedAt }: SessionRecord): string {
  return new Date(updatedAt).toISOString();
}
