/**
 * A completed snapshot as its readers see it: its own layer over its parent's, over the parent's
 * parent's and so on, a synthetic snapshot possibly at the bottom. The layers' indexes are merged
 * once into two flat arrays (6 bytes a block), so a lookup is two binary searches whatever the depth
 * of the lineage, and a child costs no copy of what it inherits. A synthetic bottom is not merged:
 * it can have 134 million blocks, and computing whether it has one is cheaper than a lookup.
 */
import { lowerBound } from "../common/lower-bound.js";
import type { Layer } from "./layer.js";
import { nextSynthetic, type SyntheticSpec, syntheticHas } from "./synthetic.js";

/** Block indexes looked at for one page, so that a thinly written volume cannot stall the server. */
const SCAN_LIMIT = 1 << 20;
/** Snapshots in one lineage; the service's own limit is not published. */
export const MAX_LINEAGE = 65_535;

/** Some block indexes in order. */
export interface IndexPage {
  readonly blockIndexes: Uint32Array;
  /** Where to go on; undefined at the end. */
  readonly next: number | undefined;
}

export class SnapshotView {
  /** Nearest first. */
  readonly #layers: readonly Layer[];
  readonly base: SyntheticSpec | undefined;
  /** Blocks that some layer stores, ascending, and which layer is the nearest to do so. */
  readonly blockIndexes: Uint32Array;
  readonly #owners: Uint16Array;
  readonly memory: number;

  /** @param layers nearest first, the parent's next. @param base what the last layer stands on. */
  constructor(layers: readonly Layer[], base: SyntheticSpec | undefined) {
    this.#layers = layers;
    this.base = base;
    [this.blockIndexes, this.#owners] = merge(layers);
    // Layers are counted for each view that holds them: too much rather than too little.
    this.memory = layers.reduce((sum, layer) => sum + layer.memory, this.blockIndexes.length * 6);
  }

  /** The layer that holds the block; undefined where none does (the base may). */
  layerOf(blockIndex: number): Layer | undefined {
    const at = lowerBound(this.blockIndexes, blockIndex);
    return this.blockIndexes[at] === blockIndex ? this.#layers[this.#owners[at]!] : undefined;
  }

  /**
   * Says whose version of a block this is: equal for two views if and only if they show the very
   * same stored block. Undefined where the block is not written.
   */
  versionOf(blockIndex: number): string | undefined {
    const layer = this.layerOf(blockIndex);
    if (layer !== undefined) return layer.snapshotId;
    return this.base !== undefined && syntheticHas(this.base, blockIndex) ? "base" : undefined;
  }

  /**
   * Up to `limit` written blocks from `from` on; fewer, even none, without being at the end.
   * @param scanLimit indexes of a synthetic base to look at, 1 or more.
   */
  page(from: number, limit: number, volumeBlocks: number, scanLimit = SCAN_LIMIT): IndexPage {
    const found = new Uint32Array(limit);
    const { blockIndexes, base } = this;
    let count = 0;
    let at = lowerBound(blockIndexes, from);
    let baseNext = from;
    const baseEnd = base === undefined ? from : Math.min(volumeBlocks, from + scanLimit);
    if (base !== undefined) baseNext = nextSynthetic(base, from, baseEnd);
    const baseBlocks = base === undefined ? 0 : base.volumeSizeGiB * 2048;
    while (count < limit) {
      const stored = at < blockIndexes.length ? blockIndexes[at]! : Number.POSITIVE_INFINITY;
      const computed =
        baseNext < baseEnd && baseNext < baseBlocks ? baseNext : Number.POSITIVE_INFINITY;
      const lowest = Math.min(stored, computed);
      if (lowest === Number.POSITIVE_INFINITY) break;
      // Past what was scanned of the base, stored blocks would overtake unscanned ones.
      if (base !== undefined && lowest >= baseEnd && baseEnd < baseBlocks) break;
      found[count++] = lowest;
      if (stored === lowest) at += 1;
      if (computed === lowest && base !== undefined) {
        baseNext = nextSynthetic(base, lowest + 1, baseEnd);
      }
    }
    const blocks = found.subarray(0, count);
    if (count === limit) {
      const next = blocks[count - 1]! + 1;
      return { blockIndexes: blocks, next: this.#ended(next, volumeBlocks) ? undefined : next };
    }
    const scanned = base !== undefined && baseEnd < Math.min(baseBlocks, volumeBlocks);
    return { blockIndexes: blocks, next: scanned ? baseEnd : undefined };
  }

  #ended(from: number, volumeBlocks: number): boolean {
    if (from >= volumeBlocks) return true;
    if (this.base !== undefined && from < this.base.volumeSizeGiB * 2048) return false;
    return lowerBound(this.blockIndexes, from) === this.blockIndexes.length;
  }
}

/** Sorts all (block, depth) pairs as single numbers; the nearest of each block comes first. */
function merge(layers: readonly Layer[]): [Uint32Array, Uint16Array] {
  if (layers.length === 1) {
    const only = layers[0]!.blockIndexes;
    return [only, new Uint16Array(only.length)];
  }
  const total = layers.reduce((sum, layer) => sum + layer.blockIndexes.length, 0);
  const keys = new Float64Array(total);
  let filled = 0;
  layers.forEach((layer, depth) => {
    for (const blockIndex of layer.blockIndexes) keys[filled++] = blockIndex * 65_536 + depth;
  });
  keys.sort();
  const blockIndexes = new Uint32Array(total);
  const owners = new Uint16Array(total);
  let count = 0;
  for (const key of keys) {
    const blockIndex = Math.floor(key / 65_536);
    if (count > 0 && blockIndexes[count - 1] === blockIndex) continue;
    blockIndexes[count] = blockIndex;
    owners[count++] = key % 65_536;
  }
  return [blockIndexes.slice(0, count), owners.slice(0, count)];
}
