/**
 * Which sectors of the volume are dirty, and how. Two levels, neither sized by the volume: a group
 * of 1024 blocks (512 MiB) exists only once something in it is dirty, and is one number while all of
 * it is in one state, so zeroing 64 TiB costs 131,072 numbers; else it holds one byte a block and,
 * for blocks whose sectors differ, four bits a sector (sector-states.ts). Sectors written in part keep
 * a mask of their written bytes (sector-masks.ts) until the rest is written. A sector never becomes
 * clean again, nor partly written again.
 */
import { SECTORS_PER_BLOCK } from "../common/sizes.js";
import { newMask, type SectorMasks, SpillingMasks } from "./sector-masks.js";
import {
  CLEAN,
  countData,
  DATA,
  getState,
  HOLE,
  hasWritten,
  newStates,
  PARTIAL,
  type RunState,
  runEndIn,
  type SectorState,
  STATES_BYTES,
  setStates,
  ZERO,
} from "./sector-states.js";

export const BLOCKS_PER_GROUP = 1024;
const SECTORS_PER_GROUP = BLOCKS_PER_GROUP * SECTORS_PER_BLOCK;
/** State of a block whose sectors differ. */
export const MIXED = 3;

/** A run of blocks [first, end) that are all written, all zeros, all discarded, or of several states. */
export interface DirtyRun {
  readonly first: number;
  readonly end: number;
  readonly kind: "data" | "zero" | "hole" | "mixed";
}

interface Group {
  /** One state a block: CLEAN, DATA, ZERO, HOLE or MIXED. */
  readonly blocks: Uint8Array;
  readonly mixed: Map<number, Uint8Array>;
  /** Sectors in DATA or PARTIAL. */
  dataSectors: number;
}

export class DirtyMap {
  readonly #groups = new Map<number, Group | RunState>();
  /** Of PARTIAL sectors. */
  readonly #masks: SectorMasks;
  #dataSectors = 0;

  /** @param masks where they are kept; in memory unless given. */
  constructor(masks: SectorMasks = new SpillingMasks()) {
    this.#masks = masks;
  }

  /** Sectors that have bytes in the overlay file. */
  get dataSectors(): number {
    return this.#dataSectors;
  }

  get isEmpty(): boolean {
    return this.#groups.size === 0;
  }

  stateAt(sector: number): SectorState {
    const block = Math.floor(sector / SECTORS_PER_BLOCK);
    const group = this.#groups.get(block >>> 10);
    if (group === undefined) return CLEAN;
    if (typeof group === "number") return group;
    const state = group.blocks[block & 1023]!;
    if (state !== MIXED) return state as SectorState;
    return getState(group.mixed.get(block & 1023)!, sector - block * SECTORS_PER_BLOCK);
  }

  /** End of the run of sectors in one state that begins at `sector`; at most `end`. */
  runEnd(sector: number, end: number): number {
    const state = this.stateAt(sector);
    let at = sector;
    while (at < end) {
      const block = Math.floor(at / SECTORS_PER_BLOCK);
      const group = this.#groups.get(block >>> 10);
      if (group === undefined || typeof group === "number") {
        if ((group ?? CLEAN) !== state) return at;
        at = ((block >>> 10) + 1) * SECTORS_PER_GROUP;
        continue;
      }
      const blockState = group.blocks[block & 1023]!;
      const start = block * SECTORS_PER_BLOCK;
      if (blockState !== MIXED) {
        if (blockState !== state) return at;
        at = start + SECTORS_PER_BLOCK;
        continue;
      }
      const states = group.mixed.get(block & 1023)!;
      if (getState(states, at - start) !== state) return at;
      const stop = runEndIn(states, at - start, SECTORS_PER_BLOCK);
      if (stop < SECTORS_PER_BLOCK) return Math.min(end, start + stop);
      at = start + SECTORS_PER_BLOCK;
    }
    return end;
  }

