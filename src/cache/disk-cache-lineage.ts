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
import type { EbsApi } from "../ebs/api.js";
import { ListWalk, MAX_PAGE_BLOCKS } from "../ebs/list-walk.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";

/** Changed blocks asked for at a random place; more where listing goes on in sequence. */
const FIRST_PAGE = 1_000;
/** A listing starts at a multiple of this, blocks (64 MiB), so that readers of one region share it. */
const ALIGNMENT = 128;
/** Calls from the start of a listing to the block wanted, and in the life of a mount. */
const LONGEST_CHAIN = 4;
const MOST_CALLS = 1_000;
/** A reader waits for it, ms: then fetching is surer. */
const CALL_LIMIT_MS = 5_000;
/** Pages remembered, 4 KB each, 40 KB at most. */
const PAGES = 256;
/** After calls that came to nothing, ms. */
const REST_MS = 30_000;

interface Page {
  /** Block indexes, [start, end). */
  readonly start: number;
  readonly end: number;
  readonly changed: Uint32Array;
  /** How many were asked for. */
  readonly asked: number;
}

interface Listing {
  readonly start: number;
  /** Where it will get to if all blocks are changed; further if not. */
  readonly likelyEnd: number;
  readonly done: Promise<void>;
}

export class LineageDifference {
  readonly other: SnapshotId;
  readonly #api: Pick<EbsApi, "listChangedBlocks">;
  readonly #snapshotId: SnapshotId;
  readonly #volumeSizeGiB: number;
  readonly #onRefused: () => void;
  /** Latest first. */
  readonly #pages: Page[] = [];
  readonly #listings = new Set<Listing>();
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
    await (this.#listingOf(block) ?? this.#start(block)).done;
    // Another's listing may have stopped short of this block: then it is simply not known.
    const page = this.#isOff ? undefined : this.#find(block);
    return page !== undefined && !includes(page.changed, block);
  }

  #stop(): void {
    this.#isOff = true;
    this.#pages.length = 0;
  }

  #rest(): void {
    this.#restsUntil = performance.now() + REST_MS;
  }

  #listingOf(block: number): Listing | undefined {
    for (const listing of this.#listings) {
      if (block >= listing.start && block < listing.likelyEnd) return listing;
    }
    return undefined;
  }

  #start(block: number): Listing {
    const aligned = block - (block % ALIGNMENT);
    const before = this.#pages.find(({ end }) => end >= aligned && end <= block);
    const start = before?.end ?? aligned;
    const asked = before === undefined ? FIRST_PAGE : more(before.asked);
    const done = this.#list(start, block, asked).finally(() => this.#listings.delete(listing));
    const listing: Listing = { start, likelyEnd: Math.max(start + asked, block + 1), done };
    this.#listings.add(listing);
    return listing;
  }

  /** Lists from `start` until `wanted` is covered, or enough calls were made. */
  async #list(start: number, wanted: number, first: number): Promise<void> {
    const signal = AbortSignal.timeout(CALL_LIMIT_MS);
    const walk = new ListWalk(
      this.#snapshotId,
      (options) => {
        this.#calls += 1;
        return this.#api.listChangedBlocks(this.other, this.#snapshotId, options);
      },
      start,
    );
    let asked = first;
    try {
      for (let call = 0; call < LONGEST_CHAIN && this.#calls < MOST_CALLS; call += 1) {
        const walked = await walk.next(asked, signal);
        if (walked === undefined) return;
        const { page, start: from, end } = walked;
        const isOrdered = (page.blockIndexes[0] ?? from) >= from;
        if (page.volumeSizeGiB !== this.#volumeSizeGiB || !isOrdered) {
          // Whatever was listed, it is not what was asked for; what was taken for unchanged may not be.
          this.#stop();
          return;
        }
        if (end > from) this.#remember({ start: from, end, changed: page.blockIndexes, asked });
        if (end > wanted) return;
        asked = more(asked);
      }
      if (walk.from === start) this.#rest();
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "ETIMEDOUT" || errno === "EINTR") {
        this.#rest();
        return;
      }
      this.#stop();
      if (errno === "EACCES") this.#onRefused();
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

/** Listing goes on: what was asked for was too little. */
function more(asked: number): number {
  return Math.min(MAX_PAGE_BLOCKS, asked * 4);
}

function includes(ascending: Uint32Array, value: number): boolean {
  return ascending[lowerBound(ascending, value)] === value;
}
