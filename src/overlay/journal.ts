/**
 * Makes the overlay durable. Writes go to the overlay files and the dirty map at once; a flush then
 *   1. notes, in one indivisible step, the present states of all blocks that changed (ChangeSet),
 *   2. syncs the overlay files: the bytes behind those states are on disk,
 *   3. appends the states to the journal and syncs it: the flush is done.
 * The states are noted before the sync because a write that comes meanwhile may not be on disk yet:
 * journaled, it would let a crash show stale bytes of the overlay file. A crash between the steps
 * leaves the older journal: states it does not know read as the base or as before, so each sector is
 * what was flushed or newer. Callers that come while a flush runs share the next one. After a failed
 * sync the kernel may have dropped what it could not write, so nothing is trusted from then on: the
 * journal refuses everything until the session is opened again, at its last flush.
 */
import { Failure } from "../common/failure.js";
import { MIB } from "../common/sizes.js";
import type { DirtyMap } from "./dirty-map.js";
import type { SessionFiles } from "./disk-file.js";
import type { SectorRange } from "./map-codec.js";
import { applyRecord, ChangeSet, type Encoded, encodeAll, encodeChanges } from "./map-codec.js";
import type { OverlayStore } from "./overlay-store.js";
import { RecordLog } from "./record-log.js";
import type { Reserve } from "./reserve.js";

export const JOURNAL = "journal";
const NEW_JOURNAL = "journal.new";
/** Below this size a journal is never rewritten, bytes. */
const COMPACT_FLOOR = 4 * MIB;
/** A journal is rewritten when it is this many times the size it had when last rewritten. */
const COMPACT_FACTOR = 4;

const DONE = Promise.resolve();

export class Journal {
  readonly #files: SessionFiles;
  readonly #store: OverlayStore;
  readonly #map: DirtyMap;
  readonly #reserve: Reserve;
  readonly #onZeros: (range: SectorRange) => void;
  readonly #compactFloor: number;
  #log: RecordLog;
  #changes = new ChangeSet();
  #dataChanged = false;
  #compactAt: number;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #failed: Failure | undefined;

  /**
   * Opens or creates the folder's journal and replays it into `map`.
   * @param onZeros told the ranges whose zero state has become durable
   */
  constructor(
    files: SessionFiles,
    store: OverlayStore,
    map: DirtyMap,
    sectors: number,
    reserve: Reserve,
    onZeros: (range: SectorRange) => void,
    compactFloor = COMPACT_FLOOR,
  ) {
    this.#files = files;
    this.#store = store;
    this.#map = map;
    this.#reserve = reserve;
    this.#onZeros = onZeros;
    this.#compactFloor = compactFloor;
    files.remove(NEW_JOURNAL);
    this.#log = RecordLog.open(files, JOURNAL, (payload) => applyRecord(map, payload, sectors));
    this.#compactAt = Math.max(compactFloor, this.#log.size * COMPACT_FACTOR);
  }

  /**
   * Makes durable what was found at opening, before it is built upon: a process that was killed may have
   * left more than it had synced, which everybody sees until the power goes. @throws Failure EIO
   */
  settle(): Promise<void> {
    return this.#trusted(async () => {
      await this.#store.sync();
      await this.#log.sync();
    });
  }

  /** What every use of the overlay's bytes must ask first. @throws Failure EIO after a failed sync */
  check(): void {
    if (this.#failed !== undefined) throw this.#failed;
  }

  /** Entries that the next flush has to journal. */
  get backlog(): number {
    return this.#changes.size;
  }

  /** The states of sectors in blocks [first, end) changed. */
  changed(first: number, end: number): void {
    this.#changes.add(first, end);
  }

  /** Bytes of the overlay files changed. */
  wrote(): void {
    this.#dataChanged = true;
  }

  /** Resolves when all that changed before the call is durable. @throws Failure ENOSPC, EIO */
  flush(): Promise<void> {
    if (this.#next !== undefined) return this.#next;
    if (this.#running === undefined) {
      if (this.#failed !== undefined) return Promise.reject(this.#failed);
      if (!this.#dataChanged && this.#changes.size === 0) return DONE;
      return this.#run();
    }
    const next = this.#running
      .catch(() => {})
      .then(() => {
        this.#next = undefined;
        return this.#run();
      });
    this.#next = next;
    return next;
  }

  close(): void {
    this.#log.close();
  }

  #run(): Promise<void> {
    const running = this.#flushOnce().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }

  async #flushOnce(): Promise<void> {
    this.check();
    const changes = this.#changes;
    const withData = this.#dataChanged;
    const compact = this.#log.size > this.#compactAt;
    const encoded = compact ? encodeAll(this.#map) : encodeChanges(this.#map, changes);
    this.#changes = new ChangeSet();
    this.#dataChanged = false;
    if (withData) await this.#trusted(() => this.#store.sync());
    if (changes.size === 0) return;
    try {
      if (compact) await this.#rewrite(encoded);
      else await this.#append(encoded);
    } catch (error) {
      this.#changes.merge(changes);
      throw error;
    }
    for (const zeros of encoded.zeros) this.#onZeros(zeros);
  }

  async #append(encoded: Encoded): Promise<void> {
    for (const record of encoded.records) this.#reserve.spendOn(() => this.#log.append(record));
    await this.#trusted(() => this.#log.sync());
  }

  /** Writes the whole state into a new journal, which then takes the old one's name. */
  async #rewrite(encoded: Encoded): Promise<void> {
    let log: RecordLog | undefined;
    try {
      log = RecordLog.create(this.#files, NEW_JOURNAL);
      for (const record of encoded.records) log.append(record);
      await log.sync();
    } catch {
      // No room, or the new file could not be made durable: the old journal is as good as before.
      log?.close();
      this.#files.remove(NEW_JOURNAL);
      this.#compactAt = this.#log.size * 2;
      return this.#append(encoded);
    }
    await this.#trusted(() => this.#files.replace(NEW_JOURNAL, JOURNAL));
    this.#log.close();
    this.#log = log;
    this.#compactAt = Math.max(this.#compactFloor, log.size * COMPACT_FACTOR);
  }

  /** Runs what must not fail halfway; after a failure nothing is trusted any more. */
  async #trusted(step: () => Promise<void>): Promise<void> {
    try {
      await step();
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      this.#failed ??= new Failure(
        "EIO",
        `The session's disk failed while data was made durable (${why}). What was flushed before is safe: unmount, check the disk, then go on with mount --resume.`,
        { cause },
      );
      throw this.#failed;
    }
  }
}
