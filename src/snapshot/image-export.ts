/**
 * The blocks of a snapshot into an image, many at a time and in any order. A fetch slot is free again
 * as soon as its block is here: writing goes on beside the next fetch, and a fixed number of buffers
 * bounds how far fetching may be ahead of the disk. Blocks are handed out in ascending order, so the
 * lowest one in work says up to where everything is written; that is what a checkpoint records.
 */

import { runParallel } from "../common/parallel.js";
import { sharedAbort } from "../common/shared-abort.js";
import { BLOCK_SIZE, BLOCKS_PER_GIB } from "../common/sizes.js";
import { BlockBuffers } from "./block-buffers.js";
import type { BlockList, ListedBlock } from "./block-list.js";

/** Where the image goes. Blocks come in any order, several at a time, each once. */
export interface ImageTarget {
  /** True where what is not written reads as zeros already, so that holes need nothing. */
  readonly startsEmpty: boolean;
  /** Writes a block; resolves when the buffer may be used again. */
  writeBlock(blockIndex: number, data: Uint8Array): Promise<void>;
  /** Makes `count` blocks zeros. Asked for only where not startsEmpty. */
  zeroBlocks(blockIndex: number, count: number): Promise<void>;
  /** All blocks below the index are written: a time to make that durable, if it is due. */
  checkpoint(nextBlockIndex: number, due: "if time" | "now"): Promise<void>;
}

export interface ImageExport {
  /** Opened at `startingBlockIndex`. */
  readonly list: BlockList;
  readonly startingBlockIndex: number;
  readonly target: ImageTarget;
  /** Fetches at one time. */
  readonly concurrency: number;
  readonly signal?: AbortSignal;
  /** @param done bytes of the image that are done. @param moved bytes fetched. */
  onProgress?(done: number, moved: number): void;
}

/** Blocks zeroed in one step, 64 MiB: small enough to be interrupted in good time. */
const ZERO_STEP = 128;

/**
 * Fetches and writes everything from startingBlockIndex on. When it throws, the target has been told
 * (checkpoint "now") how far it got.
 */
export async function exportImage(options: ImageExport): Promise<void> {
  const { list, target, concurrency } = options;
  const volumeBlocks = list.volumeSizeGiB * BLOCKS_PER_GIB;
  const buffers = new BlockBuffers(2 * concurrency);
  const inWork = new Set<number>();
  const writes = new Set<Promise<void>>();
  let handedOut = options.startingBlockIndex;
  let moved = 0;
  // A write that fails stops the fetches, as a fetch that fails stops the others.
  const failed = sharedAbort();
  const stop = options.signal ? AbortSignal.any([options.signal, failed.signal]) : failed.signal;
  /** Everything below is written. A Set keeps the order of insertion, which ascends. */
  const written = () => inWork.values().next().value ?? handedOut;

  const finish = async (step: Step) => {
    inWork.delete(step.blockIndex);
    options.onProgress?.(written() * BLOCK_SIZE, moved);
    await target.checkpoint(written(), "if time");
  };

  const write = async (step: Step, data: Uint8Array) => {
    try {
      await target.writeBlock(step.blockIndex, data);
    } finally {
      buffers.give(data);
    }
    await finish(step);
  };

  const work = async (step: Step, signal: AbortSignal) => {
    inWork.add(step.blockIndex);
    handedOut = step.blockIndex + step.count;
    if (step.block === undefined) {
      await target.zeroBlocks(step.blockIndex, step.count);
      await finish(step);
      return;
    }
    const data = await buffers.take();
    try {
      signal.throwIfAborted();
      await list.get(step.block, data, signal);
    } catch (error) {
      buffers.give(data);
      throw error;
    }
    moved += BLOCK_SIZE;
    const writing = write(step, data)
      .catch((error: unknown) => failed.abort(error))
      .finally(() => writes.delete(writing));
    writes.add(writing);
  };

  const open = (signal: AbortSignal) =>
    steps(list.blocks(signal), options.startingBlockIndex, volumeBlocks, !target.startsEmpty);
  try {
    try {
      await runParallel(open, concurrency, work, stop);
    } finally {
      await Promise.all(writes);
    }
    failed.signal.throwIfAborted();
  } catch (error) {
    // What stopped it matters more than what the last checkpoint meets on the same disk.
    await target.checkpoint(written(), "now").catch(() => {});
    throw error;
  }
}

/** One block to fetch, or `count` blocks to make zeros. */
interface Step {
  readonly blockIndex: number;
  readonly count: number;
  readonly block: ListedBlock | undefined;
}

async function* steps(
  blocks: AsyncGenerator<ListedBlock>,
  start: number,
  end: number,
  withHoles: boolean,
): AsyncGenerator<Step> {
  let next = start;
  for await (const block of blocks) {
    if (withHoles) yield* holes(next, block.blockIndex);
    yield { blockIndex: block.blockIndex, count: 1, block };
    next = block.blockIndex + 1;
  }
  if (withHoles) yield* holes(next, end);
}

function* holes(from: number, to: number): Generator<Step> {
  for (let blockIndex = from; blockIndex < to; blockIndex += ZERO_STEP) {
    yield { blockIndex, count: Math.min(ZERO_STEP, to - blockIndex), block: undefined };
  }
}
