/**
 * A snapshot as one stream of bytes, in order: fetches run ahead of the writer by a bounded number of
 * blocks, and holes become zeros. Buffers are handed out in the order of the blocks, so the block
 * that the writer waits for always has one and the two sides cannot wait for each other for ever.
 */

import { runParallel } from "../common/parallel.js";
import { sharedAbort } from "../common/shared-abort.js";
import { BLOCKS_PER_GIB } from "../common/sizes.js";
import { BlockBuffers, ZERO_BLOCK } from "./block-buffers.js";
import type { BlockList, ListedBlock } from "./block-list.js";

export interface ImageStream {
  /** From its beginning. */
  readonly list: BlockList;
  readonly concurrency: number;
  readonly signal?: AbortSignal;
  /** Resolves when the bytes are no longer needed; rejects when `signal` ends the wait. */
  write(data: Uint8Array, signal: AbortSignal): Promise<void>;
  /** @param done blocks written. @param fetched blocks fetched. */
  onProgress?(done: number, fetched: number): void;
}

/** What the writer sees of a failed fetch: which one failed first, and why, only `fetching` knows. */
const FETCH_FAILED = new Error("a fetch failed");

interface Slot {
  readonly blockIndex: number;
  /** Gives the filled buffer; rejects where the fetch failed. */
  readonly data: Promise<Uint8Array>;
}

export async function streamImage(options: ImageStream): Promise<void> {
  const { list, concurrency } = options;
  const volumeBlocks = list.volumeSizeGiB * BLOCKS_PER_GIB;
  const buffers = new BlockBuffers(2 * concurrency);
  const slots: Slot[] = [];
  const failed = sharedAbort();
  const stop = options.signal ? AbortSignal.any([options.signal, failed.signal]) : failed.signal;
  let allStarted = false;
  let wake = () => {};
  stop.addEventListener("abort", () => wake(), { once: true });
  let fetched = 0;

  const fetchBlock = async (block: ListedBlock, signal: AbortSignal): Promise<Uint8Array> => {
    const data = await buffers.take();
    try {
      signal.throwIfAborted();
      await list.get(block, data, signal);
      fetched += 1;
      return data;
    } catch (error) {
      buffers.give(data);
      throw error;
    }
  };

  const work = async (block: ListedBlock, signal: AbortSignal) => {
    const data = fetchBlock(block, signal);
    slots.push({ blockIndex: block.blockIndex, data });
    wake();
    await data;
  };

  let next = 0;
  const writeZeros = async (end: number) => {
    for (; next < end; next += 1) {
      stop.throwIfAborted();
      await options.write(ZERO_BLOCK, stop);
      options.onProgress?.(next + 1, fetched);
    }
  };

  const writeAll = async () => {
    for (;;) {
      stop.throwIfAborted();
      const slot = slots.shift();
      if (slot === undefined) {
        if (allStarted) break;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      await writeZeros(slot.blockIndex);
      const data = await slot.data.catch(() => {
        throw FETCH_FAILED;
      });
      try {
        await options.write(data, stop);
      } finally {
        buffers.give(data);
      }
      next = slot.blockIndex + 1;
      options.onProgress?.(next, fetched);
    }
    await writeZeros(volumeBlocks);
  };

  const fetching = runParallel((signal) => list.blocks(signal), concurrency, work, stop)
    .catch((error: unknown) => failed.abort(error))
    .finally(() => {
      allStarted = true;
      wake();
    });
  try {
    await writeAll();
  } catch (error) {
    if (error !== FETCH_FAILED) failed.abort(error);
    // Blocks that came and are not written any more give their buffers back, so that fetches that
    // wait for one see that it is over.
    const giveBack = (data: Uint8Array) => buffers.give(data);
    for (const { data } of slots) data.then(giveBack, () => {});
    await fetching;
    stop.throwIfAborted();
    throw error;
  }
  await fetching;
  failed.signal.throwIfAborted();
}
