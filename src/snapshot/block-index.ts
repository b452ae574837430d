/**
 * Which blocks a snapshot has, and their tokens, listed only where a read needs them. A lookup finds
 * the page that covers its block, or lists from just before it: one call at a random place, larger
 * ones where listing goes on in sequence. Pages live under a byte budget, least recently used first
 * out; what was evicted or has expired is listed again. So opening a snapshot of 64 TiB costs one
 * call, and memory does not depend on its size.
 *
 * A block is a hole only where a page that covers it lacks it. A page covers up to its last block,
 * or to the volume's end if the list ended there; an empty page with a NextToken proves nothing.
 */

import { LRUCache } from "lru-cache";
import { Failure } from "../common/failure.js";
import { sharedAbort } from "../common/shared-abort.js";
import { BLOCKS_PER_GIB, MIB } from "../common/sizes.js";
import type { BlockPage, EbsApi } from "../ebs/api.js";
import { MAX_PAGE_BLOCKS, MIN_PAGE_BLOCKS, type WalkedPage, walkBlocks } from "../ebs/list-walk.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { AllocationCount } from "./allocation-count.js";
import { type BlockRun, IndexPage } from "./index-page.js";

/** Memory for pages unless told otherwise, bytes: about 450,000 blocks, 220 GiB of written data. */
const DEFAULT_INDEX_BYTES = 16 * MIB;
/** Blocks asked for at a random place; more where listing goes on in sequence. */
const FIRST_PAGE = 1_000;
/** A listing starts at a multiple of this, so that reading backwards does not list every block. */
const ALIGNMENT = 128;
/** Calls that one listing may make to get from its start to the block wanted. */
const LONGEST_CHAIN = 10_000;
/** Listings at a time; the service allows about 50 calls a second. */
const LISTINGS = 8;
/** Tokens are not used in the last part of their life, ms: a request must reach the service. */
const EXPIRY_MARGIN_MS = 5 * 60_000;

/** List calls that reading all of a snapshot in sequence takes, for so many written blocks. */
export function listCallsToReadAll(blocks: number): number {
  let calls = 1;
  let asked = MIN_PAGE_BLOCKS;
  for (let left = blocks - asked; left > 0; left -= asked) {
    asked = nextPage(asked);
    calls += 1;
  }
  return calls;
}

/** Blocks to ask for where listing goes on behind a page of `asked`. */
function nextPage(asked: number): number {
  return Math.min(MAX_PAGE_BLOCKS, Math.max(asked * 4, FIRST_PAGE));
}

export interface BlockIndexOptions {
  /** Memory for pages, bytes. */
  readonly bytes?: number;
  readonly signal?: AbortSignal;
}

interface Listing {
  readonly start: number;
  /** Where it will get to if all blocks are written; further if not. */
  readonly likelyEnd: number;
  readonly done: Promise<IndexPage>;
}

/**
 * One list call, the smallest there is: the volume's size is wanted, and whether any block will be read
 * is not known. @throws EbsError
 */
export async function openBlockIndex(
  api: EbsApi,
  snapshotId: SnapshotId,
  options: BlockIndexOptions = {},
): Promise<BlockIndex> {
  const signal = options.signal && { signal: options.signal };
  const page = await api.listSnapshotBlocks(snapshotId, {
    startingBlockIndex: 0,
    maxResults: MIN_PAGE_BLOCKS,
    ...signal,
  });
  return new BlockIndex(api, snapshotId, page, options.bytes ?? DEFAULT_INDEX_BYTES);
}

export class BlockIndex {
  readonly volumeSizeGiB: number;
  /** Blocks in the volume. */
  readonly blockCount: number;
  readonly #api: EbsApi;
  readonly #snapshotId: SnapshotId;
  /** Ascending by start, without overlap; the same pages as in #recent. */
  readonly #pages: IndexPage[] = [];
  readonly #recent: LRUCache<number, IndexPage>;
  readonly #listings = new Set<Listing>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;
  readonly #allocation: AllocationCount;
  readonly #closed = sharedAbort();

