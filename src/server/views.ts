/**
 * The completed snapshots that are being read: their merged indexes under a byte budget, their data
 * files under a number. Concurrent first readers of a snapshot share one load. Reading a block is
 * one lookup and one pread; the checksum comes from the index and is not computed.
 */
import { read } from "node:fs";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { LRUCache } from "lru-cache";
import { BLOCK_SIZE, MIB } from "../common/sizes.js";
import type { BlockBuffer } from "./block-buffers.js";
import { FileCache } from "./file-cache.js";
import { Layer, readLog } from "./layer.js";
import { StoreDamage } from "./service-error.js";
import type { SnapshotRecord } from "./snapshot-record.js";
import { MAX_LINEAGE, SnapshotView } from "./snapshot-view.js";
import type { Store } from "./store.js";
import { fillSynthetic, syntheticDigest, syntheticHas } from "./synthetic.js";

const LAYER_BUDGET = 256 * MIB;
const VIEW_BUDGET = 512 * MIB;
const MAX_OPEN_FILES = 128;

const readAt = promisify(read);

export class Views {
  readonly #store: Store;
  readonly #files = new FileCache(MAX_OPEN_FILES);
  readonly #layers: LRUCache<string, Layer>;
  readonly #views: LRUCache<string, SnapshotView>;
  /** The last view built, for one that is larger than the whole budget. */
  #last: { readonly snapshotId: string; readonly view: SnapshotView } | undefined;

  constructor(store: Store) {
    this.#store = store;
    this.#layers = new LRUCache({
      maxSize: LAYER_BUDGET,
      sizeCalculation: (layer) => layer.memory,
      fetchMethod: (id) => this.#loadLayer(id),
    });
    this.#views = new LRUCache({
      maxSize: VIEW_BUDGET,
      sizeCalculation: (view) => view.memory + 1024,
      fetchMethod: (id) => this.#build(id),
    });
  }

  /** @param record a completed snapshot. */
  async of(record: SnapshotRecord): Promise<SnapshotView> {
    const { snapshotId } = record;
    const known = this.#views.get(snapshotId);
    if (known !== undefined) return known;
    if (this.#last?.snapshotId === snapshotId) return this.#last.view;
    const view = await this.#views.forceFetch(snapshotId);
    this.#last = { snapshotId, view };
    return view;
  }

  /** The snapshot's oldest ancestor: two snapshots with one root are of one lineage. */
  root(record: SnapshotRecord): string {
    return this.#lineage(record.snapshotId).at(-1)!.snapshotId;
  }

  /**
   * Fills `target` with a block. @returns its Base64 SHA-256; undefined where it is not written.
   * @throws StoreDamage where the store's file is cut short.
   */
  async read(
    view: SnapshotView,
    blockIndex: number,
    target: BlockBuffer,
  ): Promise<string | undefined> {
    const layer = view.layerOf(blockIndex);
    if (layer === undefined) {
      const { base } = view;
      if (base === undefined || !syntheticHas(base, blockIndex)) return undefined;
      fillSynthetic(base.seed, blockIndex, target.words, target.seed === base.seed);
      target.seed = base.seed;
      return syntheticDigest(base.seed, blockIndex, target.bytes).toString("base64");
    }
    target.seed = undefined;
    const at = layer.find(blockIndex);
    const start = layer.slot(at) * BLOCK_SIZE;
    const file = await this.#files.lend(this.#store.dataFile(layer.snapshotId));
    try {
      let done = 0;
      while (done < BLOCK_SIZE) {
        const left = BLOCK_SIZE - done;
        const { bytesRead } = await readAt(file.fd, target.bytes, done, left, start + done);
        if (bytesRead === 0) {
          throw new StoreDamage(`The store has lost block ${blockIndex} of ${layer.snapshotId}.`);
        }
        done += bytesRead;
      }
    } finally {
      file.release();
    }
    return layer.checksum(at);
  }

  /** Forgets a snapshot that was removed. */
  forget(snapshotId: string): void {
    this.#views.delete(snapshotId);
    this.#layers.delete(snapshotId);
    this.#files.forget(this.#store.dataFile(snapshotId));
    if (this.#last?.snapshotId === snapshotId) this.#last = undefined;
  }

  close(): void {
    this.#files.close();
  }

  async #build(snapshotId: string): Promise<SnapshotView> {
    const lineage = this.#lineage(snapshotId);
    const base = lineage.at(-1)!.synthetic;
    const layers: Layer[] = [];
    for (const record of lineage) {
      if (record.synthetic === undefined) {
        layers.push(await this.#layers.forceFetch(record.snapshotId));
      }
    }
    return new SnapshotView(layers, base);
  }

  /** The snapshot, its parent, and so on. */
  #lineage(snapshotId: string): SnapshotRecord[] {
    const lineage: SnapshotRecord[] = [];
    let next: string | undefined = snapshotId;
    while (next !== undefined) {
      const record = this.#store.ancestor(next);
      if (record === undefined || lineage.length >= MAX_LINEAGE) {
        throw new StoreDamage(`The store has lost ${next}, an ancestor of ${snapshotId}.`);
      }
      lineage.push(record);
      next = record.parameters.parentSnapshotId;
    }
    return lineage;
  }

  /** @throws StoreDamage unless the layer holds exactly what its snapshot was completed with. */
  async #loadLayer(snapshotId: string): Promise<Layer> {
    const log = await readFile(this.#store.indexFile(snapshotId)).catch((error) => {
      // A snapshot that was completed without any put has no files.
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return Buffer.alloc(0);
      throw error;
    });
    const layer = new Layer(snapshotId, readLog(snapshotId, log));
    const { changedBlocksCount = 0, aggregate } = this.#store.ancestor(snapshotId) ?? {};
    const found = layer.blockIndexes.length;
    const isRight = aggregate === undefined || aggregate === layer.aggregate();
    if (found !== changedBlocksCount || !isRight) {
      throw new StoreDamage(
        `The store's index of ${snapshotId} is damaged: it was completed with ${changedBlocksCount} blocks, and ${found} of them are there, or others; restore its folder from a backup.`,
      );
    }
    return layer;
  }
}
