/**
 * How changes of the dirty map are written into journal records, and applied again. An entry sets an
 * absolute state, never a difference, so applying a journal twice, or a later part over an earlier,
 * ends in the same map. Three kinds: a run of sectors in one state; one block's sector states as
 * bits, where its runs would take more; the written bytes of one partly written sector.
 *
 * Sessions of schema 1 knew no HOLE: their ZERO meant either. It is read as ZERO, which costs puts
 * and loses nothing. Their states had two bits a sector and a kind of their own, still understood.
 */
import { Failure } from "../common/failure.js";
import { SECTOR_SIZE, SECTORS_PER_BLOCK } from "../common/sizes.js";
import { BLOCKS_PER_GROUP, type DirtyMap, MIXED, MIXED_BYTES } from "./dirty-map.js";
import {
  CLEAN,
  DATA,
  getState,
  HOLE,
  newStates,
  PARTIAL,
  type RunState,
  readsAsZeros,
  runEndIn,
  type SectorState,
  setStates,
  ZERO,
} from "./sector-states.js";

const RUN = 1;
/** Two bits a sector; written by schema 1 only. */
const NARROW_STATES = 2;
const MASK = 3;
const STATES = 4;
/** kind 1, state 1, padding 6, start 8, count 8. */
const ENTRY_BYTES = 24;
const MASK_BYTES = SECTOR_SIZE / 8;
const NARROW_STATES_BYTES = SECTORS_PER_BLOCK / 4;
/** Runs of one block from which on its states as bits are shorter. */
const RUNS_AS_STATES = Math.floor(MIXED_BYTES / ENTRY_BYTES);
/** A record is begun anew when it has grown past this. */
const RECORD_BYTES = 4 * 1024 * 1024;

/** Blocks and whole groups whose state changed since they were last journaled. */
export class ChangeSet {
  readonly blocks = new Set<number>();
  readonly groups = new Set<number>();

  get size(): number {
    return this.blocks.size + this.groups.size;
  }

  /** Notes blocks [first, end): whole groups as such, so a discard of 64 TiB stays small. */
  add(first: number, end: number): void {
    for (let block = first; block < end; ) {
      if ((block & (BLOCKS_PER_GROUP - 1)) === 0 && end - block >= BLOCKS_PER_GROUP) {
        this.groups.add(block / BLOCKS_PER_GROUP);
        block += BLOCKS_PER_GROUP;
      } else {
        this.blocks.add(block);
        block += 1;
      }
    }
  }

  /** Takes all over from another set. */
  merge(other: ChangeSet): void {
    for (const block of other.blocks) this.blocks.add(block);
    for (const group of other.groups) this.groups.add(group);
  }
}

/** Sectors [start, end). */
export interface SectorRange {
  readonly start: number;
  readonly end: number;
}

/** Writes entries into records; joins runs that touch. */
class Encoder {
  readonly records: Buffer[] = [];
  readonly zeros: SectorRange[] = [];
  #buffer = Buffer.alloc(64 * 1024);
  #length = 0;
  #runState: number = CLEAN;
  #runStart = 0;
  #runEnd = 0;

  run(state: number, start: number, end: number): void {
    if (state === this.#runState && start === this.#runEnd) {
      this.#runEnd = end;
      return;
    }
    this.#endRun();
    this.#runState = state;
    this.#runStart = start;
    this.#runEnd = end;
  }

  states(block: number, states: Uint8Array): void {
    this.#endRun();
    const at = this.#entry(STATES, 0, block, 1, MIXED_BYTES);
    this.#buffer.set(states, at);
  }

  mask(sector: number, mask: Uint32Array): void {
    this.#endRun();
    const at = this.#entry(MASK, 0, sector, 1, MASK_BYTES);
    for (let word = 0; word < mask.length; word++) {
      this.#buffer.writeUInt32LE(mask[word]!, at + word * 4);
    }
  }

  finish(): Buffer[] {
    this.#endRun();
    this.#endRecord();
    return this.records;
  }

