/**
 * Counts a snapshot's written blocks as its index is listed in parts, in any order and more than
 * once. Only ranges and their counts are kept, so it outlives the pages; when listing jumps about so
 * much that there are too many ranges, the smallest is forgotten (it may be listed again).
 */
import type { IndexPage } from "./index-page.js";

interface Counted {
  readonly start: number;
  readonly end: number;
  readonly count: number;
}

/** Ranges kept at most. */
const LIMIT = 4096;

export class AllocationCount {
  readonly #blocks: number;
  /** Ascending, without overlap; touching ranges are merged. */
  #ranges: Counted[] = [];

  /** @param blocks in the volume. */
  constructor(blocks: number) {
    this.#blocks = blocks;
  }

  /** Written blocks of the whole volume; undefined while a part was not listed. */
  total(): number | undefined {
    const only = this.#ranges[0];
    return only !== undefined && only.start === 0 && only.end === this.#blocks
      ? only.count
      : undefined;
  }

  add(page: IndexPage): void {
    if (page.end <= page.start) return;
    const before = this.#ranges.filter((range) => range.end < page.start);
    const after = this.#ranges.filter((range) => range.start > page.end);
    let merged: Counted = { start: page.start, end: page.end, count: page.count };
    for (const range of this.#ranges.slice(before.length, this.#ranges.length - after.length)) {
      merged = join(range, merged, page);
    }
    this.#ranges = [...before, merged, ...after];
    if (this.#ranges.length > LIMIT) this.#forgetSmallest();
  }

  #forgetSmallest(): void {
    const size = (range: Counted) => range.end - range.start;
    const smallest = this.#ranges.reduce((a, b) => (size(b) < size(a) ? b : a));
    this.#ranges = this.#ranges.filter((range) => range !== smallest);
  }
}

/** Two ranges that touch or overlap; `page` can count any part of its own range. */
function join(known: Counted, merged: Counted, page: IndexPage): Counted {
  const from = Math.max(known.start, page.start);
  const to = Math.min(known.end, page.end);
  const twice = to > from ? page.countIn(from, to) : 0;
  return {
    start: Math.min(known.start, merged.start),
    end: Math.max(known.end, merged.end),
    count: known.count + merged.count - twice,
  };
}
