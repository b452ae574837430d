/**
 * The states of one block's sectors, four bits each: 512 bytes for 1024 sectors, made only for blocks
 * whose sectors differ. A byte holds two sectors, so runs are set and skipped a byte at a time.
 *
 * ZERO and HOLE both read as zeros. They differ in the snapshot: a block with a ZERO sector is put, a
 * block with none but HOLE and CLEAN sectors is not, unless the base has it. The low bit says whether
 * the overlay file holds bytes of the sector.
 */
import { SECTORS_PER_BLOCK } from "../common/sizes.js";

/** Never written: the bytes are the base's. */
export const CLEAN = 0;
/** Written: the bytes are the overlay file's. */
export const DATA = 1;
/** Written with zeros: zeros, whatever the base and the overlay file hold. */
export const ZERO = 2;
/** Some of the sector's bytes were written; a byte mask tells which. */
export const PARTIAL = 3;
/** Discarded: zeros to a reader, as if never written to a snapshot. */
export const HOLE = 4;

export type SectorState = typeof CLEAN | typeof DATA | typeof ZERO | typeof PARTIAL | typeof HOLE;

/** States that a whole run of sectors can be put into. */
export type RunState = typeof DATA | typeof ZERO | typeof HOLE;

/** Whether a sector in this state reads as zeros, whatever is below. */
export function readsAsZeros(state: number): state is typeof ZERO | typeof HOLE {
  return state === ZERO || state === HOLE;
}

/** Bytes of a block's states. */
export const STATES_BYTES = SECTORS_PER_BLOCK / 2;
/** What two sectors in state CLEAN or HOLE leave of their byte: nothing. */
const WRITTEN_BITS = 0x33;

/** The byte that holds one state twice. */
function repeated(state: number): number {
  return state * 0x11;
}

export function newStates(state: SectorState): Uint8Array {
  return new Uint8Array(STATES_BYTES).fill(repeated(state));
}

/** @param sector within the block, 0 to 1023 */
export function getState(states: Uint8Array, sector: number): SectorState {
  return ((states[sector >> 1]! >> ((sector & 1) << 2)) & 0xf) as SectorState;
}

export function setStates(states: Uint8Array, from: number, to: number, state: SectorState): void {
  let sector = from;
  if (sector < to && (sector & 1) !== 0) setOne(states, sector++, state);
  const wholeEnd = to & ~1;
  if (sector < wholeEnd) {
    states.fill(repeated(state), sector >> 1, wholeEnd >> 1);
    sector = wholeEnd;
  }
  if (sector < to) setOne(states, sector, state);
}

function setOne(states: Uint8Array, sector: number, state: SectorState): void {
  const shift = (sector & 1) << 2;
  const at = sector >> 1;
  states[at] = (states[at]! & ~(0xf << shift)) | (state << shift);
}

/** End of the run of equal states that begins at `from`, at most `to`. */
export function runEndIn(states: Uint8Array, from: number, to: number): number {
  const state = getState(states, from);
  const pair = repeated(state);
  let sector = from + 1;
  while (sector < to) {
    if ((sector & 1) === 0 && states[sector >> 1] === pair) {
      sector += 2;
      continue;
    }
    if (getState(states, sector) !== state) return sector;
    sector += 1;
  }
  return to;
}

/** Sectors in [from, to) that have bytes in the overlay file. */
export function countData(states: Uint8Array, from: number, to: number): number {
  let count = 0;
  let sector = from;
  while (sector < to) {
    if ((sector & 1) === 0 && sector + 2 <= to) {
      const pair = states[sector >> 1]!;
      count += (pair & 1) + ((pair >> 4) & 1);
      sector += 2;
    } else {
      count += getState(states, sector) & 1;
      sector += 1;
    }
  }
  return count;
}

/** Whether any sector is in another state than CLEAN and HOLE. */
export function hasWritten(states: Uint8Array): boolean {
  return states.some((pair) => (pair & WRITTEN_BITS) !== 0);
}
