/**
 * Answers reads in the thread that took them from the kernel, where all their bytes are in memory:
 * no message, no copy. It finds and pins slots through the shared table (slot-table.ts) and leaves
 * everything else to the main thread. When it comes to a block that was read ahead, it raises a
 * signal, so that readahead goes on though the main thread sees none of these reads.
 *
 * A file that can be written has a filter that says which blocks may have been changed; those are
 * never answered here, because the changes lie above this cache.
 */
import { BroadcastChannel } from "node:worker_threads";
import type { DirectReader } from "../common/direct-reads.js";
import { BLOCK_SIZE } from "../common/sizes.js";
import { DirtyFilter } from "./dirty-filter.js";
import { HOLE, MISS, type SlotMemory, SlotTable, zeroBlock } from "./slot-table.js";

/** One file that shows one device. */
export interface DirectFile {
  readonly inode: number;
  readonly device: number;
  /** Bytes. */
  readonly size: number;
  /** The overlay's filter of changed blocks (src/cache/dirty-filter.ts). */
  readonly dirtyFilter?: SharedArrayBuffer;
}

export interface DirectReaderData {
  readonly memory: SlotMemory;
  readonly files: readonly DirectFile[];
  /** Name of the BroadcastChannel that wakes the main thread. */
  readonly channel: string;
}

/** Blocks that one answer may be made of; a read of 1 MiB spans three. */
const MOST_BLOCKS = 8;

/** What the driver's thread calls; see DirectReads in src/common/direct-reads.ts. */
export function openDirectReader(data: unknown): DirectReader {
  return new CacheReader(data as DirectReaderData);
}

interface OpenFile {
  readonly device: number;
  readonly size: number;
  readonly filter: DirtyFilter | undefined;
}

class CacheReader implements DirectReader {
  readonly #table: SlotTable;
  readonly #files: ReadonlyMap<number, OpenFile>;
  readonly #channel: BroadcastChannel;
  /** Slots pinned for the answer that is out. */
  readonly #pinned: number[] = [];

  constructor(data: DirectReaderData) {
    this.#table = new SlotTable(data.memory);
    this.#files = new Map(
      data.files.map(({ inode, device, size, dirtyFilter }) => {
        const filter = dirtyFilter === undefined ? undefined : new DirtyFilter(dirtyFilter);
        return [inode, { device, size, filter }];
      }),
    );
    this.#channel = new BroadcastChannel(data.channel);
    this.#channel.unref();
  }

  tryRead(inode: number, offset: number, length: number): readonly Uint8Array[] | undefined {
    const file = this.#files.get(inode);
    if (file === undefined || length <= 0 || offset + length > file.size) return undefined;
    const first = Math.floor(offset / BLOCK_SIZE);
    const last = Math.floor((offset + length - 1) / BLOCK_SIZE);
    if (last - first >= MOST_BLOCKS) return undefined;
    const parts: Uint8Array[] = [];
    for (let block = first; block <= last; block += 1) {
      const slot = file.filter?.mayBeDirty(block) ? MISS : this.#table.pin(file.device, block);
      if (slot === MISS) {
        this.done();
        return undefined;
      }
      if (slot !== HOLE) this.#pinned.push(slot);
      const bytes = slot === HOLE ? zeroBlock() : this.#table.bytes(slot);
      const start = block * BLOCK_SIZE;
      const from = Math.max(offset - start, 0);
      const to = Math.min(offset + length - start, BLOCK_SIZE);
      parts.push(to - from === BLOCK_SIZE ? bytes : bytes.subarray(from, to));
    }
    this.#note(parts.length);
    return parts;
  }

  done(): void {
    for (let slot = this.#pinned.pop(); slot !== undefined; slot = this.#pinned.pop()) {
      this.#table.unpin(slot);
    }
  }

  #note(blocks: number): void {
    this.#table.countDirectHits(blocks);
    let reached = false;
    for (const slot of this.#pinned) reached = this.#table.unmark(slot) || reached;
    if (reached && this.#table.raiseSignal()) this.#channel.postMessage(0);
  }
}
