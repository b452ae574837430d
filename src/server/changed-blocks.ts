/**
 * What differs between two snapshots of one lineage. Only blocks that some layer of either stores
 * can differ (a synthetic bottom is common to both), so both merged indexes are walked side by side
 * and the version each snapshot shows of a block is compared. A block that was put again with the
 * same bytes counts as changed: saying so is always safe.
 */
import { lowerBound } from "../common/lower-bound.js";
import type { SnapshotView } from "./snapshot-view.js";

export interface ChangedPage {
  readonly blockIndexes: Uint32Array;
  /** inFirst[i] is 1 where the first snapshot has blockIndexes[i]. */
  readonly inFirst: Uint8Array;
  readonly inSecond: Uint8Array;
  /** Where to go on; undefined at the end. */
  readonly next: number | undefined;
}

/** Up to `limit` changed blocks from `from` on. */
export function changedPage(
  first: SnapshotView,
  second: SnapshotView,
  from: number,
  limit: number,
): ChangedPage {
  const blockIndexes = new Uint32Array(limit);
  const inFirst = new Uint8Array(limit);
  const inSecond = new Uint8Array(limit);
  const [a, b] = [first.blockIndexes, second.blockIndexes];
  let i = lowerBound(a, from);
  let j = lowerBound(b, from);
  let count = 0;
  let next: number | undefined;
  while (i < a.length || j < b.length) {
    const blockIndex = Math.min(a[i] ?? Number.POSITIVE_INFINITY, b[j] ?? Number.POSITIVE_INFINITY);
    if (a[i] === blockIndex) i += 1;
    if (b[j] === blockIndex) j += 1;
    const before = first.versionOf(blockIndex);
    const after = second.versionOf(blockIndex);
    if (before === after) continue;
    if (count === limit) {
      next = blockIndex;
      break;
    }
    blockIndexes[count] = blockIndex;
    inFirst[count] = before === undefined ? 0 : 1;
    inSecond[count++] = after === undefined ? 0 : 1;
  }
  return { blockIndexes: blockIndexes.subarray(0, count), inFirst, inSecond, next };
}
