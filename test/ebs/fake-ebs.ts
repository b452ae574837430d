/**
 * An EbsApi in memory for tests of what is above it: any volume size, blocks computed from their
 * index, pages short or empty as told, tokens that stop working when told, gets that can be held.
 */
import { BLOCK_SIZE, BLOCKS_PER_GIB } from "../../src/common/sizes.js";
import type { BlockPage, EbsApi, ListOptions } from "../../src/ebs/api.js";
import { EbsError } from "../../src/ebs/errors.js";
import type { SnapshotId } from "../../src/ebs/snapshot-id.js";

export interface FakeOptions {
  readonly volumeSizeGiB: number;
  /** Ascending; "all" for a fully written volume. */
  readonly written: readonly number[] | "all";
  /** Blocks that a page may hold, for the call's number; the service may always give fewer. */
  readonly pageLimit?: (call: number) => number;
  /** Before a get answers; reject to make it fail. */
  readonly beforeGet?: (blockIndex: number, signal: AbortSignal | undefined) => Promise<void>;
  readonly lifeMs?: number;
}

/** Byte `offset` of block `index` of the fake volume: any mix-up of blocks or offsets shows. */
function fillBlock(target: Uint8Array, index: number): void {
  const words = new Uint32Array(target.buffer, target.byteOffset, target.byteLength / 4);
  for (let i = 0; i < words.length; i += 1) words[i] = Math.imul(index + 1, 0x9e3779b1) ^ i;
}

export class FakeEbs implements EbsApi {
  readonly lists: ListOptions[] = [];
  readonly gets: number[] = [];
  /** Tokens carry this; raise it to make all earlier ones invalid. */
  generation = 1;
  pageTokensWork = true;
  readonly #options: FakeOptions;

  constructor(options: FakeOptions) {
    this.#options = options;
  }

  async listSnapshotBlocks(snapshotId: SnapshotId, options: ListOptions = {}): Promise<BlockPage> {
    const { written, volumeSizeGiB, pageLimit, lifeMs } = this.#options;
    const call = this.lists.push(options);
    await Promise.resolve();
    let from = options.startingBlockIndex ?? 0;
    if (options.pageToken !== undefined) {
      if (!this.pageTokensWork)
        throw refused("ListSnapshotBlocks", snapshotId, "INVALID_PAGE_TOKEN");
      from = Number.parseInt(options.pageToken.slice(1), 10);
    }
    const most = Math.min(
      options.maxResults ?? 1000,
      pageLimit?.(call) ?? Number.POSITIVE_INFINITY,
    );
    const end = volumeSizeGiB * BLOCKS_PER_GIB;
    const all =
      written === "all"
        ? Array.from({ length: Math.max(0, Math.min(most + 1, end - from)) }, (_, i) => from + i)
        : written.filter((index) => index >= from).slice(0, most + 1);
    const indexes = all.slice(0, most);
    const next = all[most];
    return {
      blockIndexes: Uint32Array.from(indexes),
      blockTokens: indexes.map((index) => `${snapshotId}/${index}/${this.generation}`),
      expiresAt: Date.now() + (lifeMs ?? 7 * 86_400_000),
      volumeSizeGiB,
      // Of this call alone, as the service's are.
      nextToken: next === undefined ? undefined : `p${next}.${call}`,
    };
  }

  async getSnapshotBlock(
    snapshotId: SnapshotId,
    blockIndex: number,
    blockToken: string,
    target: Uint8Array,
    signal?: AbortSignal,
  ): Promise<void> {
    this.gets.push(blockIndex);
    // As the real one may: the target holds anything until the promise resolves.
    target.fill(0xaa);
    await this.#options.beforeGet?.(blockIndex, signal);
    if (blockToken !== `${snapshotId}/${blockIndex}/${this.generation}`) {
      throw refused("GetSnapshotBlock", snapshotId, "INVALID_BLOCK_TOKEN");
    }
    fillBlock(target, blockIndex);
  }

  listChangedBlocks(): never {
    throw new Error("not in the fake");
  }

  startSnapshot(): never {
    throw new Error("not in the fake");
  }

  putSnapshotBlock(): never {
    throw new Error("not in the fake");
  }

  completeSnapshot(): never {
    throw new Error("not in the fake");
  }

  async close(): Promise<void> {}
}

function refused(
  operation: "ListSnapshotBlocks" | "GetSnapshotBlock",
  snapshotId: string,
  reason: string,
): EbsError {
  return new EbsError({
    operation,
    snapshotId,
    reason,
    errno: "EIO",
    message: reason,
    attempts: 1,
    exception: "ValidationException",
  });
}

/** What the fake volume reads as. */
export function expectedBytes(options: FakeOptions, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  const written = options.written === "all" ? undefined : new Set(options.written);
  const block = new Uint8Array(BLOCK_SIZE);
  for (let at = offset; at < offset + length; ) {
    const index = Math.floor(at / BLOCK_SIZE);
    const end = Math.min(offset + length, (index + 1) * BLOCK_SIZE);
    if (written === undefined || written.has(index)) {
      fillBlock(block, index);
      bytes.set(block.subarray(at - index * BLOCK_SIZE, end - index * BLOCK_SIZE), at - offset);
    }
    at = end;
  }
  return bytes;
}