  /** Puts all of [start, end) into one state. @returns whether that changed anything */
  set(start: number, end: number, state: RunState): boolean {
    let changed = false;
    let sector = start;
    while (sector < end) {
      const index = Math.floor(sector / SECTORS_PER_GROUP);
      const groupStart = index * SECTORS_PER_GROUP;
      const stop = Math.min(end, groupStart + SECTORS_PER_GROUP);
      if (stop - sector === SECTORS_PER_GROUP) {
        if (this.#setGroup(index, state)) changed = true;
      } else if (this.#groups.get(index) !== state) {
        if (this.#setInGroup(index, sector - groupStart, stop - groupStart, state)) changed = true;
      }
      sector = stop;
    }
    return changed;
  }

  /**
   * Marks bytes [from, to) of a CLEAN or PARTIAL sector as written; a sector that is complete
   * becomes DATA. @returns whether that changed anything
   */
  addBytes(sector: number, from: number, to: number): boolean {
    const mask = newMask();
    if (this.stateAt(sector) === PARTIAL) mask.set(this.maskOf(sector) ?? mask);
    let changed = false;
    for (let byte = from; byte < to; byte++) {
      const bit = 1 << (byte & 31);
      if ((mask[byte >> 5]! & bit) === 0) {
        mask[byte >> 5]! |= bit;
        changed = true;
      }
    }
    if (!changed) return false;
    if (mask.every((word) => word === 0xffffffff)) this.set(sector, sector + 1, DATA);
    else this.setMask(sector, mask);
    return true;
  }

  /** The written bytes of a PARTIAL sector, one bit each. @throws Failure EIO */
  maskOf(sector: number): Uint32Array | undefined {
    return this.#masks.get(sector);
  }

  /** Makes a sector PARTIAL, with exactly these bytes written. @throws Failure ENOSPC, EIO */
  setMask(sector: number, mask: Uint32Array): void {
    // First, for it can fail: a sector without a mask must not be PARTIAL.
    this.#masks.set(sector, mask);
    const index = Math.floor(sector / SECTORS_PER_GROUP);
    const within = sector - index * SECTORS_PER_GROUP;
    this.#setInGroup(index, within, within + 1, PARTIAL);
  }

  /** Replaces the states of one block; none of them may be PARTIAL (use setMask after). */
  setStates(block: number, states: Uint8Array): void {
    const base = block * SECTORS_PER_BLOCK;
    for (let at = 0; at < SECTORS_PER_BLOCK; ) {
      const stop = runEndIn(states, at, SECTORS_PER_BLOCK);
      const state = getState(states, at);
      if (state === DATA || state === ZERO || state === HOLE) {
        this.set(base + at, base + stop, state);
      }
      at = stop;
    }
  }

  /** Sectors of [start, end) that have bytes in the overlay file. */
  countData(start: number, end: number): number {
    let count = 0;
    for (let sector = start; sector < end; ) {
      const stop = this.runEnd(sector, end);
      if ((this.stateAt(sector) & 1) !== 0) count += stop - sector;
      sector = stop;
    }
    return count;
  }

  /**
   * Whether anything in the block was written, zeros included: such a block is put even where the
   * base has none and all of it is zeros.
   */
  isWritten(block: number): boolean {
    const state = this.blockState(block);
    return state === MIXED
      ? hasWritten(this.mixedStates(block)!)
      : state === DATA || state === ZERO;
  }

  /** CLEAN, DATA, ZERO, HOLE or MIXED. */
  blockState(block: number): number {
    const group = this.#groups.get(block >>> 10);
    if (group === undefined) return CLEAN;
    return typeof group === "number" ? group : group.blocks[block & 1023]!;
  }

  /** The states of a MIXED block; they must not be changed. */
  mixedStates(block: number): Uint8Array | undefined {
    const group = this.#groups.get(block >>> 10);
    return typeof group === "object" ? group.mixed.get(block & 1023) : undefined;
  }

  /** The groups that hold anything dirty, ascending. */
  dirtyGroups(): number[] {
    return [...this.#groups.keys()].sort((a, b) => a - b);
  }

  /** A group's one state, or undefined where its blocks differ. */
  groupState(index: number): typeof CLEAN | RunState | undefined {
    const group = this.#groups.get(index);
    if (group === undefined) return CLEAN;
    return typeof group === "number" ? group : undefined;
  }

  /** All dirty blocks, ascending, as runs; do not change the map while iterating. */
  *runs(): Generator<DirtyRun> {
    let first = 0;
    let end = 0;
    let state = CLEAN as number;
    for (const index of this.dirtyGroups()) {
      const group = this.#groups.get(index)!;
      const start = index * BLOCKS_PER_GROUP;
      for (let i = 0; i < BLOCKS_PER_GROUP; ) {
        const next = typeof group === "number" ? group : group.blocks[i]!;
        let stop = BLOCKS_PER_GROUP;
        if (typeof group !== "number") {
          stop = i + 1;
          while (stop < BLOCKS_PER_GROUP && group.blocks[stop] === next) stop++;
        }
        if (next !== state || start + i !== end) {
          if (state !== CLEAN) yield { first, end, kind: kindOf(state) };
          first = start + i;
          state = next;
        }
        end = start + stop;
        i = stop;
      }
    }
    if (state !== CLEAN) yield { first, end, kind: kindOf(state) };
  }

  #setGroup(index: number, state: RunState): boolean {
    const old = this.#groups.get(index);
    if (old === state) return false;
    if (typeof old === "object") {
      for (const [block, states] of old.mixed) {
        this.#dropMasks(index * BLOCKS_PER_GROUP + block, states, 0, SECTORS_PER_BLOCK);
      }
      this.#dataSectors -= old.dataSectors;
    } else if (old === DATA) {
      this.#dataSectors -= SECTORS_PER_GROUP;
    }
    if (state === DATA) this.#dataSectors += SECTORS_PER_GROUP;
    this.#groups.set(index, state);
    return true;
  }

  /** The group with a byte a block, made from its one state where it has none. */
  #expanded(index: number): Group {
    const old = this.#groups.get(index);
    if (typeof old === "object") return old;
    const group: Group = {
      blocks: new Uint8Array(BLOCKS_PER_GROUP).fill(old ?? CLEAN),
      mixed: new Map(),
      dataSectors: old === DATA ? SECTORS_PER_GROUP : 0,
    };
    this.#groups.set(index, group);
    return group;
  }

  /** Sets sectors [from, to) of one group. */
  #setInGroup(index: number, from: number, to: number, state: SectorState): boolean {
    const group = this.#expanded(index);
    const dataBefore = group.dataSectors;
    let changed = false;
    for (let sector = from; sector < to; ) {
      const block = Math.floor(sector / SECTORS_PER_BLOCK);
      const start = block * SECTORS_PER_BLOCK;
      const stop = Math.min(to, start + SECTORS_PER_BLOCK);
      if (this.#setInBlock(group, index, block, sector - start, stop - start, state))
        changed = true;
      sector = stop;
    }
    this.#dataSectors += group.dataSectors - dataBefore;
    return changed;
  }

  #setInBlock(
    group: Group,
    index: number,
    block: number,
    from: number,
    to: number,
    state: SectorState,
  ): boolean {
    const old = group.blocks[block]!;
    if (old === state && old !== MIXED) return false;
    let states = group.mixed.get(block);
    const dataBefore =
      states !== undefined ? countData(states, from, to) : old === DATA ? to - from : 0;
    if (states !== undefined) {
      if (getState(states, from) === state && runEndIn(states, from, to) === to) return false;
      this.#dropMasks(index * BLOCKS_PER_GROUP + block, states, from, to);
    }
    group.dataSectors += ((state & 1) !== 0 ? to - from : 0) - dataBefore;
    if (to - from < SECTORS_PER_BLOCK) {
      if (states === undefined) {
        states = newStates(old as SectorState);
        group.mixed.set(block, states);
        group.blocks[block] = MIXED;
      }
      setStates(states, from, to, state);
      if (state === PARTIAL || getState(states, 0) !== state) return true;
      if (runEndIn(states, 0, SECTORS_PER_BLOCK) < SECTORS_PER_BLOCK) return true;
    }
    group.mixed.delete(block);
    group.blocks[block] = state;
    return true;
  }

  #dropMasks(block: number, states: Uint8Array, from: number, to: number): void {
    for (let at = from; at < to; ) {
      const stop = runEndIn(states, at, to);
      if (getState(states, at) === PARTIAL) {
        for (let s = at; s < stop; s++) this.#masks.delete(block * SECTORS_PER_BLOCK + s);
      }
      at = stop;
    }
  }
}

function kindOf(state: number): DirtyRun["kind"] {
  if (state === DATA) return "data";
  if (state === ZERO) return "zero";
  return state === HOLE ? "hole" : "mixed";
}

/** Bytes that the states of one MIXED block take. */
export const MIXED_BYTES = STATES_BYTES;
