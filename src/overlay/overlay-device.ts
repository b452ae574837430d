/**
 * The writable disk: a base that never changes, below local dirty data. Nothing of a write waits for
 * the base or the network: its bytes go to the overlay files, its sectors into the dirty map, in one
 * synchronous step; durable it is after flush (journal.ts). A read first gets the base's bytes where
 * the map says any are needed, and then, again in one synchronous step, lays the dirty bytes over them
 * by the map of that instant. Sectors never become clean again, so whatever is clean in that step was
 * clean before it, and its base bytes are there: a read sees all of each write or nothing, and every
 * write that had returned before it began.
 *
 * Zeros are noted in the map and take no disk space, whether they come as a request to zero or as a
 * long write of zero bytes, which is what the kernel sends where it may not punch.
 */
import { DirtyFilter } from "../cache/dirty-filter.js";
import { Failure } from "../common/failure.js";
import { allOrFirstError } from "../common/parallel.js";
import { BLOCK_SIZE, KIB, SECTOR_SIZE } from "../common/sizes.js";
import { isZeros, ZEROS } from "../common/zeros.js";
import type { BlockDevice, Extent, View, WritableBlockDevice } from "../device/block-device.js";
import { GrownDevice } from "../device/grown-device.js";
import { zeroView } from "../device/zero-device.js";
import { DirtyMap, type DirtyRun } from "./dirty-map.js";
import type { SessionFiles } from "./disk-file.js";
import { HolePuncher } from "./hole-puncher.js";
import { Journal } from "./journal.js";
import { applyDirty, baseSpans, mergedExtents } from "./merge.js";
import { checkOverlayFiles } from "./overlay-check.js";
import { OverlayStore } from "./overlay-store.js";
import type { Reserve } from "./reserve.js";
import { SpillingMasks } from "./sector-masks.js";
import { CLEAN, DATA, HOLE, readsAsZeros, ZERO } from "./sector-states.js";

/** What an overlay needs of a session. */
export interface OverlayFolder {
  readonly files: SessionFiles;
  readonly reserve: Reserve;
  /** Size of the volume, bytes. */
  readonly volumeBytes: number;
}

export interface OverlayOptions {
  /** Most bytes of dirty data to keep; ENOSPC past it. No limit where absent. */
  readonly limitBytes?: number;
  /** Take discards as holes; they are refused unless this is set. */
  readonly takesDiscards?: boolean;
  /** Flush by itself this often, ms, so that a crash costs little even without fsync. 0: never. */
  readonly flushEveryMs?: number;
  /** Masks of partly written sectors kept in memory; tests choose a small number. */
  readonly masksInMemory?: number;
}

/** Told of writes, zeros and discards, before their effect can be seen. */
export interface DirtyListener {
  touched(firstBlock: number, endBlock: number): void;
}

/** Entries waiting for the journal from which on a writer waits for a flush. */
const MAX_BACKLOG = 65_536;
/** A shorter write of zeros goes to the overlay file: noting it would cost as much. */
const MIN_NOTED_ZEROS_BYTES = 64 * KIB;
const DONE = Promise.resolve();

export class OverlayDevice implements WritableBlockDevice {
  readonly size: number;
  /** What is below; as large as this device. */
  readonly base: BlockDevice;
  /** For another thread that reads the base by itself. */
  readonly filter = new DirtyFilter();
  readonly #masks: SpillingMasks;
  readonly #map: DirtyMap;
  readonly #store: OverlayStore;
  readonly #journal: Journal;
  readonly #puncher: HolePuncher;
  readonly #reserve: Reserve;
  readonly #limitSectors: number;
  readonly #takesDiscards: boolean;
  readonly #timer: NodeJS.Timeout | undefined;
  #listener: DirtyListener | undefined;
  #refusal: Failure | undefined;

