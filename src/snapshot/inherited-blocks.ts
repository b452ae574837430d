/**
 * Whether a completed child really starts as its parent's contents. The service does that by itself;
 * a server of another make may take a ParentSnapshotId and forget it, and then every block that was
 * not put is silently missing from the child. A child can overwrite blocks but never lose one, so one
 * block that the parent lists, that was not put and that the child does not list either, gives it
 * away. A server that inherits nothing lacks the first such block; that one is looked at.
 */
import { errnoOf, Failure } from "../common/failure.js";
import type { EbsApi } from "../ebs/api.js";
import { EbsError } from "../ebs/errors.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { BlockList } from "./block-list.js";

/** Blocks of the parent to look through for one that was not put: at most ten list calls. */
const MOST_LOOKED_AT = 100_000;

export interface Lineage {
  readonly childId: SnapshotId;
  readonly parentId: SnapshotId;
  /** Whether the block was put into the child. */
  readonly wasPut: (blockIndex: number) => Promise<boolean>;
  readonly signal?: AbortSignal;
}

/**
 * @throws Failure EIO where the child lacks its parent's blocks. Where the lists may not be read, or
 * the parent is gone by now, nothing can be told and nothing is said.
 */
export async function checkInheritance(api: EbsApi, lineage: Lineage): Promise<void> {
  const { childId, parentId, signal } = lineage;
  let expected: number | undefined;
  let found: number | undefined;
  try {
    expected = await firstInherited(api, lineage);
    if (expected === undefined) return;
    const child = await BlockList.open(api, childId, signal, expected);
    found = await firstOf(child, signal);
  } catch (error) {
    const isGone = error instanceof EbsError && error.exception === "ResourceNotFoundException";
    if (isGone || errnoOf(error) === "EACCES") return;
    throw error;
  }
  if (found === expected) return;
  throw new Failure(
    "EIO",
    `${childId} is completed but lacks block ${expected} of its parent ${parentId}: the service does not keep a parent's blocks, so do not use this snapshot. Check --endpoint-url, or export ${parentId} and import the whole image without --parent.`,
  );
}

async function firstInherited(api: EbsApi, lineage: Lineage): Promise<number | undefined> {
  const { parentId, wasPut, signal } = lineage;
  const parent = await BlockList.open(api, parentId, signal);
  let looked = 0;
  for await (const { blockIndex } of parent.blocks(signal)) {
    if (!(await wasPut(blockIndex))) return blockIndex;
    looked += 1;
    if (looked === MOST_LOOKED_AT) return undefined;
  }
  return undefined;
}

async function firstOf(list: BlockList, signal?: AbortSignal): Promise<number | undefined> {
  for await (const { blockIndex } of list.blocks(signal)) return blockIndex;
  return undefined;
}