  #endRun(): void {
    if (this.#runState === CLEAN) return;
    const { start, end } = { start: this.#runStart, end: this.#runEnd };
    this.#entry(RUN, this.#runState, start, end - start, 0);
    if (readsAsZeros(this.#runState)) this.zeros.push({ start, end });
    this.#runState = CLEAN;
  }

  /** @returns where the entry's extra bytes go */
  #entry(kind: number, state: number, start: number, count: number, extra: number): number {
    if (this.#length > RECORD_BYTES) this.#endRecord();
    const at = this.#length;
    if (at + ENTRY_BYTES + extra > this.#buffer.length) {
      const larger = Buffer.alloc(this.#buffer.length * 2);
      this.#buffer.copy(larger, 0, 0, at);
      this.#buffer = larger;
    }
    this.#buffer.fill(0, at, at + 8);
    this.#buffer[at] = kind;
    this.#buffer[at + 1] = state;
    this.#buffer.writeDoubleLE(start, at + 8);
    this.#buffer.writeDoubleLE(count, at + 16);
    this.#length = at + ENTRY_BYTES + extra;
    return at + ENTRY_BYTES;
  }

  #endRecord(): void {
    if (this.#length === 0) return;
    this.records.push(Buffer.from(this.#buffer.subarray(0, this.#length)));
    this.#length = 0;
  }
}

function encodeBlock(map: DirtyMap, block: number, encoder: Encoder): void {
  const first = block * SECTORS_PER_BLOCK;
  const state = map.blockState(block);
  if (state !== MIXED) {
    if (state !== CLEAN) encoder.run(state, first, first + SECTORS_PER_BLOCK);
    return;
  }
  const states = map.mixedStates(block)!;
  let runs = 0;
  for (let at = 0; at < SECTORS_PER_BLOCK; runs++) at = runEndIn(states, at, SECTORS_PER_BLOCK);
  const asStates = runs > RUNS_AS_STATES ? Buffer.from(states) : undefined;
  const partial: number[] = [];
  for (let at = 0; at < SECTORS_PER_BLOCK; ) {
    const stop = runEndIn(states, at, SECTORS_PER_BLOCK);
    const runState = getState(states, at);
    if (runState === PARTIAL) {
      for (let sector = at; sector < stop; sector++) partial.push(first + sector);
      if (asStates !== undefined) setStates(asStates, at, stop, CLEAN);
    } else if (asStates === undefined && runState !== CLEAN) {
      encoder.run(runState, first + at, first + stop);
    }
    at = stop;
  }
  if (asStates !== undefined) {
    encoder.states(block, asStates);
    for (let at = 0; at < SECTORS_PER_BLOCK; ) {
      const stop = runEndIn(states, at, SECTORS_PER_BLOCK);
      if (readsAsZeros(getState(states, at))) {
        encoder.zeros.push({ start: first + at, end: first + stop });
      }
      at = stop;
    }
  }
  for (const sector of partial) encoder.mask(sector, map.maskOf(sector)!);
}

function encodeGroup(map: DirtyMap, index: number, encoder: Encoder): void {
  const first = index * BLOCKS_PER_GROUP;
  const state = map.groupState(index);
  if (state === undefined) {
    for (let i = 0; i < BLOCKS_PER_GROUP; i++) encodeBlock(map, first + i, encoder);
  } else if (state !== CLEAN) {
    const end = (first + BLOCKS_PER_GROUP) * SECTORS_PER_BLOCK;
    encoder.run(state, first * SECTORS_PER_BLOCK, end);
  }
}

export interface Encoded {
  readonly records: Buffer[];
  /** The sector ranges that the records say read as zeros. */
  readonly zeros: SectorRange[];
}

/** The present state of what changed, as journal records. */
export function encodeChanges(map: DirtyMap, changes: ChangeSet): Encoded {
  const encoder = new Encoder();
  for (const group of [...changes.groups].sort((a, b) => a - b)) encodeGroup(map, group, encoder);
  for (const block of [...changes.blocks].sort((a, b) => a - b)) {
    if (!changes.groups.has(block >>> 10)) encodeBlock(map, block, encoder);
  }
  return { records: encoder.finish(), zeros: encoder.zeros };
}

/** The whole map, as records for a new journal. */
export function encodeAll(map: DirtyMap): Encoded {
  const encoder = new Encoder();
  for (const group of map.dirtyGroups()) encodeGroup(map, group, encoder);
  return { records: encoder.finish(), zeros: encoder.zeros };
}

/**
 * Applies one record to a map.
 * @param sectors the volume's size in sectors
 * @throws Failure EIO where the record names what no volume of that size has
 */
export function applyRecord(map: DirtyMap, payload: Buffer, sectors: number): void {
  let at = 0;
  while (at < payload.length) {
    if (at + ENTRY_BYTES > payload.length) throw unsound();
    const kind = payload[at]!;
    const state = payload[at + 1]!;
    const start = payload.readDoubleLE(at + 8);
    const count = payload.readDoubleLE(at + 16);
    if (!Number.isSafeInteger(start) || !Number.isSafeInteger(count)) throw unsound();
    if (start < 0 || count < 1) throw unsound();
    at += ENTRY_BYTES;
    if (kind === RUN) {
      if (start + count > sectors || !isRunState(state)) throw unsound();
      map.set(start, start + count, state);
    } else if (kind === STATES || kind === NARROW_STATES) {
      const end = at + (kind === STATES ? MIXED_BYTES : NARROW_STATES_BYTES);
      if ((start + 1) * SECTORS_PER_BLOCK > sectors || end > payload.length) throw unsound();
      const states = payload.subarray(at, end);
      map.setStates(start, kind === STATES ? states : widened(states));
      at = end;
    } else if (kind === MASK) {
      if (start >= sectors || at + MASK_BYTES > payload.length) throw unsound();
      const mask = new Uint32Array(MASK_BYTES / 4);
      for (let word = 0; word < mask.length; word++)
        mask[word] = payload.readUInt32LE(at + word * 4);
      map.setMask(start, mask);
      at += MASK_BYTES;
    } else {
      throw unsound();
    }
  }
}

function isRunState(state: number): state is RunState {
  return state === DATA || state === ZERO || state === HOLE;
}

/** States of two bits a sector as those of four. */
function widened(narrow: Uint8Array): Uint8Array {
  const states = newStates(CLEAN);
  for (let sector = 0; sector < SECTORS_PER_BLOCK; sector += 1) {
    const state = (narrow[sector >> 2]! >> ((sector & 3) << 1)) & 3;
    setStates(states, sector, sector + 1, state as SectorState);
  }
  return states;
}

function unsound(): Failure {
  return new Failure(
    "EIO",
    "The session's journal holds an entry that does not fit its volume: it was written by another version of ebsmount, or is damaged.",
  );
}