  private constructor(folder: OverlayFolder, base: BlockDevice, options: OverlayOptions) {
    this.size = folder.volumeBytes;
    this.base = base.size < this.size ? new GrownDevice(base, this.size) : base;
    if (this.base.size !== this.size) {
      throw new Failure("EINVAL", "The session's volume is smaller than the snapshot it is of.");
    }
    this.#reserve = folder.reserve;
    this.#limitSectors = Math.floor((options.limitBytes ?? Number.POSITIVE_INFINITY) / SECTOR_SIZE);
    this.#takesDiscards = options.takesDiscards ?? false;
    this.#masks = new SpillingMasks(folder.files, options.masksInMemory);
    this.#map = new DirtyMap(this.#masks);
    this.#store = new OverlayStore(folder.files, this.size);
    this.#puncher = new HolePuncher(this.#map, this.#store);
    let journal: Journal | undefined;
    try {
      journal = new Journal(
        folder.files,
        this.#store,
        this.#map,
        this.size / SECTOR_SIZE,
        folder.reserve,
        (range) => this.#puncher.add(range),
      );
      checkOverlayFiles(this.#map, this.#store);
    } catch (error) {
      journal?.close();
      this.#store.close();
      this.#masks.close();
      throw error;
    }
    this.#journal = journal;
    for (const run of this.#map.runs()) this.filter.mark(run.first, run.end);
    // Bytes that no journal knows: written before a crash and never flushed.
    this.#puncher.add({ start: 0, end: this.size / SECTOR_SIZE }, "clean");
    if (options.flushEveryMs !== undefined && options.flushEveryMs > 0) {
      // A failure is not lost: what was not flushed stays to be flushed, and fsync tells.
      const flush = () => void this.flush().catch(() => {});
      this.#timer = setInterval(flush, options.flushEveryMs).unref();
    }
  }

  /**
   * Opens the overlay of a session above `base`, as it was when last flushed or newer.
   * @throws Failure EIO where the journal is damaged, or the disk fails; the base is not closed then
   */
  static async open(
    folder: OverlayFolder,
    base: BlockDevice,
    options: OverlayOptions = {},
  ): Promise<OverlayDevice> {
    const device = new OverlayDevice(folder, base, options);
    try {
      await device.#journal.settle();
    } catch (error) {
      await device.#release();
      throw error;
    }
    return device;
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const end = this.#checkRange(offset, target.length);
    const spans = baseSpans(this.#map, offset, end);
    const fill = ([from, to]: [number, number]) =>
      this.base.read(from, target.subarray(from - offset, to - offset), signal);
    if (spans.length === 1) await fill(spans[0]!);
    else if (spans.length > 1) await allOrFirstError(spans.map(fill));
    this.applyDirty(offset, target);
  }

  async view(offset: number, length: number, signal?: AbortSignal): Promise<View> {
    const end = this.#checkRange(offset, length);
    const first = Math.floor(offset / SECTOR_SIZE);
    const last = Math.ceil(end / SECTOR_SIZE);
    if (length > 0 && this.#map.runEnd(first, last) === last) {
      const state = this.#map.stateAt(first);
      if (state === CLEAN) return this.base.view(offset, length, signal);
      if (readsAsZeros(state)) return zeroView(length);
    }
    const bytes = Buffer.allocUnsafeSlow(length);
    await this.read(offset, bytes, signal);
    return { parts: [bytes], release: () => {} };
  }

  extents(offset: number, length: number): AsyncIterable<Extent> {
    const end = this.#checkRange(offset, length);
    return mergedExtents(this.#map, this.base, offset, end);
  }

  allocatedBytes(): number | undefined {
    const below = this.base.allocatedBytes();
    return below === undefined ? undefined : Math.min(this.size, below + this.dirtyBytes);
  }

  /** Bytes of dirty data in the overlay files. */
  get dirtyBytes(): number {
    return this.#map.dataSectors * SECTOR_SIZE;
  }

  /** Whether anything in the block was written, zeros included; not so where it was only discarded. */
  isWritten(block: number): boolean {
    return this.#map.isWritten(block);
  }

  /** Whether nothing was ever written or discarded in this session. */
  get isUntouched(): boolean {
    return this.#map.isEmpty;
  }

  /** All dirty blocks, ascending; write nothing while iterating. */
  dirtyRuns(): Iterable<DirtyRun> {
    return this.#map.runs();
  }

  /**
   * Lays the dirty bytes of a range over `target`, which holds the base's bytes (where all of a
   * sector is dirty they may be anything). Synchronous: the range as it is at this instant.
   */
  applyDirty(offset: number, target: Uint8Array): void {
    applyDirty(this.#map, this.#store, this.#journal, offset, target);
  }

  /** Flushed data of a block that will not be read soon: its memory is given back. */
  dropCached(block: number): void {
    this.#store.dropCached(block * BLOCK_SIZE, BLOCK_SIZE);
  }

  write(offset: number, source: Uint8Array): Promise<void> {
    try {
      this.#checkRange(offset, source.length);
      if (source.length === 0) return DONE;
      if (this.#journal.backlog >= MAX_BACKLOG)
        return this.#flushThen(() => this.write(offset, source));
      this.#writeNow(offset, source);
      return DONE;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  zero(offset: number, length: number): Promise<void> {
    return this.#clear(offset, length, ZERO);
  }

  discard(offset: number, length: number): Promise<void> {
    if (this.#takesDiscards) return this.#clear(offset, length, HOLE);
    return Promise.reject(
      new Failure("EOPNOTSUPP", "Discards are not taken here: mount with --discard=holes."),
    );
  }

  flush(): Promise<void> {
    return this.#journal.flush();
  }

  /** Tells `listener` of every change from now on, in place of an earlier listener. */
  listen(listener: DirtyListener): void {
    this.#listener = listener;
  }

  /** Refuses changes from now on (EROFS); undefined allows them again. */
  refuseWrites(why: string | undefined): void {
    this.#refusal = why === undefined ? undefined : new Failure("EROFS", why);
  }

  /** Flushes and closes; the base as well. Closed it is even where the flush fails. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.refuseWrites("The session is closed.");
    try {
      await this.flush();
    } finally {
      await this.#release();
      await this.base.close();
    }
  }

  /** Gives back all but the base. */
  async #release(): Promise<void> {
    clearInterval(this.#timer);
    await this.#puncher.close();
    this.#journal.close();
    this.#store.close();
    this.#masks.close();
  }

  async #flushThen(then: () => Promise<void>): Promise<void> {
    await this.flush();
    await then();
  }

  #clear(offset: number, length: number, state: typeof ZERO | typeof HOLE): Promise<void> {
    try {
      const end = this.#checkRange(offset, length);
      if (length === 0) return DONE;
      if (this.#journal.backlog >= MAX_BACKLOG) {
        return this.#flushThen(() => this.#clear(offset, length, state));
      }
      this.#clearNow(offset, end, state);
      return DONE;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #clearNow(offset: number, end: number, state: typeof ZERO | typeof HOLE): void {
    this.#checkWritable();
    const first = Math.ceil(offset / SECTOR_SIZE);
    const last = Math.floor(end / SECTOR_SIZE);
    if (first > last) {
      this.#zeroBytes(offset, end, state);
      return;
    }
    this.#zeroBytes(offset, first * SECTOR_SIZE, state);
    this.#zeroBytes(last * SECTOR_SIZE, end, state);
    if (first < last) this.#setZeros(first, last, state);
  }

  #setZeros(first: number, last: number, state: typeof ZERO | typeof HOLE): void {
    this.#touch(first * SECTOR_SIZE, last * SECTOR_SIZE);
    if (this.#map.set(first, last, state)) this.#changed(first, last);
  }

  #writeNow(offset: number, source: Uint8Array): void {
    const end = offset + source.length;
    if (source.length >= MIN_NOTED_ZEROS_BYTES && isZeros(source)) {
      this.#clearNow(offset, end, ZERO);
      return;
    }
    this.#admit(offset, end);
    this.#touch(offset, end);
    // Set first: a write that fails may have changed bytes that count already.
    this.#journal.wrote();
    this.#store.writeAt(offset, source);
    const first = Math.ceil(offset / SECTOR_SIZE);
    const last = Math.floor(end / SECTOR_SIZE);
    if (first > last) {
      this.#wroteBytes(last, offset - last * SECTOR_SIZE, end - last * SECTOR_SIZE);
      return;
    }
    if (first < last && this.#map.set(first, last, DATA)) this.#changed(first, last);
    const head = first * SECTOR_SIZE - offset;
    if (head > 0) this.#wroteBytes(first - 1, SECTOR_SIZE - head, SECTOR_SIZE);
    const tail = end - last * SECTOR_SIZE;
    if (tail > 0) this.#wroteBytes(last, 0, tail);
  }

  /** Bytes [from, to) of a sector are in the overlay file; the others count by its state. */
  #wroteBytes(sector: number, from: number, to: number): void {
    const state = this.#map.stateAt(sector);
    if (state === DATA) return;
    if (readsAsZeros(state)) {
      // What the overlay file holds around the bytes is stale: the sector is zeros there.
      const start = sector * SECTOR_SIZE;
      if (from > 0) this.#store.writeAt(start, ZEROS.subarray(0, from));
      if (to < SECTOR_SIZE) this.#store.writeAt(start + to, ZEROS.subarray(0, SECTOR_SIZE - to));
      this.#map.set(sector, sector + 1, DATA);
      this.#changed(sector, sector + 1);
    } else if (this.#map.addBytes(sector, from, to)) {
      this.#changed(sector, sector + 1);
    }
  }

  /**
   * Zeros less than a sector: written as bytes, unless they are zeros by state. Bytes of a discarded
   * sector that are written with zeros make all of it written.
   */
  #zeroBytes(from: number, to: number, as: typeof ZERO | typeof HOLE): void {
    if (from === to) return;
    const sector = Math.floor(from / SECTOR_SIZE);
    const state = this.#map.stateAt(sector);
    if (!readsAsZeros(state)) this.#writeNow(from, ZEROS.subarray(0, to - from));
    else if (state === HOLE && as === ZERO) this.#setZeros(sector, sector + 1, ZERO);
  }

  /** @throws Failure where the disk has failed or the session takes no changes */
  #checkWritable(): void {
    this.#journal.check();
    if (this.#refusal !== undefined) throw this.#refusal;
  }

  /** @throws Failure where this write is not to be accepted */
  #admit(offset: number, end: number): void {
    this.#checkWritable();
    const first = Math.floor(offset / SECTOR_SIZE);
    const last = Math.ceil(end / SECTOR_SIZE);
    if (this.#map.dataSectors + (last - first) > this.#limitSectors) {
      const added = last - first - this.#map.countData(first, last);
      if (added > 0 && this.#map.dataSectors + added > this.#limitSectors) {
        throw new Failure(
          "ENOSPC",
          "The overlay has reached --overlay-limit: commit, or mount again with a larger one.",
        );
      }
    }
    if (!this.#reserve.isKept()) {
      throw new Failure(
        "ENOSPC",
        "The disk that holds the session is full: free some space there.",
      );
    }
  }

  /** What others must know before the bytes change. */
  #touch(offset: number, end: number): void {
    const first = Math.floor(offset / BLOCK_SIZE);
    const last = Math.ceil(end / BLOCK_SIZE);
    this.filter.mark(first, last);
    this.#listener?.touched(first, last);
  }

  #changed(firstSector: number, endSector: number): void {
    const first = Math.floor((firstSector * SECTOR_SIZE) / BLOCK_SIZE);
    this.#journal.changed(first, Math.ceil((endSector * SECTOR_SIZE) / BLOCK_SIZE));
  }

  #checkRange(offset: number, length: number): number {
    const end = offset + length;
    if (offset < 0 || length < 0 || end > this.size) {
      throw new Failure("EINVAL", "The range is not inside the volume.");
    }
    return end;
  }
}
