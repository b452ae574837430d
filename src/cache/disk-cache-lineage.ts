/**
 * Which blocks of a mounted snapshot are the same in another one, whose blocks the disk cache may
 * hold. ListChangedBlocks tells it, by range, and is asked only when a block of the other snapshot
 * is there to be had. A block is unchanged only where a page covers it and does not list it: up to
 * the page's last block, or to the end where the list ended; anything less, and any failure, is "not
 * known", and the block is fetched. A service that is slow or out of reach is asked again after a
 * rest; one that says no is not. Calls, their time and what is remembered are bounded.
 */
import { errnoOf } from "../common/failure.js";
import { lowerBound } from "../common/lower-bound.js";
import { BLOCKS_PER_GIB } from "../common/sizes.js";
import type { ChangedBlockPage, EbsApi } from "../ebs/api.js";
import { isInvalidPageToken } from "../ebs/errors.js";
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
/** After a call that came to nothing, ms. */
const REST_MS = 30_000;

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
  readonly #volumeSizeGiB: number;
  readonly #onRefused: () => void;
  /** Latest first. */
  readonly #pages: Page[] = [];
  readonly #listings = new Map<number, Promise<void>>();
  #calls = 0;
  #isOff = false;
  #restsUntil = Number.NEGATIVE_INFINITY;

  /**
   * @param volumeSizeGiB of the mounted snapshot.
   * @param onRefused the credentials may not compare snapshots at all.
   */
  constructor(
    api: Pick<EbsApi, "listChangedBlocks">,
    other: SnapshotId,
    snapshotId: SnapshotId,
    volumeSizeGiB: number,
    onRefused: () => void,
  ) {
    this.#api = api;
    this.other = other;
    this.#snapshotId = snapshotId;
    this.#volumeSizeGiB = volumeSizeGiB;
    this.#onRefused = onRefused;
  }

  /** False where the snapshots cannot be compared, or not just now. */
  get isUsable(): boolean {
    return !this.#isOff && performance.now() >= this.#restsUntil;
  }

  /** The snapshots are of one lineage. */
  get isProven(): boolean {
    return this.#pages.length > 0;
  }

  /** True only where the service has said so. Never rejects. */
  async isUnchanged(block: number): Promise<boolean> {
    if (!this.isUsable) return false;
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

  #stop(): void {
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
        const answer = await this.#page(from, pageToken, signal);
        if (answer.volumeSizeGiB !== this.#volumeSizeGiB) {
          // Whatever was answered, it was not this question.
          this.#stop();
          return;
        }
        const changed = answer.blockIndexes;
        if (pageToken !== undefined && (changed[0] ?? from) < from) {
          // In no order: what was taken for unchanged may not be.
          this.#stop();
          return;
        }
        const last = changed.at(-1);
        const ended = answer.nextToken === undefined;
        const end = ended ? Number.POSITIVE_INFINITY : last === undefined ? from : last + 1;
        if (end > from) this.#remember({ start: from, end, changed });
        if (end > wanted) return;
        from = Math.max(from, end);
        pageToken = answer.nextToken;
      }
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "ETIMEDOUT" || errno === "EINTR") {
        this.#restsUntil = performance.now() + REST_MS;
        return;
      }
      this.#stop();
      if (errno === "EACCES") this.#onRefused();
    }
  }

  /** A page token that is no longer good is done without. */
  async #page(
    from: number,
    pageToken: string | undefined,
    signal: AbortSignal,
  ): Promise<ChangedBlockPage> {
    const options = { startingBlockIndex: from, maxResults: PAGE, signal };
    const list = (more: { pageToken?: string }) =>
      this.#api.listChangedBlocks(this.other, this.#snapshotId, { ...options, ...more });
    if (pageToken === undefined) return await list({});
    try {
      return await list({ pageToken });
    } catch (error) {
      if (!isInvalidPageToken(error)) throw error;
      return await list({});
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
  return ascending[lowerBound(ascending, value)] === value;
}
