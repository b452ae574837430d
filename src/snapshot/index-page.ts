/**
 * One listed part of a snapshot's block index: all written blocks of a range of block indexes, and
 * nothing said about others. Compact, because a snapshot can have a hundred million blocks: indexes
 * in one typed array and all tokens in one byte array, some 70 bytes a block in place of objects.
 */

import { lowerBound } from "../common/lower-bound.js";

/** A run of blocks of one kind; `end` is exclusive. */
export interface BlockRun {
  readonly start: number;
  readonly end: number;
  readonly kind: "data" | "hole";
}

/** What a page weighs besides its blocks, bytes; a rough figure that keeps tiny pages countable. */
const OVERHEAD = 400;

export class IndexPage {
  /** The range that is covered: [start, end), block indexes. */
  readonly start: number;
  readonly end: number;
  /** When its tokens should no longer be used, ms since the epoch. */
  readonly usableUntil: number;
  /** How many blocks were asked for; the next page's size is chosen after it. */
  readonly asked: number;
  readonly #indexes: Uint32Array;
  readonly #tokens: Buffer;
  /** Token i is #tokens[#ends[i - 1] .. #ends[i]]. */
  readonly #ends: Uint32Array;

  /**
   * @param indexes strictly ascending; those outside [start, end) are left out.
   * @param tokens ASCII, one for each index.
   */
  constructor(
    range: { readonly start: number; readonly end: number },
    indexes: Uint32Array,
    tokens: readonly string[],
    more: { readonly usableUntil: number; readonly asked: number },
  ) {
    this.start = range.start;
    this.end = range.end;
    this.usableUntil = more.usableUntil;
    this.asked = more.asked;
    const first = lowerBound(indexes, range.start);
    const last = lowerBound(indexes, range.end);
    this.#indexes = indexes.slice(first, last);
    this.#ends = new Uint32Array(last - first);
    let length = 0;
    for (let i = first; i < last; i += 1) {
      length += (tokens[i] as string).length;
      this.#ends[i - first] = length;
    }
    this.#tokens = Buffer.allocUnsafeSlow(length);
    let at = 0;
    for (let i = first; i < last; i += 1)
      at += this.#tokens.write(tokens[i] as string, at, "latin1");
  }

  /** Written blocks in the range. */
  get count(): number {
    return this.#indexes.length;
  }

  /** Memory it takes, bytes. */
  get bytes(): number {
    return OVERHEAD + 8 * this.#indexes.length + this.#tokens.length;
  }

  covers(blockIndex: number): boolean {
    return blockIndex >= this.start && blockIndex < this.end;
  }

  /** The block's token; undefined where it was never written. The page must cover it. */
  token(blockIndex: number): string | undefined {
    const at = lowerBound(this.#indexes, blockIndex);
    if (this.#indexes[at] !== blockIndex) return undefined;
    const from = at === 0 ? 0 : (this.#ends[at - 1] as number);
    return this.#tokens.toString("latin1", from, this.#ends[at] as number);
  }

  isWritten(blockIndex: number): boolean {
    return this.#indexes[lowerBound(this.#indexes, blockIndex)] === blockIndex;
  }

  /** Written blocks in [start, end). */
  countIn(start: number, end: number): number {
    return lowerBound(this.#indexes, end) - lowerBound(this.#indexes, start);
  }

  /** The runs that make up [from, to), a range inside the page. */
  *runs(from: number, to: number): Generator<BlockRun> {
    let at = from;
    let position = lowerBound(this.#indexes, from);
    while (at < to) {
      const next = Math.min(this.#indexes[position] ?? to, to);
      if (next > at) yield { start: at, end: next, kind: "hole" };
      at = next;
      while (at < to && this.#indexes[position] === at) {
        position += 1;
        at += 1;
      }
      if (at > next) yield { start: next, end: at, kind: "data" };
    }
  }

  /** The same, for a smaller range [start, end) inside it. */
  within(start: number, end: number): IndexPage {
    if (start === this.start && end === this.end) return this;
    const tokens = Array.from(this.#indexes, (index) => this.token(index) as string);
    return new IndexPage({ start, end }, this.#indexes, tokens, this);
  }
}
