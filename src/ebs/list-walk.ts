/**
 * Follows a list from page to page, for all who read more than one page of it: a mount's block index,
 * the walk of an export, the comparison of two snapshots. It knows what each page proves, goes on by
 * starting block index where a page token has expired (tokens live 60 minutes), and ends a list that
 * does not lead on:
 *
 * - blocks that do not ascend from page to page: refused at once;
 * - empty pages: MAX_EMPTY_PAGES in a row are followed. The service may send a page without a block
 *   and with a NextToken (user guide, ListSnapshotBlocks), and nothing says how many; a list that
 *   sends more leads nowhere;
 * - empty pages whose tokens come again, the same or in a circle: MAX_REPEATED_TOKENS are followed,
 *   because a service that was busy may repeat itself.
 */
import { Failure } from "../common/failure.js";
import type { Page } from "./answers.js";
import type { BlockPage, EbsApi, ListOptions } from "./api.js";
import { isInvalidPageToken } from "./errors.js";
import type { SnapshotId } from "./snapshot-id.js";

/** Empty pages in a row that are followed: one second's worth at the service's quota of 50 a second. */
export const MAX_EMPTY_PAGES = 50;
/** Page tokens that were used before, without a block between, that are followed. */
const MAX_REPEATED_TOKENS = 3;
/** Refused page tokens, without a block between, that are met by listing from a block index. */
const MAX_RESTARTS = 3;

/** The fewest entries that a page can be asked for. Source: ListSnapshotBlocks, maxResults. */
export const MIN_PAGE_BLOCKS = 100;
/** The most. */
export const MAX_PAGE_BLOCKS = 10_000;

export interface WalkedPage<T extends Page> {
  readonly page: T;
  /**
   * The block indexes of which the page tells all that are listed: [start, end). Empty where it proves
   * nothing; `end` is Infinity on the last page. The page can list blocks before `start` too, where a
   * server pays no attention to where it was asked to start.
   */
  readonly start: number;
  readonly end: number;
}

/** Asks for one page, by token or by starting block index. */
type List<T> = (options: ListOptions) => Promise<T>;

export class ListWalk<T extends Page> {
  readonly #snapshotId: SnapshotId;
  readonly #list: List<T>;
  /** What was walked so far ends here. */
  #from: number;
  #pages = 0;
  #lastBlock = -1;
  #pageToken: string | undefined;
  #ended = false;
  /** Since the last block. */
  readonly #tokens = new Set<string>();
  #emptyPages = 0;
  #repeated = 0;
  #restarts = 0;

  /** @param start block index. */
  constructor(snapshotId: SnapshotId, list: List<T>, start = 0) {
    this.#snapshotId = snapshotId;
    this.#list = list;
    this.#from = start;
  }

  /** Block index up to which the list was walked. */
  get from(): number {
    return this.#from;
  }

  /** Pages so far. */
  get pages(): number {
    return this.#pages;
  }

  /**
   * The next page; undefined after the last. One call at a time.
   * @param maxResults blocks wanted in it, MIN_PAGE_BLOCKS to MAX_PAGE_BLOCKS.
   * @throws EbsError; Failure EIO where the list leads nowhere or is out of order
   */
  async next(maxResults: number, signal?: AbortSignal): Promise<WalkedPage<T> | undefined> {
    if (this.#ended) return undefined;
    const page = await this.#fetch({ maxResults, ...(signal && { signal }) });
    const start = this.#from;
    this.#pages += 1;
    if (page.blockIndexes.length === 0) this.#countEmpty(page.nextToken);
    else this.#advance(page.blockIndexes);
    this.#pageToken = page.nextToken;
    this.#ended = page.nextToken === undefined;
    return { page, start, end: this.#ended ? Number.POSITIVE_INFINITY : this.#from };
  }

  async #fetch(options: ListOptions): Promise<T> {
    for (;;) {
      try {
        // One of the two: with a token the service ignores where to start.
        return await this.#list(
          this.#pageToken === undefined
            ? { ...options, startingBlockIndex: this.#from }
            : { ...options, pageToken: this.#pageToken },
        );
      } catch (error) {
        const mayRestart = this.#pageToken !== undefined && this.#restarts < MAX_RESTARTS;
        if (!isInvalidPageToken(error) || !mayRestart) throw error;
        this.#restarts += 1;
        this.#pageToken = undefined;
      }
    }
  }

  #advance(blockIndexes: Uint32Array): void {
    const first = blockIndexes[0] as number;
    if (first <= this.#lastBlock) {
      throw this.#wrong(
        `lists block ${first} after block ${this.#lastBlock}: a list out of order cannot be trusted`,
      );
    }
    this.#lastBlock = blockIndexes.at(-1) as number;
    this.#from = Math.max(this.#from, this.#lastBlock + 1);
    this.#tokens.clear();
    this.#emptyPages = 0;
    this.#repeated = 0;
    this.#restarts = 0;
  }

  #countEmpty(nextToken: string | undefined): void {
    if (nextToken === undefined) return;
    this.#emptyPages += 1;
    if (this.#tokens.has(nextToken)) this.#repeated += 1;
    this.#tokens.add(nextToken);
    if (this.#emptyPages <= MAX_EMPTY_PAGES && this.#repeated <= MAX_REPEATED_TOKENS) return;
    throw this.#wrong(
      `goes on after block ${this.#from - 1} with pages that lead nowhere, ${this.#emptyPages} in a row without a block`,
    );
  }

  #wrong(what: string): Failure {
    return new Failure(
      "EIO",
      `The service's list of ${this.#snapshotId} ${what}. Try again, and check --endpoint-url.`,
    );
  }
}

/** Walks a snapshot's blocks. @param start block index. */
export function walkBlocks(
  api: Pick<EbsApi, "listSnapshotBlocks">,
  snapshotId: SnapshotId,
  start: number,
): ListWalk<BlockPage> {
  return new ListWalk(snapshotId, (options) => api.listSnapshotBlocks(snapshotId, options), start);
}

/**
 * The smallest page of a snapshot's list that has a block at or after `start`; the last one where no
 * block is. @throws as ListWalk.next
 */
export async function pageFrom(
  api: Pick<EbsApi, "listSnapshotBlocks">,
  snapshotId: SnapshotId,
  start: number,
  signal?: AbortSignal,
): Promise<BlockPage> {
  const walk = walkBlocks(api, snapshotId, start);
  for (;;) {
    const walked = await walk.next(MIN_PAGE_BLOCKS, signal);
    if (walked === undefined) throw new Error("a list has a last page");
    if (walked.end > start) return walked.page;
  }
}
