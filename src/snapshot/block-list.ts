/**
 * All written blocks of a snapshot in ascending order, for those who walk through the whole of it
 * (export, import against a parent, an estimate of either). One page is in hand and the next is asked for meanwhile, so
 * memory does not grow with the volume and the walker seldom waits. A mount, which jumps about, uses
 * the block index instead.
 *
 * A page token lives 60 minutes and a walk can be slower than that: list-walk.ts sees to it. A block
 * token lives 7 days; one that is refused is listed again, once.
 */
import { Failure } from "../common/failure.js";
import { lowerBound } from "../common/lower-bound.js";
import { BLOCKS_PER_GIB } from "../common/sizes.js";
import type { BlockPage, EbsApi } from "../ebs/api.js";
import { isInvalidBlockToken } from "../ebs/errors.js";
import { type ListWalk, MAX_PAGE_BLOCKS, pageFrom, walkBlocks } from "../ebs/list-walk.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";

export interface ListedBlock {
  readonly blockIndex: number;
  readonly blockToken: string;
}

export class BlockList {
  readonly snapshotId: SnapshotId;
  readonly volumeSizeGiB: number;
  readonly #api: EbsApi;
  readonly #walk: ListWalk<BlockPage>;
  #first: BlockPage | undefined;

  private constructor(
    api: EbsApi,
    snapshotId: SnapshotId,
    walk: ListWalk<BlockPage>,
    first: BlockPage,
  ) {
    this.#api = api;
    this.snapshotId = snapshotId;
    this.#walk = walk;
    this.volumeSizeGiB = first.volumeSizeGiB;
    this.#first = first;
  }

  /** Lists the first page; it tells the volume's size too. */
  static async open(api: EbsApi, snapshotId: SnapshotId, signal?: AbortSignal): Promise<BlockList> {
    const walk = walkBlocks(api, snapshotId, 0);
    const first = await walk.next(MAX_PAGE_BLOCKS, signal);
    if (first === undefined) throw new Error("a list has a first page");
    return new BlockList(api, snapshotId, walk, first.page);
  }

  /** List calls that the walk has made so far. */
  get pages(): number {
    return this.#walk.pages;
  }

  /** All blocks, ascending. Can be walked once. */
  async *blocks(signal?: AbortSignal): AsyncGenerator<ListedBlock> {
    let page = this.#first;
    if (page === undefined) throw new Error("a block list is walked once");
    this.#first = undefined;
    const end = this.volumeSizeGiB * BLOCKS_PER_GIB;
    while (page !== undefined) {
      const next = this.#walk.next(MAX_PAGE_BLOCKS, signal);
      // Whoever stops walking early does not wait for it.
      next.catch(() => {});
      const { blockIndexes, blockTokens } = page;
      for (let i = 0; i < blockIndexes.length; i += 1) {
        const blockIndex = blockIndexes[i]!;
        if (blockIndex >= end) throw this.#wrong(`block ${blockIndex} behind the volume's end`);
        yield { blockIndex, blockToken: blockTokens[i]! };
      }
      page = (await next)?.page;
    }
  }

  /**
   * Fills `target` with a listed block, its token listed again where it is no longer valid.
   * @param digest where given, takes its raw SHA-256.
   */
  async get(
    { blockIndex, blockToken }: ListedBlock,
    target: Uint8Array,
    signal?: AbortSignal,
    digest?: Uint8Array,
  ): Promise<void> {
    const get = (token: string) =>
      this.#api.getSnapshotBlock(this.snapshotId, blockIndex, token, target, signal, digest);
    try {
      await get(blockToken);
    } catch (error) {
      if (!isInvalidBlockToken(error)) throw error;
      await get(await this.#tokenOf(blockIndex, signal));
    }
  }

  async #tokenOf(blockIndex: number, signal: AbortSignal | undefined): Promise<string> {
    const { blockIndexes, blockTokens } = await pageFrom(
      this.#api,
      this.snapshotId,
      blockIndex,
      signal,
    );
    const at = lowerBound(blockIndexes, blockIndex);
    if (blockIndexes[at] !== blockIndex) throw this.#wrong(`block ${blockIndex} once and then not`);
    return blockTokens[at]!;
  }

  #wrong(what: string): Failure {
    const message = `The service listed ${what} for ${this.snapshotId}; such a list cannot be trusted. Try again, and check --endpoint-url.`;
    return new Failure("EIO", message);
  }
}
