/**
 * Which blocks of a mounted snapshot are the same in another one, whose blocks the disk cache may
 * hold. ListChangedBlocks tells it, by range, and is asked only when a block of the other snapshot
 * is there to be had. A block is unchanged only where a page covers it and does not list it: up to
 * the page's last block, or to the end where the list ended; anything less, and any failure, is "not
 * known", and the block is fetched. Calls, their time and what is remembered are bounded.
 */
import { BLOCKS_PER_GIB } from "../common/sizes.js";
import type { EbsApi } from "../ebs/api.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";

/** Changed blocks asked for in one call, the service's most. */
const PAGE = 10_000;
/** A listing starts at a multiple of this, blocks (2 GiB). */
const ALIGNMENT = 2 * BLOCKS_PER_GIB;
/** Calls from the start of a listing to the block wanted, and in the life of a mount. */
const LONGEST_CHAIN = 4;
const MOST_CALLS = 1_000;
/** A reader waits for it, ms: then fetching is surer. */
const CALL_LIMIT_MS = 5_000;
/** Pages remembered, 40 KB each at most. */
const PAGES = 64;

interface Page {
  /** Block indexes, [start, end). */
  readonly start: number;
  readonly end: number;
  readonly changed: Uint32Array;
}

export class LineageDifference {
  readonly other: SnapshotId;
  readonly #api: Pick<EbsApi, "listChangedBlocks">;
  readonly #snapshotId: SnapshotId;
  readonly #onRefused: () => void;
  /** Latest first. */
  readonly #pages: Page[] = [];
  readonly #listings = new Map<number, Promise<void>>();
  #calls = 0;
  #isOff = false;

  /** @param onRefused the credentials may not compare snapshots at all. */
  constructor(
    api: Pick<EbsApi, "listChangedBlocks">,
    other: SnapshotId,
    snapshotId: SnapshotId,
    onRefused: () => void,
  ) {
    this.#api = api;
    this.other = other;
    this.#snapshotId = snapshotId;
    this.#onRefused = onRefused;
  }

  /** The snapshots are of different lineages, or cannot be compared. */
  get isOff(): boolean {
    return this.#isOff;
  }

  /** True only where the service has said so. Never rejects. */
  async isUnchanged(block: number): Promise<boolean> {
    if (this.#isOff) return false;
    const known = this.#find(block);
    if (known !== undefined) return !includes(known.changed, block);
    const start = block - (block % ALIGNMENT);
    let listing = this.#listings.get(start);
    if (listing === undefined) {
      listing = this.#list(start, block).finally(() => this.#listings.delete(start));
      this.#listings.set(start, listing);
    }
    await listing;
    // Another's listing may have stopped short of this block: then it is simply not known.
    const page = this.#isOff ? undefined : this.#find(block);
    return page !== undefined && !includes(page.changed, block);
  }

  stop(): void {
    this.#isOff = true;
    this.#pages.length = 0;
  }

  async #list(start: number, wanted: number): Promise<void> {
    const signal = AbortSignal.timeout(CALL_LIMIT_MS);
    let from = start;
    let pageToken: string | undefined;
    try {
      for (let call = 0; call < LONGEST_CHAIN && this.#calls < MOST_CALLS; call += 1) {
        this.#calls += 1;
        const answer = await this.#api.listChangedBlocks(this.other, this.#snapshotId, {
          startingBlockIndex: from,
          maxResults: PAGE,
          signal,
          ...(pageToken !== undefined && { pageToken }),
        });
        const changed = answer.blockIndexes;
        const last = changed.at(-1);
        const ended = answer.nextToken === undefined;
        const end = ended ? Number.POSITIVE_INFINITY : last === undefined ? from : last + 1;
        if (end > from) this.#remember({ start: from, end, changed });
        if (end > wanted) return;
        from = Math.max(from, end);
        pageToken = answer.nextToken;
      }
    } catch (error) {
      this.stop();
      if ((error as { errno?: unknown }).errno === "EACCES") this.#onRefused();
    }
  }

  #remember(page: Page): void {
    this.#pages.unshift(page);
    this.#pages.length = Math.min(this.#pages.length, PAGES);
  }

  #find(block: number): Page | undefined {
    return this.#pages.find(({ start, end }) => block >= start && block < end);
  }
}

function includes(ascending: Uint32Array, value: number): boolean {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ascending[middle] as number) < value) low = middle + 1;
    else high = middle;
  }
  return ascending[low] === value;
}
