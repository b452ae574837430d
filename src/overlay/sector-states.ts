/**
 * The states of one block's sectors, two bits each: 256 bytes for 1024 sectors, made only for
 * blocks that are neither all one thing nor another. A byte holds four sectors, so runs are set and
 * skipped a byte at a time.
 */
import { SECTORS_PER_BLOCK } from "../common/sizes.js";

/** Never written: the bytes are the base's. */
export const CLEAN = 0;
/** Written: the bytes are the overlay file's. */
export const DATA = 1;
/** Discarded: zeros, whatever the base and the overlay file hold. */
export const ZERO = 2;
/** Some of the sector's bytes were written; a byte mask tells which. */
export const PARTIAL = 3;

export type SectorState = typeof CLEAN | typeof DATA | typeof ZERO | typeof PARTIAL;

/** Bytes of a block's states. */
export const STATES_BYTES = SECTORS_PER_BLOCK / 4;

/** The byte that holds one state four times. */
const REPEATED = [0x00, 0x55, 0xaa, 0xff] as const;

/** How many of a byte's four sectors have bytes in the overlay file (DATA or PARTIAL: low bit). */
const DATA_IN_BYTE = new Uint8Array(256);
for (let byte = 0; byte < 256; byte++) {
  for (let bit = 0; bit < 8; bit += 2) DATA_IN_BYTE[byte]! += (byte >> bit) & 1;
}

export function newStates(state: SectorState): Uint8Array {
  return new Uint8Array(STATES_BYTES).fill(REPEATED[state]);
}

/** @param sector within the block, 0 to 1023 */
export function getState(states: Uint8Array, sector: number): SectorState {
  return ((states[sector >> 2]! >> ((sector & 3) << 1)) & 3) as SectorState;
}

export function setStates(states: Uint8Array, from: number, to: number, state: SectorState): void {
  let sector = from;
  while (sector < to && (sector & 3) !== 0) setOne(states, sector++, state);
  const wholeEnd = to & ~3;
  if (sector < wholeEnd) {
    states.fill(REPEATED[state], sector >> 2, wholeEnd >> 2);
    sector = wholeEnd;
  }
  while (sector < to) setOne(states, sector++, state);
}

function setOne(states: Uint8Array, sector: number, state: SectorState): void {
  const shift = (sector & 3) << 1;
  const at = sector >> 2;
  states[at] = (states[at]! & ~(3 << shift)) | (state << shift);
}

/** End of the run of equal states that begins at `from`, at most `to`. */
export function runEndIn(states: Uint8Array, from: number, to: number): number {
  const state = getState(states, from);
  const repeated = REPEATED[state];
  let sector = from + 1;
  while (sector < to) {
    if ((sector & 3) === 0 && states[sector >> 2] === repeated) {
      sector += 4;
      continue;
    }
    if (getState(states, sector) !== state) return sector;
    sector++;
  }
  return to;
}

/** Sectors in [from, to) that have bytes in the overlay file. */
export function countData(states: Uint8Array, from: number, to: number): number {
  let count = 0;
  let sector = from;
  while (sector < to) {
    if ((sector & 3) === 0 && sector + 4 <= to) {
      count += DATA_IN_BYTE[states[sector >> 2]!]!;
      sector += 4;
    } else {
      count += getState(states, sector) & 1;
      sector++;
    }
  }
  return count;
}
