/**
 * Gives the disk space of zeroed and discarded ranges back, in small steps between other work. It only ever
 * touches ranges whose zero state is durable in the journal, and looks the dirty map up in the same
 * indivisible step in which it punches: a range that was written again is left alone, and a crash
 * finds either the zeros it was told of or something newer. Best effort: what it forgets only costs
 * disk space.
 */
import { MIB, SECTOR_SIZE } from "../common/sizes.js";
import type { DirtyMap } from "./dirty-map.js";
import type { SectorRange } from "./map-codec.js";
import type { OverlayStore } from "./overlay-store.js";
import { CLEAN, readsAsZeros } from "./sector-states.js";

const STEP_BYTES = 64 * MIB;
/** Shortest range worth a system call: file systems give space back by pages. */
const LEAST_BYTES = 4096;
const MAX_QUEUED = 4096;

/** Why the overlay files need not keep a sector's bytes: it was never written, or it is zeros by state. */
type Unneeded = "clean" | "zeros";

interface Task extends SectorRange {
  readonly unneeded: Unneeded;
}

export class HolePuncher {
  readonly #map: DirtyMap;
  readonly #store: OverlayStore;
  readonly #queue: Task[] = [];
  #working: Promise<void> | undefined;
  #closed = false;

  constructor(map: DirtyMap, store: OverlayStore) {
    this.#map = map;
    this.#store = store;
  }

  /** Punches what of the range is still unneeded by the time its turn comes. */
  add(range: SectorRange, unneeded: Unneeded = "zeros"): void {
    if (this.#closed || this.#queue.length >= MAX_QUEUED) return;
    if ((range.end - range.start) * SECTOR_SIZE < LEAST_BYTES) return;
    this.#queue.push({ start: range.start, end: range.end, unneeded });
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
    });
  }

  /** Stops, and resolves when nothing is being punched any more. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#working;
  }

  async #work(): Promise<void> {
    for (let task = this.#queue.shift(); task !== undefined; task = this.#queue.shift()) {
      let at = task.start;
      while (at < task.end) {
        await new Promise<void>((resolve) => setImmediate(resolve));
        if (this.#closed) return;
        at = this.#step(task, at);
      }
    }
  }

  /** One step, synchronous. @returns the sector where the next one goes on */
  #step(task: Task, from: number): number {
    try {
      const data = this.#store.nextData(from * SECTOR_SIZE);
      if (data === undefined) return task.end;
      const start = Math.max(from, Math.floor(data[0] / SECTOR_SIZE));
      const stop = Math.ceil(Math.min(data[1], data[0] + STEP_BYTES) / SECTOR_SIZE);
      const end = Math.min(task.end, stop);
      for (let at = start; at < end; ) {
        const runEnd = this.#map.runEnd(at, end);
        const length = (runEnd - at) * SECTOR_SIZE;
        const state = this.#map.stateAt(at);
        const isUnneeded = task.unneeded === "clean" ? state === CLEAN : readsAsZeros(state);
        if (isUnneeded && length >= LEAST_BYTES) {
          this.#store.punch(at * SECTOR_SIZE, length);
        }
        at = runEnd;
      }
      return Math.max(end, start);
    } catch {
      return task.end;
    }
  }
}
