/**
 * A raw image becomes a snapshot. Three ascending streams are merged in step, none of them ever held
 * whole: blocks of the image that were written, blocks that the parent has, and blocks that an
 * interrupted import has put already. What is in none of them was never written on either side and
 * costs nothing. For each other block the rule is:
 *
 *   put before       → put again only if its SHA-256 is not that of the image's block now
 *   the parent's     → put if the image's block differs from it; a hole of the image counts as zeros
 *   neither          → put, zeros or not
 *
 * so the result is the image whatever happened before, and nothing is put twice. Zeros are put because
 * a block that is absent from a snapshot reads as zeros through the APIs only: on an encrypted volume
 * made of it, it reads as random bytes. Only choice `nonzero` leaves zeros out.
 */
import { runParallel } from "../common/parallel.js";
import { BLOCK_SIZE } from "../common/sizes.js";
import { isZeros } from "../common/zeros.js";
import { sha256 } from "../ebs/checksum.js";
import { BlockBuffers, sharedBlock } from "./block-buffers.js";
import type { BlockList, ListedBlock } from "./block-list.js";
import type { BlockDigest, DigestLedger } from "./digest-ledger.js";
import type { BlockChoice, ImageSource } from "./image-source.js";
import type { SnapshotWriter } from "./writer.js";

/** What an import goes through. */
export interface ImportInputs {
  readonly source: ImageSource;
  /** Which of its blocks are looked at; `nonzero` also leaves out those that turn out to be zeros. */
  readonly choice: BlockChoice;
  /** The parent's blocks, from its beginning. */
  readonly parent?: BlockList;
}

export interface ImageImport extends ImportInputs {
  /** Started, pending, and as large as the image at least. */
  readonly writer: SnapshotWriter;
  /** The writer's ledger may know blocks from an earlier run. */
  readonly resumed: boolean;
  /** Blocks in work at one time. */
  readonly concurrency: number;
  readonly signal?: AbortSignal;
  /** @param done bytes of the image looked at. @param moved bytes put. */
  onProgress?(done: number, moved: number): void;
}

/** @returns bytes put. @throws Failure; the pending snapshot can be gone on with. */
export async function importImage(options: ImageImport): Promise<number> {
  const { source, choice, writer, parent, concurrency } = options;
  const buffers = new BlockBuffers(2 * concurrency);
  const zeros = sharedBlock();
  let moved = 0;

  const put = async (blockIndex: number, data: Uint8Array, signal: AbortSignal) => {
    await writer.put(blockIndex, data, signal);
    moved += BLOCK_SIZE;
  };

  const work = async (item: Candidate, signal: AbortSignal) => {
    const { blockIndex } = item;
    const buffer = await buffers.take();
    try {
      if (item.inImage) await source.read(blockIndex, buffer, signal);
      const isZero = !item.inImage || isZeros(buffer);
      const data = isZero ? zeros : buffer;
      if (item.putBefore !== undefined) {
        if (!sha256(data).equals(item.putBefore)) await put(blockIndex, data, signal);
      } else if (item.parent !== undefined && parent !== undefined) {
        const base = await buffers.take();
        try {
          await parent.get(item.parent, base, signal);
          if (Buffer.compare(base, data) !== 0) await put(blockIndex, data, signal);
        } finally {
          buffers.give(base);
        }
      } else if (choice !== "nonzero" || !isZero) {
        await put(blockIndex, data, signal);
      }
    } finally {
      buffers.give(buffer);
    }
    options.onProgress?.(Math.min((blockIndex + 1) * BLOCK_SIZE, source.size), moved);
  };

  const digests = options.resumed ? writer.digests : undefined;
  const open = (signal: AbortSignal) => candidates(options, signal, digests);
  await runParallel(open, concurrency, work, options.signal);
  await source.assertWhole(options.signal);
  options.onProgress?.(source.size, moved);
  return moved;
}

/** A block that was written on some side. */
interface Candidate {
  readonly blockIndex: number;
  readonly inImage: boolean;
  readonly parent: ListedBlock | undefined;
  readonly putBefore: Uint8Array | undefined;
}

/** What has to be looked at, ascending. @param digests what an earlier run has put. */
export async function* candidates(
  inputs: ImportInputs,
  signal: AbortSignal,
  digests?: DigestLedger,
): AsyncGenerator<Candidate> {
  const image = inputs.source.blocks(inputs.choice);
  const parents = inputs.parent?.blocks(signal);
  const ledger = digests?.entries()[Symbol.asyncIterator]();
  try {
    let inImage = nextOf(image.next());
    let parent: ListedBlock | undefined = parents && nextOf(await parents.next());
    let put: BlockDigest | undefined = ledger && nextOf(await ledger.next());
    for (;;) {
      const blockIndex = Math.min(
        inImage ?? Number.POSITIVE_INFINITY,
        parent?.blockIndex ?? Number.POSITIVE_INFINITY,
        put?.blockIndex ?? Number.POSITIVE_INFINITY,
      );
      if (blockIndex === Number.POSITIVE_INFINITY) return;
      const isPut = put?.blockIndex === blockIndex;
      const isParent = parent?.blockIndex === blockIndex;
      yield {
        blockIndex,
        inImage: inImage === blockIndex,
        parent: isParent ? parent : undefined,
        // A copy: the ledger's own is good only until its next one.
        putBefore: isPut ? put?.digest.slice() : undefined,
      };
      if (inImage === blockIndex) inImage = nextOf(image.next());
      if (isParent) parent = parents && nextOf(await parents.next());
      if (isPut) put = ledger && nextOf(await ledger.next());
    }
  } finally {
    await parents?.return(undefined);
    await ledger?.return?.();
  }
}

function nextOf<T>(result: IteratorResult<T>): T | undefined {
  return result.done ? undefined : result.value;
}