  constructor(api: EbsApi, snapshotId: SnapshotId, first: BlockPage, bytes: number) {
    this.#api = api;
    this.#snapshotId = snapshotId;
    this.volumeSizeGiB = first.volumeSizeGiB;
    this.blockCount = first.volumeSizeGiB * BLOCKS_PER_GIB;
    this.#allocation = new AllocationCount(this.blockCount);
    this.#recent = new LRUCache({
      maxSize: bytes,
      // A page larger than the whole budget is kept while it is the only one.
      sizeCalculation: (page) => Math.min(page.bytes, bytes),
      dispose: (page) => this.#forget(page),
    });
    const end =
      first.nextToken === undefined ? this.blockCount : (first.blockIndexes.at(-1) ?? -1) + 1;
    this.#take({ page: first, start: 0, end }, MIN_PAGE_BLOCKS);
  }

  /**
   * The block's token, or undefined for a hole.
   * @throws EbsError where listing fails.
   */
  async lookup(blockIndex: number): Promise<string | undefined> {
    const known = this.#find(blockIndex);
    if (known !== undefined && this.#isUsable(known, blockIndex)) return known.token(blockIndex);
    if (known !== undefined) this.#recent.delete(known.start);
    return (await this.#pageAt(blockIndex)).token(blockIndex);
  }

  /** What is known of a block without asking the service. */
  peek(blockIndex: number): "data" | "hole" | undefined {
    const page = this.#find(blockIndex);
    if (page === undefined) return undefined;
    return page.isWritten(blockIndex) ? "data" : "hole";
  }

  /** The service refused this token of the block: the page it came from is of no use any more. */
  invalidate(blockIndex: number, token: string): void {
    const page = this.#find(blockIndex);
    if (page?.token(blockIndex) === token) this.#recent.delete(page.start);
  }

  /** Has the blocks after this one listed soon; a failure is left to whoever needs them. */
  prepare(blockIndex: number): void {
    const page = this.#find(blockIndex);
    const wanted = page === undefined ? blockIndex : page.end;
    const isNear = wanted - blockIndex < FIRST_PAGE / 2 && wanted < this.blockCount;
    if (!isNear || this.#closed.signal.aborted) return;
    if (this.#find(wanted) !== undefined || this.#listingOf(wanted) !== undefined) return;
    this.#startListing(wanted).catch(() => {});
  }

  /** The runs that make up [from, to), listing as it goes. @throws EbsError */
  async *runs(from: number, to: number): AsyncGenerator<BlockRun> {
    for (let at = from; at < to; ) {
      const page = this.#find(at) ?? (await this.#pageAt(at));
      const end = Math.min(page.end, to);
      yield* page.runs(at, end);
      at = end;
    }
  }

  /** Written blocks of the snapshot, once all of it has been listed. */
  allocatedBlocks(): number | undefined {
    return this.#allocation.total();
  }

  /** Memory that pages take now, bytes. */
  get bytes(): number {
    return this.#recent.calculatedSize;
  }

  close(): void {
    this.#closed.abort();
  }

  async #pageAt(blockIndex: number): Promise<IndexPage> {
    // Another's listing may stop short of this block; then this lookup lists for itself.
    const others = this.#listingOf(blockIndex);
    if (others !== undefined) {
      const page = await others.done;
      if (page.covers(blockIndex)) return page;
      const found = this.#find(blockIndex);
      if (found !== undefined && this.#isUsable(found, blockIndex)) return found;
    }
    return await this.#startListing(blockIndex);
  }

  #listingOf(blockIndex: number): Listing | undefined {
    for (const listing of this.#listings) {
      if (blockIndex >= listing.start && blockIndex < listing.likelyEnd) return listing;
    }
    return undefined;
  }

  #startListing(wanted: number): Promise<IndexPage> {
    const before = this.#pages[this.#positionOf(wanted)];
    const start = Math.max(wanted - (wanted % ALIGNMENT), before?.end ?? 0);
    const asked = before?.end === start ? nextPage(before.asked) : FIRST_PAGE;
    const done = this.#list(start, wanted, asked);
    const listing = { start, likelyEnd: Math.max(start + asked, wanted + 1), done };
    this.#listings.add(listing);
    const end = () => void this.#listings.delete(listing);
    done.then(end, end);
    return done;
  }

  /** Lists from `start` until `wanted` is covered; returns the page that covers it. */
  async #list(start: number, wanted: number, asked: number): Promise<IndexPage> {
    await this.#enter();
    try {
      const walk = walkBlocks(this.#api, this.#snapshotId, start);
      for (let calls = 0; calls < LONGEST_CHAIN; calls += 1) {
        const walked = await walk.next(asked, this.#closed.signal);
        if (walked === undefined) break;
        this.#checkOrder(walked);
        const page = this.#take(walked, asked);
        if (page?.covers(wanted)) return page;
      }
    } finally {
      this.#leave();
    }
    throw new Failure(
      "EIO",
      `Listing the blocks of ${this.#snapshotId} does not get to block ${wanted}: the service's pages lead nowhere. Try again later.`,
    );
  }

  /**
   * What a page lists before the walk must be known already, or the list is in no order, and what was
   * taken for holes is none. @throws Failure EIO
   */
  #checkOrder({ page, start }: WalkedPage<BlockPage>): void {
    for (const index of page.blockIndexes) {
      if (index >= start) return;
      if (this.peek(index) !== "hole") continue;
      throw new Failure(
        "EIO",
        `The service lists block ${index} of ${this.#snapshotId} after blocks up to ${start - 1}: a list out of order cannot be trusted; check --endpoint-url.`,
      );
    }
  }

  /** Keeps what a page proves; undefined where it proves nothing. */
  #take({ page: listed, start, end: to }: WalkedPage<BlockPage>, asked: number) {
    if (listed.volumeSizeGiB !== this.volumeSizeGiB) {
      throw new Failure(
        "EIO",
        `${this.#snapshotId} changed its size from ${this.volumeSizeGiB} to ${listed.volumeSizeGiB} GiB, which a completed snapshot never does; check --endpoint-url.`,
      );
    }
    const end = Math.min(to, this.blockCount);
    if (end <= start) return undefined;
    const now = Date.now();
    const life = listed.expiresAt - now;
    const page = new IndexPage({ start, end }, listed.blockIndexes, listed.blockTokens, {
      asked,
      // A clock that is wrong by days must not make every lookup list again.
      usableUntil: now + Math.max(life - Math.min(EXPIRY_MARGIN_MS, life / 10), 1_000),
    });
    this.#allocation.add(page);
    this.#insert(page);
    return page;
  }

  /** Adds a page in place of what it overlaps, whose tokens are older. */
  #insert(page: IndexPage): void {
    for (const old of this.#overlapped(page)) {
      this.#recent.delete(old.start);
      if (old.start < page.start) this.#add(old.within(old.start, page.start));
      if (old.end > page.end) this.#add(old.within(page.end, old.end));
    }
    this.#add(page);
  }

  #add(page: IndexPage): void {
    this.#pages.splice(this.#positionOf(page.start) + 1, 0, page);
    this.#recent.set(page.start, page);
  }

  #overlapped(page: IndexPage): IndexPage[] {
    const first = Math.max(0, this.#positionOf(page.start));
    const overlapped: IndexPage[] = [];
    for (let i = first; i < this.#pages.length; i += 1) {
      const old = this.#pages[i] as IndexPage;
      if (old.start >= page.end) break;
      if (old.end > page.start) overlapped.push(old);
    }
    return overlapped;
  }

  #forget(page: IndexPage): void {
    const at = this.#positionOf(page.start);
    if (this.#pages[at] === page) this.#pages.splice(at, 1);
  }

  #find(blockIndex: number): IndexPage | undefined {
    const page = this.#pages[this.#positionOf(blockIndex)];
    if (page === undefined || !page.covers(blockIndex)) return undefined;
    this.#recent.get(page.start);
    return page;
  }

  /** That a block is a hole stays true for ever; its token does not. */
  #isUsable(page: IndexPage, blockIndex: number): boolean {
    return Date.now() < page.usableUntil || !page.isWritten(blockIndex);
  }

  /** Position of the last page that starts at or before the block; -1 where there is none. */
  #positionOf(blockIndex: number): number {
    let low = 0;
    let high = this.#pages.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#pages[middle] as IndexPage).start <= blockIndex) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  async #enter(): Promise<void> {
    if (this.#running < LISTINGS) this.#running += 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** The next in line takes over the place. */
  #leave(): void {
    const next = this.#waiting.shift();
    if (next !== undefined) next();
    else this.#running -= 1;
  }
}
