/**
 * A set of block indexes as a paged bitmap: a page of 4 KiB covers 32,768 blocks and exists once one
 * of them is in the set. A Set of numbers would take ten times the memory and ends at 16.7 million.
 */
const PAGE_BLOCKS = 32_768;

export class BlockSet {
  readonly #pages = new Map<number, Uint32Array>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(block: number): boolean {
    const word = this.#pages.get(Math.floor(block / PAGE_BLOCKS))?.[(block % PAGE_BLOCKS) >> 5];
    return word !== undefined && (word & (1 << (block & 31))) !== 0;
  }

  add(block: number): void {
    if (this.has(block)) return;
    const index = Math.floor(block / PAGE_BLOCKS);
    let page = this.#pages.get(index);
    if (page === undefined) {
      page = new Uint32Array(PAGE_BLOCKS / 32);
      this.#pages.set(index, page);
    }
    page[(block % PAGE_BLOCKS) >> 5]! |= 1 << (block & 31);
    this.#size += 1;
  }

  delete(block: number): void {
    if (!this.has(block)) return;
    const page = this.#pages.get(Math.floor(block / PAGE_BLOCKS))!;
    page[(block % PAGE_BLOCKS) >> 5]! &= ~(1 << (block & 31));
    this.#size -= 1;
  }

  /** Removes blocks [first, end); costs no more than the set is large. */
  deleteRange(first: number, end: number): void {
    if (end - first <= PAGE_BLOCKS) {
      for (let block = first; block < end && this.#size > 0; block++) this.delete(block);
    } else {
      for (const block of this.values()) if (block >= first && block < end) this.delete(block);
    }
  }

  clear(): void {
    this.#pages.clear();
    this.#size = 0;
  }

  /** Ascending. A block that is added or removed meanwhile may or may not be told. */
  *values(): Generator<number> {
    for (const index of [...this.#pages.keys()].sort((a, b) => a - b)) {
      const page = this.#pages.get(index);
      if (page === undefined) continue;
      for (let word = 0; word < page.length; word++) {
        for (let bit = 0; page[word] !== 0 && bit < 32; bit++) {
          if ((page[word]! & (1 << bit)) !== 0) yield index * PAGE_BLOCKS + word * 32 + bit;
        }
      }
    }
  }
}
