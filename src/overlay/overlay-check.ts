/**
 * Whether the overlay files can hold what the dirty map says they do: each must reach to its last
 * written byte. Looked at once, when a session is opened, because a file that is gone or was cut short
 * reads as zeros as soon as something is written behind the cut.
 */
import { Failure } from "../common/failure.js";
import { BLOCK_SIZE, SECTOR_SIZE, SECTORS_PER_BLOCK } from "../common/sizes.js";
import { BLOCKS_PER_GROUP, type DirtyMap, MIXED } from "./dirty-map.js";
import type { OverlayStore } from "./overlay-store.js";
import { DATA, getState, PARTIAL } from "./sector-states.js";

const GROUP_BYTES = BLOCKS_PER_GROUP * BLOCK_SIZE;

/** @throws Failure EIO where one is shorter than what was flushed to it */
export function checkOverlayFiles(map: DirtyMap, store: OverlayStore): void {
  const groups = map.dirtyGroups();
  for (const { name, start, end, size } of store.segments()) {
    const inside = groups.filter(
      (group) => group * GROUP_BYTES >= start && group * GROUP_BYTES < end,
    );
    const written = lastByteIn(map, inside);
    if (written === undefined || start + size >= written) continue;
    throw new Failure(
      "EIO",
      `${name} in the session folder ${size === 0 ? "is missing or empty" : "was cut short"}, and with it data that was written: restore it, or throw the session away with \`ebsmount discard\`.`,
    );
  }
}

/** Offset behind the last byte that the overlay files must hold, in bytes of the volume. */
function lastByteIn(map: DirtyMap, groups: readonly number[]): number | undefined {
  for (const group of [...groups].reverse()) {
    for (let i = BLOCKS_PER_GROUP - 1; i >= 0; i -= 1) {
      const block = group * BLOCKS_PER_GROUP + i;
      const state = map.blockState(block);
      if (state === DATA) return (block + 1) * BLOCK_SIZE;
      const last = state === MIXED ? lastByteOf(map, block) : undefined;
      if (last !== undefined) return last;
    }
  }
  return undefined;
}

function lastByteOf(map: DirtyMap, block: number): number | undefined {
  const states = map.mixedStates(block);
  if (states === undefined) return undefined;
  for (let i = SECTORS_PER_BLOCK - 1; i >= 0; i -= 1) {
    const sector = block * SECTORS_PER_BLOCK + i;
    const state = getState(states, i);
    if (state === DATA) return (sector + 1) * SECTOR_SIZE;
    if (state === PARTIAL) return sector * SECTOR_SIZE + lastBit(map.maskOf(sector)) + 1;
  }
  return undefined;
}

function lastBit(mask: Uint32Array | undefined): number {
  for (let byte = SECTOR_SIZE - 1; byte >= 0; byte -= 1) {
    if (((mask?.[byte >> 5] ?? 0) & (1 << (byte & 31))) !== 0) return byte;
  }
  return -1;
}
