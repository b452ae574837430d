/**
 * All written blocks of a snapshot in ascending order, for those who walk through the whole of it
 * (export, import against a parent). One page is in hand and the next is asked for meanwhile, so
 * memory does not grow with the volume and the walker seldom waits. A mount, which jumps about, uses
 * the block index instead.
 *
 * A page token lives 60 minutes and a walk can be slower than that: the list then goes on by
 * startingBlockIndex. A block token lives 7 days; one that is refused is listed again, once.
 */
import { Failure } from "../common/failure.js";
import { BLOCKS_PER_GIB } from "../common/sizes.js";
import type { BlockPage, EbsApi } from "../ebs/api.js";
import { isInvalidBlockToken, isInvalidPageToken } from "../ebs/errors.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";

const PAGE_BLOCKS = 10_000;
/** Empty pages are allowed by the service and followed, but not for ever. */
const MAX_EMPTY_PAGES = 10_000;

export interface ListedBlock {
  readonly blockIndex: number;
  readonly blockToken: string;
}

export class BlockList {
  readonly snapshotId: SnapshotId;
  readonly volumeSizeGiB: number;
  readonly #api: EbsApi;
  readonly #start: number;
  #first: BlockPage | undefined;

  private constructor(api: EbsApi, snapshotId: SnapshotId, start: number, first: BlockPage) {
    this.#start = start;
    this.#api = api;
    this.snapshotId = snapshotId;
    this.volumeSizeGiB = first.volumeSizeGiB;
    this.#first = first;
  }

  /** Lists the first page from a block on; it tells the volume's size too. */
  static async open(
    api: EbsApi,
    snapshotId: SnapshotId,
    signal?: AbortSignal,
    startingBlockIndex = 0,
  ): Promise<BlockList> {
    const first = await list(api, snapshotId, startingBlockIndex, undefined, signal);
    return new BlockList(api, snapshotId, startingBlockIndex, first);
  }

  /** The blocks from where the list was opened, ascending. Can be walked once. */
  async *blocks(signal?: AbortSignal): AsyncGenerator<ListedBlock> {
    let page = this.#first;
    if (page === undefined) throw new Error("a block list is walked once");
    this.#first = undefined;
    const end = this.volumeSizeGiB * BLOCKS_PER_GIB;
    let last = this.#start - 1;
    let empty = 0;
    while (page !== undefined) {
      const next: Promise<BlockPage> | undefined =
        page.nextToken === undefined
          ? undefined
          : this.#after(page.nextToken, page.blockIndexes.at(-1) ?? last, signal);
      // Whoever stops walking early does not wait for it.
      next?.catch(() => {});
      const { blockIndexes, blockTokens } = page;
      empty = blockIndexes.length === 0 ? empty + 1 : 0;
      if (empty > MAX_EMPTY_PAGES) {
        throw this.#wrong(`${empty} empty pages in a row`);
      }
      for (let i = 0; i < blockIndexes.length; i += 1) {
        const blockIndex = blockIndexes[i]!;
        if (blockIndex <= last) throw this.#wrong(`block ${blockIndex} after block ${last}`);
        if (blockIndex >= end) throw this.#wrong(`block ${blockIndex} behind the volume's end`);
        last = blockIndex;
        yield { blockIndex, blockToken: blockTokens[i]! };
      }
      page = await next;
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

  async #after(
    pageToken: string,
    last: number,
    signal: AbortSignal | undefined,
  ): Promise<BlockPage> {
    try {
      return await list(this.#api, this.snapshotId, 0, pageToken, signal);
    } catch (error) {
      if (!isInvalidPageToken(error)) throw error;
      return await list(this.#api, this.snapshotId, last + 1, undefined, signal);
    }
  }

  async #tokenOf(blockIndex: number, signal: AbortSignal | undefined): Promise<string> {
    const options = { startingBlockIndex: blockIndex, maxResults: 100, ...(signal && { signal }) };
    let page = await this.#api.listSnapshotBlocks(this.snapshotId, options);
    for (let empty = 0; page.blockIndexes.length === 0; empty += 1) {
      if (page.nextToken === undefined || empty > MAX_EMPTY_PAGES) break;
      page = await this.#after(page.nextToken, blockIndex - 1, signal);
    }
    if (page.blockIndexes[0] !== blockIndex) {
      throw this.#wrong(`block ${blockIndex} once and then not`);
    }
    return page.blockTokens[0]!;
  }

  #wrong(what: string): Failure {
    const message = `The service listed ${what} for ${this.snapshotId}; such a list cannot be trusted. Try again, and check --endpoint-url.`;
    return new Failure("EIO", message);
  }
}

function list(
  api: EbsApi,
  snapshotId: SnapshotId,
  startingBlockIndex: number,
  pageToken: string | undefined,
  signal: AbortSignal | undefined,
): Promise<BlockPage> {
  return api.listSnapshotBlocks(snapshotId, {
    maxResults: PAGE_BLOCKS,
    // One of the two: with a token the service ignores where to start.
    ...(pageToken === undefined ? { startingBlockIndex } : { pageToken }),
    ...(signal && { signal }),
  });
}
