/**
 * Which calls an export, a mount and an import make, found out without making more than list calls. A
 * snapshot's list is walked as the work itself would walk it; an image is gone through by the import's
 * own candidates(), so that both agree. What depends on the bytes of blocks (whether a block equals its
 * parent's, or is left out as zeros) is not known without reading, and for a parent's blocks paying
 * for, them: there the estimate is a range.
 */
import type { CallRange, Calls } from "../ebs/estimate.js";
import { listCallsToReadAll } from "./block-index.js";
import type { BlockList } from "./block-list.js";
import { candidates, type ImportInputs } from "./image-import.js";

/** Walks what is left of the list. */
async function countBlocks(list: BlockList, signal?: AbortSignal): Promise<number> {
  let count = 0;
  for await (const _ of list.blocks(signal)) count += 1;
  return count;
}

/**
 * @param list opened, and not walked.
 * @param kept blocks that an earlier run has left behind, as far as they are still whole.
 */
export async function estimateExport(
  list: BlockList,
  kept: number,
  signal?: AbortSignal,
): Promise<CallRange> {
  const blocks = await countBlocks(list, signal);
  const ListSnapshotBlocks = list.pages;
  return {
    atLeast: { ListSnapshotBlocks, GetSnapshotBlock: Math.max(0, blocks - kept) },
    atMost: { ListSnapshotBlocks, GetSnapshotBlock: blocks },
  };
}

/** Of a mount whose image is read from its start to its end, once. @param list not walked. */
export async function estimateReading(list: BlockList, signal?: AbortSignal): Promise<CallRange> {
  const blocks = await countBlocks(list, signal);
  const calls: Calls = {
    ListSnapshotBlocks: listCallsToReadAll(blocks),
    GetSnapshotBlock: blocks,
  };
  return { atLeast: calls, atMost: calls };
}

/** @param inputs of an import that nothing was put for yet; the parent's list not walked. */
export async function estimateImport(
  inputs: ImportInputs,
  signal: AbortSignal,
): Promise<CallRange> {
  let certain = 0;
  let possible = 0;
  let compared = 0;
  for await (const { parent } of candidates(inputs, signal)) {
    possible += 1;
    if (parent !== undefined) compared += 1;
    else if (inputs.choice !== "nonzero") certain += 1;
  }
  const { parent } = inputs;
  // The parent's pages; one of the parent and one of the snapshot at the end (verify-snapshot.ts).
  const lists = parent === undefined ? 1 : parent.pages + 2;
  const others = {
    StartSnapshot: 1,
    CompleteSnapshot: 1,
    ListSnapshotBlocks: lists,
    GetSnapshotBlock: compared,
  };
  return {
    atLeast: { ...others, PutSnapshotBlock: certain },
    atMost: { ...others, PutSnapshotBlock: possible },
  };
}
