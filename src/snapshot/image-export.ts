/**
 * The blocks of a snapshot into an image, many at a time and in any order. A fetch slot is free again
 * as soon as its block is here: writing goes on beside the next fetch, and a fixed number of buffers
 * bounds how far fetching may be ahead of the disk. What an earlier run has put there, and is still
 * there to the byte, is not fetched again.
 */

import { runParallel } from "../common/parallel.js";
import { sharedAbort } from "../common/shared-abort.js";
import { BLOCK_SIZE, BLOCKS_PER_GIB } from "../common/sizes.js";
import { DIGEST_SIZE } from "../ebs/checksum.js";
import { alignedBlock, BlockBuffers } from "./block-buffers.js";
import type { BlockList, ListedBlock } from "./block-list.js";

/** Where the image goes. Blocks come in any order, several at a time, each once. */
export interface ImageTarget {
  /** True where what is not written reads as zeros already, so that holes need nothing. */
  readonly startsEmpty: boolean;
  /**
   * Whether an earlier run has written the block and it is as it was written; absent where there can
   * be no earlier run. @param scratch room for one block.
   */
  has?(blockIndex: number, scratch: Uint8Array): Promise<boolean>;
  /**
   * Writes a block; resolves when the buffer may be used again.
   * @param digest raw SHA-256 of `data`.
   */
  writeBlock(blockIndex: number, data: Uint8Array, digest: Uint8Array): Promise<void>;
  /** Makes `count` blocks zeros. Asked for only where not startsEmpty. */
  zeroBlocks(blockIndex: number, count: number): Promise<void>;
}

export interface ImageExport {
  /** Opened at the volume's start. */
  readonly list: BlockList;
  readonly target: ImageTarget;
  /** Fetches at one time. */
  readonly concurrency: number;
  readonly signal?: AbortSignal;
  /** @param done bytes of the image that are done. @param moved bytes fetched. */
  onProgress?(done: number, moved: number): void;
}

/** Blocks zeroed in one step, 64 MiB: small enough to be interrupted in good time. */
const ZERO_STEP = 128;

/** Fetches and writes all that is not there. @throws Failure of the service or the target */
export async function exportImage(options: ImageExport): Promise<void> {
  const { list, target, concurrency } = options;
  const volumeBlocks = list.volumeSizeGiB * BLOCKS_PER_GIB;
  const buffers = new BlockBuffers(2 * concurrency, alignedBlock);
  const inWork = new Set<number>();
  const writes = new Set<Promise<void>>();
  let handedOut = 0;
  let moved = 0;
  // A write that fails stops the fetches, as a fetch that fails stops the others.
  const failed = sharedAbort();
  const stop = options.signal ? AbortSignal.any([options.signal, failed.signal]) : failed.signal;

  const finish = (step: Step) => {
    inWork.delete(step.blockIndex);
    // Blocks are handed out in ascending order, and a Set keeps it: all below its first is done.
    const done = inWork.values().next().value ?? handedOut;
    options.onProgress?.(done * BLOCK_SIZE, moved);
  };

  const write = async (step: Step, data: Uint8Array, digest: Uint8Array) => {
    try {
      await target.writeBlock(step.blockIndex, data, digest);
    } finally {
      buffers.give(data);
    }
    finish(step);
  };

  const work = async (step: Step, signal: AbortSignal) => {
    inWork.add(step.blockIndex);
    handedOut = step.blockIndex + step.count;
    if (step.block === undefined) {
      await target.zeroBlocks(step.blockIndex, step.count);
      finish(step);
      return;
    }
    const data = await buffers.take();
    const digest = new Uint8Array(DIGEST_SIZE);
    try {
      signal.throwIfAborted();
      if (await target.has?.(step.blockIndex, data)) {
        buffers.give(data);
        finish(step);
        return;
      }
      await list.get(step.block, data, signal, digest);
    } catch (error) {
      buffers.give(data);
      throw error;
    }
    moved += BLOCK_SIZE;
    const writing = write(step, data, digest)
      .catch((error: unknown) => failed.abort(error))
      .finally(() => writes.delete(writing));
    writes.add(writing);
  };

  const open = (signal: AbortSignal) =>
    steps(list.blocks(signal), volumeBlocks, !target.startsEmpty);
  try {
    await runParallel(open, concurrency, work, stop);
  } finally {
    await Promise.all(writes);
  }
  failed.signal.throwIfAborted();
}

/** One block to fetch, or `count` blocks to make zeros. */
interface Step {
  readonly blockIndex: number;
  readonly count: number;
  readonly block: ListedBlock | undefined;
}

async function* steps(
  blocks: AsyncGenerator<ListedBlock>,
  end: number,
  withHoles: boolean,
): AsyncGenerator<Step> {
  let next = 0;
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
